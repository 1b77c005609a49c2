using IlgpuSae.Autograd;
using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Saes;

/// <summary>
/// Transcoders: SAELens' numbers where it has them, else plain double precision. d_in 4, d_out 3, d_sae 6, five rows.
/// </summary>
public sealed class TranscoderTests : IDisposable
{
    private const int Rows = 5;
    private const int In = 4;
    private const int Out = 3;
    private const int Features = 6;
    private readonly CpuDevice _device = new(2);
    private readonly TempFolder _temp = new();

    /// <summary>The transcoders whose inference form computes exactly what the training form does.</summary>
    public static TheoryData<string> Trained => [.. SaeRegistry.Default.TrainingNames
        .Where(n => n.EndsWith("transcoder", StringComparison.Ordinal) && !n.StartsWith("batchtopk", StringComparison.Ordinal))];

    public void Dispose()
    {
        _temp.Dispose();
        _device.Dispose();
    }

    [Theory]
    [InlineData("transcoder")]
    [InlineData("skip_transcoder")]
    [InlineData("jumprelu_transcoder")]
    public void A_transcoder_from_a_folder_computes_what_SAELens_computes(string name)
    {
        var golden = Golden.Open("sae", name);
        using var sae = SaeLensFolder.Load(golden.PathOf("sae"), _device);
        SaeGolden.Check(golden, sae, "expected.safetensors");
        SaeLensFolder.Save(_temp["copy"], sae);
        Assert.Equal(SaeLensFolder.ReadConfig(golden.PathOf("sae")), SaeLensFolder.ReadConfig(_temp["copy"]));
        var (own, theirs) = (SaeLensFolder.ReadWeights(_temp["copy/sae_weights.safetensors"]), SaeLensFolder.ReadWeights(golden.PathOf("sae/sae_weights.safetensors")));
        Assert.Equal(theirs.OrderBy(t => t.Name, StringComparer.Ordinal).Select(t => (t.Name, t.Shape)), own.OrderBy(t => t.Name, StringComparer.Ordinal).Select(t => (t.Name, t.Shape)));
        foreach (var t in theirs) Assert.Equal(t.Values, own.Single(o => o.Name == t.Name).Values);
    }

    [Theory]
    [InlineData("transcoder")]
    [InlineData("jumprelu_transcoder")]
    public void Folding_decoder_norms_gives_what_SAELens_gives(string name)
    {
        var golden = Golden.Open("sae", name);
        using var sae = SaeLensFolder.Load(golden.PathOf("sae"), _device);
        sae.FoldDecoderNorm();
        SaeGolden.Check(golden, sae, "expected_W_dec_folded.safetensors");
        SaeGolden.SameParameters(golden, sae, "sae_W_dec_folded");
    }

    [Theory]
    [InlineData(NormalizeActivations.LayerNorm)]
    [InlineData(NormalizeActivations.ConstantNormRescale)]
    public void Normalisation_touches_the_encoders_input_alone(NormalizeActivations mode)
    {
        using var sae = (TrainingSae)Formula(new SkipTranscoderTrainingConfig { NormalizeActivations = mode });
        using var scope = new TensorScope(_device);
        var (x, w) = (X(), Weights(sae));
        var normal = x.Chunk(In).SelectMany(row =>
        {
            var mean = mode == NormalizeActivations.LayerNorm ? row.Average() : 0;
            var deviation = Math.Sqrt(row.Sum(v => (v - mean) * (v - mean)) / 3) + 1e-5;
            return row.Select(v => mode == NormalizeActivations.LayerNorm ? (v - mean) / deviation : v * 2 / Math.Sqrt(row.Sum(u => u * u)));
        }).ToArray();
        var (f, _) = Plain(normal, w);
        var y = Output(f, x, w);
        var given = sae.Forward(scope, Tensor(scope, x, In)).ToArray<float>();
        for (var i = 0; i < y.Length; i++) Assert.Equal(y[i], given[i], 1e-5);
    }

