using IlgpuSae.Activations;
using IlgpuSae.Autograd;
using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using IlgpuSae.Training;
using Xunit;

namespace IlgpuSae.Tests.Saes;

/// <summary>Matching pursuit against its definition in plain double precision: d_in 6, d_sae 15, seven rows.</summary>
public sealed class MatchingPursuitTests : IDisposable
{
    private const int Rows = 7;
    private const int In = 6;
    private const int Features = 15;
    private readonly CpuDevice _device = new(2);
    private readonly TempFolder _temp = new();

    public void Dispose()
    {
        _temp.Dispose();
        _device.Dispose();
    }

    [Theory]
    [InlineData(1e-2, null, true, true)]
    [InlineData(0.5, null, true, false)]
    [InlineData(0, 4, false, true)]
    [InlineData(0.3, 50, false, true)]
    [InlineData(0, null, true, true)]
    public void Features_losses_and_gradients_are_those_of_the_definition(double threshold, int? rounds, bool stop, bool subtract)
    {
        using var sae = Make(new MatchingPursuitTrainingConfig { ResidualThreshold = threshold, MaxIterations = rounds, StopOnDuplicateSupport = stop, ApplyBDecToInput = subtract });
        using var scope = new TensorScope(_device);
        using var tape = new Tape(scope);
        foreach (var p in sae.Parameters.Values) tape.Watch(p);
        var x = X();
        var input = scope.From<float>([.. x.Select(v => (float)v)], [Rows, In]);
        var pass = sae.Forward(scope, input, new TrainingStep(0, new Dictionary<string, double>(), default));
        double[] dec = Doubles(sae.WDec), bias = Doubles(sae.BDec);
        var (expected, loss, chosen) = Plain(x, dec, bias, threshold, rounds ?? In, stop, subtract, null);
        var given = DenseFeatures.Of(scope, pass.Features).ToArray<float>();
        for (var i = 0; i < given.Length; i++) Assert.Equal(expected[i], given[i], 2e-5);
        Assert.Equal(["mse_loss"], pass.Losses.Select(l => l.Name));
        Assert.Equal(loss, pass.Total.Scalar(), 2e-5);
        Assert.True(chosen.Max(c => c.Count) > chosen.Min(c => c.Count) || threshold == 0);
        var f = pass.Features;
        int[] offsets = f.RowOffsets.ToArray<int>(), indices = f.Indices.ToArray<int>();
        for (var r = 0; r < Rows; r++) Assert.Equal(indices[offsets[r]..offsets[r + 1]].Distinct().Order(), indices[offsets[r]..offsets[r + 1]]);

        tape.Backward(pass.Total);
        foreach (var (values, tensor) in new[] { (dec, sae.WDec), (bias, sae.BDec) })
        {
            var gradient = tape.Gradient(tensor).ToArray<float>();
            for (var i = 0; i < gradient.Length; i++)
            {
                var kept = values[i];
                values[i] = kept + 1e-6;
                var up = Plain(x, dec, bias, threshold, rounds ?? In, stop, subtract, chosen).Loss;
                values[i] = kept - 1e-6;
                var down = Plain(x, dec, bias, threshold, rounds ?? In, stop, subtract, chosen).Loss;
                values[i] = kept;
                Assert.Equal((up - down) / 2e-6, gradient[i], 1e-3);
            }
        }
    }

