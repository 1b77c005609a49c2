using IlgpuSae.Autograd;
using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;
using Xunit;

namespace IlgpuSae.Tests.Saes;

/// <summary>
/// Gated, JumpReLU, BatchTopK, Matryoshka, AbsTopK and p-annealed SAEs on the formulas of <see cref="FormulaSae"/>. Numbers without
/// another source come from running SAELens 6.18's classes in float32.
/// </summary>
public sealed class ArchitectureTests : IDisposable
{
    private const double Printed = 2e-5;
    private static readonly double[] Half = [1.65486, 0, 0, 0, 0, 0, 3.27456, 2.15555, 0, 0];
    private readonly CpuDevice _device = new(2);

    public void Dispose() => _device.Dispose();

    [Fact]
    public void Gated_losses_and_gradients_are_those_of_SAELens()
    {
        using var sae = Gated(new GatedTrainingConfig { DIn = 3, DSae = 5, L1Coefficient = 0.5 });
        var (pass, gradient) = Step(sae, 0.5);
        Dense(pass, [1.69815, .25188, 0, 0, 0, 1.49199, 2.46353, 1.60628, 0, 0]);
        Losses(pass, ("mse_loss", 29.533260), ("l1_loss", 2.171736), ("auxiliary_reconstruction_loss", 22.829273));
        Norms(gradient, ("b_dec", 65.569328), ("W_dec", 45.359283), ("W_enc", 49.572800), ("b_gate", 13.417190), ("r_mag", 30.354303), ("b_mag", 15.273793));
    }