    [Theory]
    [InlineData("transcoder")]
    [InlineData("skip_transcoder")]
    public void Losses_and_gradients_are_those_of_plain_double_precision(string architecture)
    {
        TranscoderTrainingConfig config = architecture == "transcoder"
            ? new() { L1Coefficient = 0.3 }
            : new SkipTranscoderTrainingConfig { L1Coefficient = 0.3 };
        using var sae = Formula(config);
        Dictionary<string, double> Losses(Dictionary<string, double[]> w)
        {
            var (f, _) = Plain(X(), w);
            var y = Output(f, X(), w);
            var l1 = 0.0;
            for (var b = 0; b < Rows; b++)
                for (var j = 0; j < Features; j++) l1 += f[(b * Features) + j] * Norm(w, j);
            return new() { ["mse_loss"] = Mse(y), ["l1_loss"] = 0.3 * l1 / Rows };
        }

        CheckLosses(sae, Losses, new Dictionary<string, double> { ["l1"] = 0.3 }, dead: []);
    }

    [Theory]
    [InlineData("topk_transcoder", true)]
    [InlineData("topk_skip_transcoder", false)]
    public void TopK_losses_and_gradients_are_those_of_plain_double_precision(string architecture, bool rescale)
    {
        TopKTranscoderTrainingConfig config = architecture == "topk_transcoder"
            ? new() { K = 2, AuxLossCoefficient = 0.7, RescaleActsByDecoderNorm = rescale }
            : new TopKSkipTranscoderTrainingConfig { K = 2, AuxLossCoefficient = 0.7, RescaleActsByDecoderNorm = rescale };
        using var sae = Formula(config);
        int[] dead = [0, 3, 4];
        double[]? frozen = null;
        Dictionary<string, double> Losses(Dictionary<string, double[]> w)
        {
            var (f, pre) = Plain(X(), w);
            var (aux, kept) = (0.0, new double[f.Length]);
            double Rank(int b, int j) => pre[(b * Features) + j] * (rescale ? Norm(w, j) : 1);
            for (var b = 0; b < Rows; b++)
                foreach (var j in Enumerable.Range(0, Features).OrderByDescending(j => Rank(b, j)).Take(2)) kept[(b * Features) + j] = f[(b * Features) + j];
            var y = Output(kept, X(), w);
            // The residual is a constant of the auxiliary loss; d_out div 2 = 1, so the best dead feature answers it.
            frozen ??= [.. Target().Zip(y).Select(p => p.First - p.Second)];
            for (var b = 0; b < Rows; b++)
            {
                var best = dead.MaxBy(j => Rank(b, j));
                for (var i = 0; i < Out; i++) aux += Math.Pow((pre[(b * Features) + best] * w["W_dec"][(best * Out) + i]) - frozen[(b * Out) + i], 2);
            }

            return new() { ["mse_loss"] = Mse(y), ["auxiliary_reconstruction_loss"] = 0.7 * aux / Rows };
        }

        CheckLosses(sae, Losses, [], dead);
    }

    [Theory]
    [InlineData("batchtopk_transcoder", true)]
    [InlineData("batchtopk_skip_transcoder", false)]
    public void BatchTopK_losses_and_gradients_are_those_of_plain_double_precision(string architecture, bool rescale)
    {
        BatchTopKTranscoderTrainingConfig config = architecture == "batchtopk_transcoder"
            ? new() { K = 1.5, RescaleActsByDecoderNorm = rescale }
            : new BatchTopKSkipTranscoderTrainingConfig { K = 1.5, RescaleActsByDecoderNorm = rescale };
        using var sae = Formula(config);
        Dictionary<string, double> Losses(Dictionary<string, double[]> w)
        {
            var (f, _) = Plain(X(), w);
            var kept = new double[f.Length];
            foreach (var n in Enumerable.Range(0, f.Length).OrderByDescending(n => f[n] * (rescale ? Norm(w, n % Features) : 1)).Take(7)) kept[n] = f[n];
            return new() { ["mse_loss"] = Mse(Output(kept, X(), w)), ["auxiliary_reconstruction_loss"] = 0 };
        }

        CheckLosses(sae, Losses, [], dead: []);
    }