    [Fact]
    public void Files_hold_the_decoder_alone_and_SAELens_settings()
    {
        using var sae = Make(new MatchingPursuitTrainingConfig { MaxIterations = 5, ResidualThreshold = 0.2 });
        using var inference = sae.ToInference();
        SaeLensFolder.Save(_temp["a"], inference, training: sae);
        Assert.Equal(["W_dec", "b_dec"], SaeLensFolder.ReadWeights(_temp["a/sae_weights.safetensors"]).Select(w => w.Name).Order(StringComparer.Ordinal));
        var config = (MatchingPursuitConfig)SaeLensFolder.ReadConfig(_temp["a"]);
        Assert.Equal((5, 0.2, true), (config.MaxIterations, config.ResidualThreshold, config.StopOnDuplicateSupport));
        using var read = SaeLensFolder.Load(_temp["a"], _device);
        using var scope = new TensorScope(_device);
        var x = scope.From<float>([.. X().Select(v => (float)v)], [Rows, In]);
        Assert.Equal(sae.Forward(scope, x).ToArray<float>(), read.Forward(scope, x).ToArray<float>());
        using var again = SaeLensFolder.LoadForTraining(_temp["a/training"], _device);
        Assert.Equal(sae.WDec.ToArray<float>(), again.WDec.ToArray<float>());
    }

    [Fact]
    public void The_activation_scale_goes_into_bias_and_threshold()
    {
        using var sae = Make(new MatchingPursuitTrainingConfig { ResidualThreshold = 0.8 });
        using var scope = new TensorScope(_device);
        var x = scope.From<float>([.. X().Select(v => (float)v)], [Rows, In]);
        var scaled = Scale.By(scope, x, 3);
        var f = DenseFeatures.Of(scope, sae.Encode(scope, scaled)).ToArray<float>();
        var y = sae.Forward(scope, scaled).ToArray<float>();
        var dec = sae.WDec.ToArray<float>();
        sae.FoldActivationScale(3);
        Assert.Equal(0.8 / 3, ((MatchingPursuitTrainingConfig)sae.Config).ResidualThreshold, 1e-12);
        Assert.Equal(dec, sae.WDec.ToArray<float>());
        Golden.Close("features", DenseFeatures.Of(scope, sae.Encode(scope, x)).ToArray<float>(), [.. f.Select(v => v / 3)], 1e-5, 1e-5);
        Golden.Close("output", sae.Forward(scope, x).ToArray<float>(), [.. y.Select(v => v / 3)], 1e-5, 1e-5);
        Assert.Throws<InvalidInputException>(() => sae.FoldActivationScale(-1));
    }

    [Fact]
    public void Training_finds_the_true_features_and_keeps_norms_of_one()
    {
        var source = new SyntheticSuperposition(new SyntheticConfig { DIn = 24, NTrue = 40, MeanActive = 2, Seed = 3 });
        var config = new MatchingPursuitTrainingConfig { DIn = 24, DSae = 60, ResidualThreshold = 0.1, MaxIterations = 4 };
        using var sae = SaeRegistry.Default.CreateForTraining(config, _device, seed: 1);
        using var trainer = new SaeTrainer(sae, source, new TrainerConfig { TotalTrainingSamples = 256 * 600, TrainBatchSizeSamples = 256, Lr = 3e-3, LrDecaySteps = 100 });
        var report = trainer.Train(TestContext.Current.CancellationToken);
        using var scope = new TensorScope(_device);
        Assert.All(RowNorm.L2(scope, sae.WDec).ToArray<float>(), n => Assert.Equal(1, n, 1e-5f));
        var found = source.Recovery(sae.WDec).Found;
        TestContext.Current.TestOutputHelper?.WriteLine($"{found} of 40, explained variance {report.Last!.ExplainedVariance:0.000}, L0 {report.Last.L0:0.0}");
        Assert.True(found >= 37, $"{found} of 40 found");
        Assert.True(report.Last!.ExplainedVariance > 0.9, $"explained variance {report.Last.ExplainedVariance}");
    }