    [Fact]
    public void A_detached_gate_leaves_the_decoder_to_the_reconstruction()
    {
        using var attached = Gated(new GatedTrainingConfig { DIn = 3, DSae = 5, L1Coefficient = 0.5 });
        using var detached = Gated(new GatedTrainingConfig { DIn = 3, DSae = 5, L1Coefficient = 0.5, DetachGateDecoder = true });
        var (first, all) = Step(attached, 0.5);
        var (second, some) = Step(detached, 0.5);
        Assert.Equal(first.Total.Scalar(), second.Total.Scalar());
        foreach (var name in new[] { "W_enc", "b_gate", "r_mag", "b_mag" })
            Assert.Equal(all(name).Select(v => (double)v), some(name).Select(v => (double)v), (a, b) => Math.Abs(a - b) < 1e-4);
        // Of mse_loss alone, as if the gate's losses were not there.
        using var scope = new TensorScope(_device);
        using var tape = new Tape(scope);
        tape.Watch(attached.WDec);
        tape.Backward(attached.Forward(scope, FormulaSae.Input(scope), At(attached, 0.5)).Losses[0].Value);
        Assert.Equal(tape.Gradient(attached.WDec).ToArray<float>(), some("W_dec"));
        Assert.NotEqual(all("W_dec"), some("W_dec"));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Jumprelu_losses_and_gradients_are_those_of_SAELens(bool logarithm)
    {
        var config = new JumpReLUTrainingConfig
        {
            DIn = 3,
            DSae = 5,
            JumpreluBandwidth = 1,
            L0Coefficient = 0.5,
            PreActLossCoefficient = 0.1,
            TrainLogThreshold = logarithm,
        };
        double[] features = [1.24939, 0, 0, 0, 0, 1.08061, 2.11123, 1.50628, 0, 0];
        var theta = FormulaSae.Fill(5, j => 0.2 + (0.15 * j));
        using (var sae = Jumprelu(config, theta))
        {
            var (pass, gradient) = Step(sae, 0.5, 1, 3, 4);
            Dense(pass, features);
            Losses(pass, ("mse_loss", 22.797884), ("l0_loss", 1.0), ("pre_act_loss", 0.809812));
            Norms(gradient, ("b_dec", 26.702465), ("W_dec", 18.929186), ("W_enc", 22.178881), ("b_enc", 11.911094));
            Thresholds(gradient, logarithm, theta, [0, -.079082, 0, .142033, .177850]);
            Losses(Step(sae, 0.5).Pass, ("mse_loss", 22.797884), ("l0_loss", 1.0), ("pre_act_loss", 0));
        }

        using var tanh = Jumprelu(config with { JumpreluSparsityLossMode = JumpReLUSparsityLoss.Tanh, PreActLossCoefficient = null }, theta);
        var (other, gradients) = Step(tanh, 0.5);
        Dense(other, features);
        Losses(other, ("mse_loss", 22.797884), ("l0_loss", .999994));
        Norms(gradients, ("b_dec", 26.410357), ("W_dec", 18.918768), ("W_enc", 22.132339), ("b_enc", 11.972195));
        Thresholds(gradients, logarithm, theta, [0, -.208725, 0, 0, 0]);
    }

    [Fact]
    public void Jumprelus_quadratic_loss_is_the_squared_relative_distance_from_the_target()
    {
        // One and three features are active: ((1 / 4 - 1)^2 + (3 / 4 - 1)^2) / 2.
        var config = new JumpReLUTrainingConfig
        {
            DIn = 3,
            DSae = 5,
            JumpreluBandwidth = 1,
            L0Coefficient = 2,
            JumpreluSparsityLossMode = JumpReLUSparsityLoss.Quadratic,
            TargetL0 = 4,
        };
        var theta = FormulaSae.Fill(5, j => 0.2 + (0.15 * j));
        using var sae = Jumprelu(config, theta);
        using var scope = new TensorScope(_device);
        using var tape = new Tape(scope);
        tape.Watch(sae.Parameters["log_threshold"]);
        var pass = sae.Forward(scope, FormulaSae.Input(scope), At(sae, 2));
        Assert.Equal(2 * 0.3125, pass.Losses[1].Value.Scalar(), 1e-6);
        tape.Backward(pass.Losses[1].Value);
        // Row 0's feature 1 (0.11 of 0.35) is the only pre-activation within half a bandwidth of its threshold.
        var expected = -2 * 2 * ((1 / 4.0) - 1) / 4 / 2 * theta[1];
        Assert.Equal([0, expected, 0, 0, 0], tape.Gradient(sae.Parameters["log_threshold"]).ToArray<float>().Select(v => (double)v), (a, b) => Math.Abs(a - b) < 1e-6);
    }

    [Fact]
    public void A_trained_threshold_below_zero_counts_as_zero_and_is_kept_in_files()
    {
        using var sae = Jumprelu(new JumpReLUTrainingConfig { DIn = 3, DSae = 5, JumpreluBandwidth = 1, TrainLogThreshold = false }, [-1, -1, -1, -1, -1]);
        var (pass, gradient) = Step(sae, 0.5);
        // The active ones are those of ReLU.
        Dense(pass, [1.24939, .11005, 0, 0, 0, 1.08061, 2.11123, 1.50628, 0, 0]);
        Assert.All(gradient("threshold"), g => Assert.Equal(0, g));
        Assert.Equal([-1, -1, -1, -1, -1], sae.ExportState().Single(s => s.Name == "threshold").Values);
        using var inference = sae.ToInference();
        using var scope = new TensorScope(_device);
        Assert.Equal(DenseFeatures.Of(scope, sae.Encode(scope, FormulaSae.Input(scope))).ToArray<float>(),
            DenseFeatures.Of(scope, inference.Encode(scope, FormulaSae.Input(scope))).ToArray<float>());
        using var logarithm = Jumprelu(new JumpReLUTrainingConfig { DIn = 3, DSae = 5 }, [1, 1, 1, 1, 1]);
        Assert.Equal("w: threshold of feature 0 is -1, which has no logarithm to train; use train_log_threshold = false",
            Assert.Throws<InvalidInputException>(() => logarithm.ImportState(sae.ExportState(), "w")).Message);
    }

    [Fact]
    public void Batchtopk_selects_over_the_batch_and_follows_its_smallest_activation()
    {
        using var sae = FormulaSae.Create(new BatchTopKTrainingConfig { DIn = 3, DSae = 5, K = 1.5 }, _device);
        var (pass, _) = Step(sae, null);
        Dense(pass, Half);
        Losses(pass, ("mse_loss", 19.345261), ("auxiliary_reconstruction_loss", 0));
        using var scope = new TensorScope(_device);
        sae.AfterStep(scope, sae.Forward(scope, FormulaSae.Input(scope), At(sae, null)));
        Assert.Equal(.0165485644, sae.Metrics["topk_threshold"], 1e-8);
        using var inference = sae.ToInference();
        Assert.Equal("jumprelu", inference.Config.Architecture);
        Assert.All(inference.Parameters["threshold"].ToArray<float>(), t => Assert.Equal(.0165485644f, t, 1e-8f));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_saved_batchtopk_SAE_fires_as_in_training_also_where_a_scale_was_folded(bool rescale)
    {
        using var sae = FormulaSae.Create(new BatchTopKTrainingConfig
        {
            DIn = 3,
            DSae = 5,
            K = 1.5,
            RescaleActsByDecoderNorm = rescale,
            NormalizeActivations = NormalizeActivations.ExpectedAverageOnlyIn,
        }, _device);
        using var scope = new TensorScope(_device);
        var x = FormulaSae.Input(scope);
        for (var i = 0; i < 500; i++)
        {
            using var step = new TensorScope(_device);
            sae.AfterStep(step, sae.Forward(step, x, At(sae, null)));
        }

        var expected = DenseFeatures.Of(scope, sae.Encode(scope, x)).ToArray<float>();
        const float s = 0.37f;
        sae.FoldActivationScale(s);
        using var inference = sae.ToInference();
        var actual = DenseFeatures.Of(scope, inference.Encode(scope, Scale.By(scope, x, 1 / s))).ToArray<float>();
        Assert.Equal(expected.Select(v => v / (rescale ? s : 1.0)), actual.Select(v => (double)v), (a, b) => Math.Abs(a - b) < 1e-4);
    }

    [Fact]
    public void A_threshold_survives_files_in_double_precision()
    {
        using var sae = FormulaSae.Create(new BatchTopKTrainingConfig { DIn = 3, DSae = 5, K = 1.5 }, _device);
        using var scope = new TensorScope(_device);
        sae.AfterStep(scope, sae.Forward(scope, FormulaSae.Input(scope), At(sae, null)));
        using var folder = new TempFolder();
        SaeLensFolder.Save(folder["sae"], sae);
        using var loaded = SaeLensFolder.LoadForTraining(folder["sae"], _device);
        Assert.Equal(sae.Metrics["topk_threshold"], loaded.Metrics["topk_threshold"]);
        // The training form's folder loads for use as what it becomes.
        using var used = SaeLensFolder.Load(folder["sae"], _device);
        Assert.IsType<JumpReLUSae>(used);
        Assert.Equal((float)sae.Metrics["topk_threshold"], used.Parameters["threshold"].ToArray<float>()[0]);
        Assert.NotEqual((double)(float)sae.Metrics["topk_threshold"], sae.Metrics["topk_threshold"]);
    }

    [Fact]
    public void Matryoshka_adds_the_loss_of_each_level()
    {
        var config = new MatryoshkaBatchTopKTrainingConfig { DIn = 3, DSae = 5, K = 1.5, MatryoshkaWidths = new(2, 4) };
        using var sae = FormulaSae.Create(config, _device);
        Assert.Equal(new WidthList(2, 4, 5), ((MatryoshkaBatchTopKTrainingConfig)sae.Config).MatryoshkaWidths);
        var (pass, _) = Step(sae, null);
        Dense(pass, Half);
        Losses(pass, ("mse_loss", 19.345261), ("auxiliary_reconstruction_loss", 0), ("inner_mse_loss_2", 12.727969), ("inner_mse_loss_4", 19.345261));
    }

    [Fact]
    public void Matryoshka_levels_revive_their_own_dead_features()
    {
        var config = new MatryoshkaBatchTopKTrainingConfig { DIn = 3, DSae = 5, K = 1.5, MatryoshkaWidths = new(2, 5), UseMatryoshkaAuxLoss = true };
        using var sae = FormulaSae.Create(config, _device);
        var (pass, _) = Step(sae, null, 1, 3, 4);
        // d_in div 2 = 1: of each level the dead feature with the largest h n reconstructs what the levels up to it miss.
        var (x, enc, dec) = (FormulaSae.Rows(), sae.WEnc.ToArray<float>(), sae.WDec.ToArray<float>());
        double Norm(int j) => Math.Sqrt(Enumerable.Range(0, 3).Sum(i => (double)dec[(3 * j) + i] * dec[(3 * j) + i]));
        double Pre(int b, int j) => (0.05 * (j - 2)) + Enumerable.Range(0, 3).Sum(i => (x[(3 * b) + i] - (0.1 * (i - 1))) * enc[(3 * j) + i]);
        var loss = 0.0;
        foreach (var (width, dead) in new[] { (2, new[] { 1 }), (5, new[] { 3, 4 }) })
        {
            for (var b = 0; b < 2; b++)
            {
                var best = dead.MaxBy(j => Pre(b, j) * Norm(j));
                for (var i = 0; i < 3; i++)
                {
                    var partial = (0.1 * (i - 1)) + Enumerable.Range(0, width).Where(j => Half[(5 * b) + j] > 0).Sum(j => Pre(b, j) * dec[(3 * j) + i]);
                    var d = (Pre(b, best) * dec[(3 * best) + i]) - (x[(3 * b) + i] - partial);
                    loss += d * d / 2;
                }
            }
        }

        Assert.Equal(loss, pass.Losses[1].Value.Scalar(), 1e-4);
    }

    [Fact]
    public void Abstopk_keeps_the_largest_magnitudes_with_their_signs()
    {
        using var sae = FormulaSae.Create(new AbsTopKTrainingConfig { DIn = 3, DSae = 5, K = 2, RescaleActsByDecoderNorm = false }, _device);
        var (pass, gradient) = Step(sae, null);
        // Pre-activations: 1.249 .110 -1.150 -1.540 -.727 and 1.081 2.111 1.506 -.239 -1.765.
        Dense(pass, [1.249393, 0, 0, -1.540272, 0, 0, 2.111233, 0, 0, -1.765066]);
        Assert.Equal(0, gradient("b_enc")[2]);
        Assert.NotEqual(0, gradient("b_enc")[3]);
        using var scope = new TensorScope(_device);
        using var inference = sae.ToInference();
        Assert.Equal("abstopk", inference.Config.Architecture);
        Assert.Equal(DenseFeatures.Of(scope, pass.Features).ToArray<float>(), DenseFeatures.Of(scope, inference.Encode(scope, FormulaSae.Input(scope))).ToArray<float>());
        // Through a hook, from dense pre-activations.
        var hooks = new SaeHooks().On(SaeHooks.ActsPre, _ => null);
        Assert.Equal(DenseFeatures.Of(scope, pass.Features).ToArray<float>(), DenseFeatures.Of(scope, inference.Encode(scope, FormulaSae.Input(scope), hooks)).ToArray<float>());
    }

    [Fact]
    public void Dead_features_of_abstopk_compete_by_magnitude()
    {
        using var sae = FormulaSae.Create(new AbsTopKTrainingConfig { DIn = 3, DSae = 5, K = 2, RescaleActsByDecoderNorm = false }, _device);
        var (_, gradient) = Step(sae, null, 0, 2);
        var (_, alone) = Step(sae, null, 2);
        // Row 0: |1.249| of feature 0 wins over |-1.150|; row 1: |1.506| of feature 2 over 1.081.
        Assert.NotEqual(0, gradient("b_enc")[2]);
        Assert.NotEqual(gradient("b_enc")[2], alone("b_enc")[2]);
    }

    [Theory]
    [InlineData(PAnnealSparsity.LpPower)]
    [InlineData(PAnnealSparsity.Lp)]
    public void P_falls_in_steps_and_the_weight_follows_so_that_the_penalty_does_not_jump(PAnnealSparsity function)
    {
        var config = new PAnnealTrainingConfig
        {
            DIn = 3,
            DSae = 5,
            L1Coefficient = 0.5,
            SparsityFunction = function,
            AnnealStart = 2,
            AnnealEnd = 10,
            NSparsityUpdates = 5,
            SparsityQueueLength = 2,
        };
        using var sae = FormulaSae.Create(config, _device);
        var losses = new List<double>();
        var ps = new List<double>();
        for (var i = 0; i < 12; i++)
        {
            using var scope = new TensorScope(_device);
            var pass = sae.Forward(scope, FormulaSae.Input(scope), new TrainingStep(i, new Dictionary<string, double> { ["l1"] = 0.5 }, default));
            losses.Add(pass.Losses[1].Value.Scalar());
            sae.AfterStep(scope, pass);
            ps.Add(sae.Metrics["p"]);
        }

        // Changes after steps 2, 4, 6, 8, 10; the first sets p_start. The same batch again: the same penalty, whatever p.
        Assert.Equal([1, 1, 1, 1, 0.8, 0.8, 0.6, 0.6, 0.4, 0.4, 0.2, 0.2], ps, (a, b) => Math.Abs(a - b) < 1e-9);
        Assert.All(losses, l => Assert.Equal(2.171736, l, 2e-5));
        using var copy = FormulaSae.Create(config, _device);
        copy.ImportState(sae.ExportState(), "test");
        Assert.Equal(sae.Metrics, copy.Metrics);
        using var inference = sae.ToInference();
        Assert.Equal("standard", inference.Config.Architecture);
        using var endless = FormulaSae.Create(config with { AnnealEnd = null, AnnealStart = null }, _device);
        using var last = new TensorScope(_device);
        Assert.StartsWith("anneal_end: missing", Assert.Throws<InvalidInputException>(
            () => endless.AfterStep(last, endless.Forward(last, FormulaSae.Input(last), At(endless, 0.5)))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Batchtopk_from_a_sampled_limit_is_exact_also_when_the_sample_misleads()
    {
        // Rows that the sample sees are a thousand times as large as the others, so its limit is far too high.
        const int n = 500, m = 40;
        var random = new Random(3);
        using var scope = new TensorScope(_device);
        var seen = Enumerable.Range(0, 96).Select(i => ((2 * i) + 1) * n / 192).ToHashSet();
        var x = scope.From<float>([.. Enumerable.Range(0, n * 6).Select(i => (random.NextSingle() - 0.5f) * (seen.Contains(i / 6) ? 1000 : 1))], [n, 6]);
        var w = scope.From<float>([.. Enumerable.Range(0, m * 6).Select(_ => random.NextSingle() - 0.5f)], [m, 6]);
        var b = scope.Zeros([m]);
        var pre = Gemm.Multiply(scope, x, w, b, transposeB: true);
        foreach (var count in new[] { 0, 1, 1500, 6000, 9000, 15000, n * m })
        {
            var expected = LargestOfBatch.Of(scope, SparseFromDense.Of(scope, Activate.Forward(scope, pre, ActivationKind.Relu)), count);
            var actual = EncodeSelect.BatchTopK(scope, x, w, b, count);
            Assert.Equal(expected.RowOffsets.ToArray<int>(), actual.RowOffsets.ToArray<int>());
            Assert.Equal(expected.Indices.ToArray<int>(), actual.Indices.ToArray<int>());
            Assert.Equal(expected.Values.ToArray<float>(), actual.Values.ToArray<float>());
        }
    }

    private TrainingSae Gated(GatedTrainingConfig config)
    {
        var sae = FormulaSae.Create(config, _device);
        sae.Parameters["b_gate"].CopyFrom<float>(FormulaSae.Fill(5, j => 0.05 * (j - 2)));
        sae.Parameters["r_mag"].CopyFrom<float>(FormulaSae.Fill(5, j => -0.1 * (j - 2)));
        sae.Parameters["b_mag"].CopyFrom<float>(FormulaSae.Fill(5, j => (0.025 * (j - 2)) + 0.1));
        return sae;
    }

    private TrainingSae Jumprelu(JumpReLUTrainingConfig config, float[] theta)
    {
        var sae = FormulaSae.Create(config, _device);
        if (config.TrainLogThreshold) sae.Parameters["log_threshold"].CopyFrom<float>(Array.ConvertAll(theta, MathF.Log));
        else sae.Parameters["threshold"].CopyFrom<float>(theta);
        return sae;
    }

    /// <summary>A forward and backward pass; what it made lives until the test ends.</summary>
    private (TrainingPass Pass, Func<string, float[]> Gradient) Step(TrainingSae sae, double? coefficient, params int[] dead)
    {
        var scope = new TensorScope(_device);
        using var tape = new Tape(scope);
        foreach (var p in sae.Parameters.Values) tape.Watch(p);
        var pass = sae.Forward(scope, FormulaSae.Input(scope), At(sae, coefficient) with { Dead = dead });
        tape.Backward(pass.Total);
        var gradients = sae.Parameters.ToDictionary(p => p.Key, p => tape.Gradient(p.Value).ToArray<float>());
        return (pass, name => gradients[name]);
    }

    private static TrainingStep At(TrainingSae sae, double? coefficient) =>
        new(0, sae.Coefficients.ToDictionary(c => c.Key, _ => coefficient!.Value), default);

    private void Dense(TrainingPass pass, double[] expected)
    {
        using var scope = new TensorScope(_device);
        Assert.Equal(expected, DenseFeatures.Of(scope, pass.Features).ToArray<float>().Select(v => (double)v), (a, b) => Math.Abs(a - b) < Printed);
    }

    private static void Losses(TrainingPass pass, params (string Name, double Value)[] expected)
    {
        Assert.Equal(expected.Select(e => e.Name), pass.Losses.Select(l => l.Name));
        foreach (var (e, l) in expected.Zip(pass.Losses)) Assert.Equal(e.Value, l.Value.Scalar(), Printed);
        Assert.Equal(expected.Sum(e => e.Value), pass.Total.Scalar(), 3 * Printed);
    }

    private static void Norms(Func<string, float[]> gradient, params (string Name, double Norm)[] expected)
    {
        foreach (var (name, norm) in expected) Assert.Equal(norm, Math.Sqrt(gradient(name).Sum(v => (double)v * v)), 5 * Printed);
    }

    /// <summary>d/d(theta) = d/d(log theta) / theta.</summary>
    private static void Thresholds(Func<string, float[]> gradient, bool logarithm, float[] theta, double[] expected)
    {
        var actual = gradient(logarithm ? "log_threshold" : "threshold");
        for (var j = 0; j < 5; j++) Assert.Equal(expected[j], actual[j] * (logarithm ? 1 : theta[j]), Printed);
    }
}