    [Theory]
    [InlineData("jumprelu_transcoder")]
    [InlineData("jumprelu_skip_transcoder")]
    public void JumpReLU_losses_are_those_of_plain_double_precision(string architecture)
    {
        JumpReLUTranscoderTrainingConfig config = architecture == "jumprelu_transcoder"
            ? new() { JumpreluInitThreshold = 0.4, JumpreluBandwidth = 0.2 }
            : new JumpReLUSkipTranscoderTrainingConfig { JumpreluInitThreshold = 0.4, JumpreluBandwidth = 0.2 };
        using var sae = Formula(config);
        Dictionary<string, double> Losses(Dictionary<string, double[]> w)
        {
            var (f, _) = Plain(X(), w);
            double[] kept = [.. f.Select(v => v > 0.4 ? v : 0)];
            return new() { ["mse_loss"] = Mse(Output(kept, X(), w)), ["l0_loss"] = 0.5 * kept.Count(v => v > 0) / Rows };
        }

        // Thresholds move by straight-through gradients, which no difference shows.
        CheckLosses(sae, Losses, new() { ["l0"] = 0.5 }, dead: [], w => Losses(w)["mse_loss"], skip: ["log_threshold"]);
    }

    [Fact]
    public void A_BatchTopK_transcoders_threshold_follows_the_scale_of_its_output()
    {
        using var sae = Formula(new BatchTopKTranscoderTrainingConfig { K = 1.5, TopkThresholdLr = 1 });
        using var scope = new TensorScope(_device);
        var x = Tensor(scope, X(), In);
        var pass = sae.Forward(scope, Scale.By(scope, x, 0.4f), new TrainingStep(0, new Dictionary<string, double>(), default), Tensor(scope, Target(), Out));
        sae.AfterStep(scope, pass);
        // Just below the smallest that was kept, the threshold keeps what the batch kept.
        var state = sae.ExportState();
        sae.ImportState([.. state.Select(s => s.Name == "topk_threshold" ? s with { Values = [s.Values[0] * 0.999f], Doubles = null } : s)], "test");
        var before = sae.Forward(scope, Scale.By(scope, x, 0.4f)).ToArray<float>();
        sae.FoldActivationScale(0.4);
        sae.ScaleOutput(0.4 / 5);
        using var inference = sae.ToInference();
        Assert.IsType<JumpReLUTranscoderSae>(inference);
        var after = inference.Forward(scope, x).ToArray<float>();
        for (var i = 0; i < after.Length; i++) Assert.Equal(before[i] / 5, after[i], 1e-5);
    }

    [Theory]
    [MemberData(nameof(Trained))]
    public void What_training_yields_is_read_from_its_folder_and_computes_the_same(string architecture)
    {
        var type = SaeRegistry.Default.ConfigType(architecture, training: true);
        var json = ConfigJson.ToJson(Activator.CreateInstance(type)!);
        if (json.ContainsKey("k")) json["k"] = 3;
        if (json.ContainsKey("jumprelu_init_threshold")) json["jumprelu_init_threshold"] = 0.4;
        using var sae = Formula((TrainingSaeConfig)ConfigJson.FromJson(json, type, "test"));
        using var inference = sae.ToInference();
        SaeLensFolder.Save(_temp["a"], inference, training: sae);
        using var read = SaeLensFolder.Load(_temp["a"], _device);
        using var again = SaeLensFolder.LoadForTraining(_temp["a/training"], _device);
        using var scope = new TensorScope(_device);
        var x = Tensor(scope, X(), In);
        Assert.Equal([Rows, Out], read.Forward(scope, x).Shape);
        Assert.Equal(inference.Forward(scope, x).ToArray<float>(), read.Forward(scope, x).ToArray<float>());
        Golden.Close(architecture, read.Forward(scope, x).ToArray<float>(), sae.Forward(scope, x).ToArray<float>(), 1e-5, 1e-5);
        Assert.Equal(sae.Forward(scope, x).ToArray<float>(), again.Forward(scope, x).ToArray<float>());
        Assert.Equal(sae.Config, again.Config);
    }