    [Fact]
    public void What_cannot_be_is_refused()
    {
        void Refused(string message, SaeConfig config) =>
            Assert.StartsWith(message, Assert.Throws<InvalidInputException>(config.Validate).Message, StringComparison.Ordinal);
        var good = new MatchingPursuitTrainingConfig { DIn = 4, DSae = 6 };
        good.Validate();
        Refused("residual_threshold: -1 is not a number of at least 0", good with { ResidualThreshold = -1 });
        Refused("max_iterations: 0 rounds; it must be at least 1", good with { MaxIterations = 0 });
        Refused("max_iterations: 0 rounds", new MatchingPursuitConfig { DIn = 4, DSae = 6, MaxIterations = 0 });
        Refused("decoder_init_norm: 0.1, but architecture matching_pursuit has decoder rows of norm 1", good with { DecoderInitNorm = 0.1 });
        Refused("init_encoder_as_decoder_transpose: false", good with { InitEncoderAsDecoderTranspose = false });
        using var sae = Make(new MatchingPursuitTrainingConfig());
        using var inference = sae.ToInference();
        using var scope = new TensorScope(_device);
        var x = scope.From<float>([.. X().Select(v => (float)v)], [Rows, In]);
        var hooks = new SaeHooks().On(SaeHooks.ActsPre, _ => null);
        foreach (var s in new[] { sae, inference })
        {
            Assert.StartsWith("hook hook_sae_acts_pre: architecture matching_pursuit chooses feature after feature", Assert.Throws<InvalidInputException>(() => s.Forward(scope, x, hooks)).Message, StringComparison.Ordinal);
            Assert.StartsWith("fold: architecture matching_pursuit", Assert.Throws<InvalidInputException>(s.FoldDecoderNorm).Message, StringComparison.Ordinal);
        }

        Assert.Equal(0, sae.Encode(scope, scope.New([0, In])).EntryCount);
        // Rows that hold NaN do not run for ever.
        Assert.Contains(sae.Forward(scope, scope.From<float>([float.NaN, 1, 2, 3, 4, 5], [1, In])).ToArray<float>(), float.IsNaN);
    }

    private TrainingSae Make(MatchingPursuitTrainingConfig config)
    {
        var sae = SaeRegistry.Default.CreateForTraining(config with { DIn = In, DSae = Features }, _device, seed: 2);
        sae.BDec.CopyFrom<float>([.. Enumerable.Range(0, In).Select(i => 0.3f * MathF.Cos(i))]);
        return sae;
    }

    private static double[] X() => [.. Enumerable.Range(0, Rows * In).Select(n => (double)(float)((0.3 + (0.4 * (n / In))) * Math.Sin(0.5 + (2.3 * (n / In)) + (1.3 * (n % In) * (n % In)))))];

    private static double[] Doubles(Tensor t) => [.. t.ToArray<float>().Select(v => (double)v)];

    /// <summary>Round after round; with <paramref name="given"/>, the choices are those of another run.</summary>
    private static (double[] Features, double Loss, List<int>[] Chosen) Plain(
        double[] x, double[] dec, double[] bias, double threshold, int rounds, bool stop, bool subtract, List<int>[]? given)
    {
        var f = new double[Rows * Features];
        var chosen = Enumerable.Range(0, Rows).Select(_ => new List<int>()).ToArray();
        var loss = 0.0;
        for (var b = 0; b < Rows; b++)
        {
            double[] r = [.. Enumerable.Range(0, In).Select(i => x[(b * In) + i] - (subtract ? bias[i] : 0))];
            double Dot(int j) => r.Select((v, i) => v * dec[(j * In) + i]).Sum();
            for (var t = 0; given is null ? t < rounds : t < given[b].Count; t++)
            {
                var best = given?[b][t] ?? Enumerable.Range(0, Features).MaxBy(Dot);
                var value = Dot(best);
                if (value <= 0) break;
                var isNew = f[(b * Features) + best] == 0;
                f[(b * Features) + best] += value;
                chosen[b].Add(best);
                for (var i = 0; i < In; i++) r[i] -= value * dec[(best * In) + i];
                if (given is null && ((stop && !isNew) || (threshold > 0 && Math.Sqrt(r.Sum(v => v * v)) < threshold))) break;
            }

            for (var i = 0; i < In; i++)
            {
                var y = (subtract ? bias[i] : 0) + Enumerable.Range(0, Features).Sum(j => f[(b * Features) + j] * dec[(j * In) + i]);
                loss += Math.Pow(y - x[(b * In) + i], 2) / Rows;
            }
        }

        return (f, loss, chosen);
    }
}