    [Fact]
    public void Ghost_gradients_answer_what_the_target_lacks()
    {
        using var sae = Formula(new TranscoderTrainingConfig { UseGhostGrads = true, NormalizeActivations = NormalizeActivations.LayerNorm });
        using var scope = new TensorScope(_device);
        using var tape = new Tape(scope);
        foreach (var p in sae.Parameters.Values) tape.Watch(p);
        var step = new TrainingStep(0, new Dictionary<string, double> { ["l1"] = 0 }, new[] { 2 });
        var pass = sae.Forward(scope, Tensor(scope, X(), In), step, Tensor(scope, Target(), Out));
        var loss = pass.Losses.Single(l => l.Name == "ghost_grad_loss").Value;
        // c q is about the squared error itself, whatever the scale: mean over elements.
        Assert.Equal(pass.Losses[0].Value.Scalar() / Out, loss.Scalar(), 1e-3);
        tape.Backward(loss);
        var gradient = tape.Gradient(sae.WDec).ToArray<float>().Chunk(Out).ToArray();
        for (var j = 0; j < Features; j++) Assert.Equal(j == 2, gradient[j].Any(g => g != 0));
    }

    [Fact]
    public void Two_scales_are_folded_into_one_transcoder()
    {
        using var sae = Formula(new SkipTranscoderTrainingConfig());
        using var scope = new TensorScope(_device);
        var x = Tensor(scope, X(), In);
        var before = sae.Forward(scope, Scale.By(scope, x, 0.4f)).ToArray<float>();
        sae.FoldActivationScale(0.4);
        sae.ScaleOutput(0.4 / 5);
        var after = sae.Forward(scope, x).ToArray<float>();
        for (var i = 0; i < after.Length; i++) Assert.Equal(before[i] / 5, after[i], 1e-5);
        Assert.StartsWith("output scale: 0 is not a positive number", Assert.Throws<InvalidInputException>(() => sae.ScaleOutput(0)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_first_encoder_is_drawn_by_itself_and_the_skip_begins_at_zero()
    {
        var config = new SkipTranscoderTrainingConfig { DIn = 7, DOut = 5, DSae = 33 };
        using var a = SaeRegistry.Default.CreateForTraining(config, _device, seed: 3);
        using var b = SaeRegistry.Default.CreateForTraining(config, _device, seed: 3);
        using var raw = SaeRegistry.Default.CreateForTraining(config with { DecoderInitNorm = null }, _device, seed: 3);
        using var scope = new TensorScope(_device);
        Assert.Equal(a.WEnc.ToArray<float>(), b.WEnc.ToArray<float>());
        Assert.Equal(([33, 7], [33, 5]), (a.WEnc.Shape, a.WDec.Shape));
        Assert.All(RowNorm.L2(scope, a.WEnc).ToArray<float>(), n => Assert.Equal(0.1f, n, 1e-6f));
        Assert.All(RowNorm.L2(scope, a.WDec).ToArray<float>(), n => Assert.Equal(0.1f, n, 1e-6f));
        Assert.All(a.Parameters["W_skip"].ToArray<float>(), v => Assert.Equal(0, v));
        Assert.InRange(raw.WEnc.ToArray<float>().Max(), 0.9 * Math.Sqrt(6.0 / 33), Math.Sqrt(6.0 / 33));
        Assert.InRange(raw.WDec.ToArray<float>().Max(), 0.9 * Math.Sqrt(6.0 / 5), Math.Sqrt(6.0 / 5));
    }

    [Fact]
    public void What_cannot_be_is_refused()
    {
        void Refused(string message, SaeConfig config) =>
            Assert.StartsWith(message, Assert.Throws<InvalidInputException>(config.Validate).Message, StringComparison.Ordinal);
        var good = new TranscoderTrainingConfig { DIn = 4, DOut = 3, DSae = 6 };
        good.Validate();
        Refused("d_out: 0 is not a width", good with { DOut = 0 });
        Refused("apply_b_dec_to_input: architecture transcoder cannot subtract b_dec", good with { ApplyBDecToInput = true });
        Refused("apply_b_dec_to_input: architecture skip_transcoder cannot subtract b_dec", new SkipTranscoderConfig { DIn = 4, DSae = 6, ApplyBDecToInput = true });
        Refused("reshape_activations: architecture transcoder takes [..., d_in]; use none", good with { ReshapeActivations = ReshapeActivations.HookZ });
        Refused("k: 9 features a row, but there are only d_sae = 6", new TopKTranscoderTrainingConfig { DIn = 4, DOut = 3, DSae = 6, K = 9 });
        new TopKTranscoderTrainingConfig { DIn = 4, DOut = 3, DSae = 6, K = 2, NormalizeActivations = NormalizeActivations.LayerNorm }.Validate();
        Refused("k: 9 features a row, but there are only d_sae = 6", new BatchTopKTranscoderTrainingConfig { DIn = 4, DOut = 3, DSae = 6, K = 9 });
        Refused("jumprelu_bandwidth: 0 is not a positive number", new JumpReLUTranscoderTrainingConfig { DIn = 4, DOut = 3, DSae = 6, JumpreluBandwidth = 0 });
        Refused("d_out: -2 is not a width", new JumpReLUSkipTranscoderConfig { DIn = 4, DOut = -2, DSae = 6 });
        Refused("l1_coefficient: -1 is not a number of at least 0", good with { L1Coefficient = -1 });
        using var sae = Formula(new TranscoderTrainingConfig());
        using var scope = new TensorScope(_device);
        var x = Tensor(scope, X(), In);
        Assert.StartsWith("error term: architecture transcoder gives another hook's activations",
            Assert.Throws<InvalidInputException>(() => sae.Forward(scope, x, useErrorTerm: true)).Message, StringComparison.Ordinal);
        var step = new TrainingStep(0, new Dictionary<string, double> { ["l1"] = 1 }, default);
        Assert.StartsWith("train: the target is [5, 4] but the output is 3 wide", Assert.Throws<ShapeException>(() => sae.Forward(scope, x, step)).Message, StringComparison.Ordinal);
        Assert.Equal("train: the rows are 4 wide but a transcoder of d_in = 4 and d_out = 3 takes 7: its input and its target side by side",
            Assert.Throws<ShapeException>(() => sae.Split(scope, x)).Message);
    }

    /// <summary>Compares every loss with its plain form, and the gradient of their sum with central differences of it.</summary>
    internal static void CheckLosses(
        TrainingSae sae, Func<Dictionary<string, double[]>, Dictionary<string, double>> losses, Dictionary<string, double> coefficients, int[] dead,
        Func<Dictionary<string, double[]>, double>? differentiated = null, IReadOnlyList<string>? skip = null)
    {
        using var scope = new TensorScope(sae.Device);
        using var tape = new Tape(scope);
        foreach (var p in sae.Parameters.Values) tape.Watch(p);
        var pass = sae.Forward(scope, Tensor(scope, X(), In), new TrainingStep(0, coefficients, dead), Tensor(scope, Target(), Out));
        var w = Weights(sae);
        var expected = losses(w);
        Assert.Equal(expected.Keys, pass.Losses.Select(l => l.Name));
        foreach (var (name, value) in pass.Losses) Assert.Equal(expected[name], value.Scalar(), 1e-5 * (1 + Math.Abs(expected[name])));
        tape.Backward(pass.Total);
        differentiated ??= v => losses(v).Values.Sum();
        foreach (var (name, tensor) in sae.Parameters)
        {
            if (skip?.Contains(name) == true) continue;
            var gradient = tape.Gradient(tensor).ToArray<float>();
            for (var i = 0; i < gradient.Length; i++)
            {
                var kept = w[name][i];
                w[name][i] = kept + 1e-6;
                var up = differentiated(w);
                w[name][i] = kept - 1e-6;
                var down = differentiated(w);
                w[name][i] = kept;
                Assert.True(Math.Abs(((up - down) / 2e-6) - gradient[i]) < 2e-4 * (1 + Math.Abs(gradient[i])), $"{name}[{i}]: {gradient[i]} is not {(up - down) / 2e-6}");
            }
        }
    }

    internal static double Mse(double[] y) => y.Zip(Target()).Sum(p => (p.First - p.Second) * (p.First - p.Second)) / Rows;

    internal static double[] X() => [.. Enumerable.Range(0, Rows * In).Select(n => (double)(float)(1.5 * Math.Sin(0.5 + (2.3 * (n / In)) + (1.3 * (n % In)))))];

    internal static double[] Target() => [.. Enumerable.Range(0, Rows * Out).Select(n => (double)(float)(2 * Math.Cos(0.1 + (1.1 * (n / Out)) + (2.7 * (n % Out)))))];

    internal static double Norm(Dictionary<string, double[]> w, int feature) => Math.Sqrt(w["W_dec"].AsSpan(feature * Out, Out).ToArray().Sum(v => v * v));

    /// <summary>ReLU features and pre-activations.</summary>
    internal static (double[] Features, double[] Pre) Plain(double[] x, Dictionary<string, double[]> w)
    {
        var pre = new double[Rows * Features];
        for (var n = 0; n < pre.Length; n++)
        {
            var (b, j) = (n / Features, n % Features);
            pre[n] = w["b_enc"][j] + Enumerable.Range(0, In).Sum(i => x[(b * In) + i] * w["W_enc"][(j * In) + i]);
        }

        return ([.. pre.Select(v => Math.Max(0, v))], pre);
    }

    /// <summary>f W_dec + b_dec, + x W_skip^T where there is one.</summary>
    internal static double[] Output(double[] f, double[] x, Dictionary<string, double[]> w)
    {
        var y = new double[Rows * Out];
        for (var n = 0; n < y.Length; n++)
        {
            var (b, i) = (n / Out, n % Out);
            y[n] = w["b_dec"][i] + Enumerable.Range(0, Features).Sum(j => f[(b * Features) + j] * w["W_dec"][(j * Out) + i]);
            if (w.TryGetValue("W_skip", out var skip)) y[n] += Enumerable.Range(0, In).Sum(c => x[(b * In) + c] * skip[(i * In) + c]);
        }

        return y;
    }

    internal static Dictionary<string, double[]> Weights(Sae sae) =>
        sae.Parameters.ToDictionary(p => p.Key, p => p.Value.ToArray<float>().Select(v => (double)v).ToArray());

    internal static Tensor Tensor(TensorScope scope, double[] values, int width) => scope.From<float>([.. values.Select(v => (float)v)], [values.Length / width, width]);

    internal TrainingSae Formula(TrainingSaeConfig config) => Formula(config, _device);

    /// <summary>A transcoder whose every weight follows a formula.</summary>
    internal static TrainingSae Formula(TrainingSaeConfig config, Device device)
    {
        var sae = SaeRegistry.Default.CreateForTraining((TrainingSaeConfig)(config with { DIn = In, DSae = Features }).WithOutputWidth(Out), device);
        var phase = 0.0;
        foreach (var (_, p) in sae.Parameters.OrderBy(p => p.Key, StringComparer.Ordinal).Where(p => p.Key is not ("threshold" or "log_threshold")))
        {
            phase += 0.4;
            p.CopyFrom<float>([.. Enumerable.Range(0, (int)p.Count).Select(i => (float)((p.Shape.Rank == 1 ? 0.2 : 0.9) * Math.Sin(phase + (1.9 * i))))]);
        }

        return sae;
    }
}
