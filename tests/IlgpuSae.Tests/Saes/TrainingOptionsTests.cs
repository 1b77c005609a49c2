using IlgpuSae.Autograd;
using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using Xunit;

namespace IlgpuSae.Tests.Saes;

/// <summary>
/// The losses that old options switch on, against plain loops in double, and their gradients against central differences
/// of those loops; the draws of first weights.
/// </summary>
public sealed class TrainingOptionsTests : IDisposable
{
    private const int N = 5, D = 4, F = 7;
    private static readonly int[] Dead = [1, 4, 6];
    private readonly CpuDevice _device = new(2);

    public void Dispose() => _device.Dispose();

    [Theory]
    [InlineData("unscaled penalty")]
    [InlineData("dense batch")]
    [InlineData("noise")]
    [InlineData("ghost")]
    [InlineData("ghost, dense batch, noise")]
    public void Losses_and_gradients_are_those_of_the_formulas(string options)
    {
        var config = new StandardTrainingConfig
        {
            DIn = D,
            DSae = F,
            L1Coefficient = 0.3,
            ScaleSparsityPenaltyByDecoderNorm = options != "unscaled penalty",
            MseLossNormalization = options.Contains("dense batch", StringComparison.Ordinal) ? MseLossNormalization.DenseBatch : null,
            NoiseScale = options.Contains("noise", StringComparison.Ordinal) ? 0.4 : 0,
            UseGhostGrads = options.Contains("ghost", StringComparison.Ordinal),
        };
        using var sae = Random(config);
        using var scope = new TensorScope(_device);
        var x = Rows(scope);
        var step = new TrainingStep(3, new Dictionary<string, double> { ["l1"] = 0.3 }, Dead) { Seed = 11 };
        var noise = config.NoiseScale > 0 ? PreActivationNoise.Of(scope, config, step, [N, F]).ToArray<float>() : new float[N * F];
        using var tape = new Tape(scope);
        foreach (var p in sae.Parameters.Values) tape.Watch(p);
        var pass = sae.Forward(scope, x, step);
        tape.Backward(pass.Total);

        var weights = sae.Parameters.ToDictionary(p => p.Key, p => Array.ConvertAll(p.Value.ToArray<float>(), v => (double)v));
        var rows = Array.ConvertAll(x.ToArray<float>(), v => (double)v);
        var here = Reference(config, weights, rows, noise, null);
        Assert.Equal(here.Losses.Keys.Order(StringComparer.Ordinal), pass.Losses.Select(l => l.Name).Order(StringComparer.Ordinal));
        foreach (var (name, value) in pass.Losses) Assert.Equal(here.Losses[name], value.Scalar(), 2e-5 * (1 + Math.Abs(here.Losses[name])));
        foreach (var (name, p) in sae.Parameters)
        {
            var gradient = tape.Gradient(p).ToArray<float>();
            for (var i = 0; i < gradient.Length; i++)
            {
                const double h = 1e-6;
                var at = weights[name][i];
                weights[name][i] = at + h;
                var above = Reference(config, weights, rows, noise, here.Frozen).Losses.Values.Sum();
                weights[name][i] = at - h;
                var below = Reference(config, weights, rows, noise, here.Frozen).Losses.Values.Sum();
                weights[name][i] = at;
                Assert.Equal((above - below) / (2 * h), gradient[i], 2e-4 * (1 + Math.Abs(gradient[i])));
            }
        }
    }

    [Fact]
    public void Explained_variance_does_not_depend_on_the_normalisation_of_the_loss()
    {
        using var sae = Random(new StandardTrainingConfig { DIn = D, DSae = F, MseLossNormalization = MseLossNormalization.DenseBatch });
        using var scope = new TensorScope(_device);
        var x = Rows(scope);
        var pass = sae.Forward(scope, x, new TrainingStep(0, new Dictionary<string, double> { ["l1"] = 0 }, default));
        Assert.Equal(SquaredError.MeanOfRowSums(scope, pass.Reconstruction, x).Scalar(), pass.SquaredError!.Scalar());
        Assert.NotEqual(pass.SquaredError!.Scalar(), pass.Losses[0].Value.Scalar());
    }

    [Fact]
    public void Noise_is_of_its_deviation_differs_between_steps_and_repeats_with_the_seed()
    {
        var config = new StandardTrainingConfig { DIn = D, DSae = 40, NoiseScale = 0.5 };
        using var scope = new TensorScope(_device);
        float[] At(long step, ulong seed) => PreActivationNoise.Of(scope, config, new TrainingStep(step, new Dictionary<string, double>(), default) { Seed = seed }, [100, 40]).ToArray<float>();
        var first = At(1, 5);
        Assert.Equal(first, At(1, 5));
        Assert.NotEqual(first, At(2, 5));
        Assert.NotEqual(first, At(1, 6));
        Assert.Equal(0.5, Math.Sqrt(first.Average(v => (double)v * v)), 0.02);
        Assert.Equal(0, first.Average(), 0.03);
    }

    [Fact]
    public void Noise_is_for_training_alone_and_for_architectures_that_have_it()
    {
        using var sae = Random(new TopKTrainingConfig { DIn = D, DSae = F, K = 3, NoiseScale = 0.5 });
        using var plain = Random(new TopKTrainingConfig { DIn = D, DSae = F, K = 3 });
        using var scope = new TensorScope(_device);
        var x = Rows(scope);
        Assert.Equal(Dense(scope, plain.Encode(scope, x)), Dense(scope, sae.Encode(scope, x)));
        var step = new TrainingStep(0, new Dictionary<string, double>(), Dead) { Seed = 3 };
        Assert.NotEqual(Dense(scope, plain.Encode(scope, x)), Dense(scope, sae.Forward(scope, x, step).Features));
        var e = Assert.Throws<InvalidInputException>(new QuietConfig { DIn = D, DSae = F, NoiseScale = 1 }.Validate);
        Assert.Equal("noise_scale: architecture quiet has no noise; use 0", e.Message);
    }

    [Fact]
    public void Noise_reaches_the_losses_of_jumprelu()
    {
        var config = new JumpReLUTrainingConfig { DIn = D, DSae = F, NoiseScale = 0.5, PreActLossCoefficient = 0.1, JumpreluInitThreshold = 0.1, JumpreluBandwidth = 0.5 };
        using var sae = Random(config);
        using var scope = new TensorScope(_device);
        var x = Rows(scope);
        var step = new TrainingStep(2, new Dictionary<string, double> { ["l0"] = 1 }, Dead) { Seed = 3 };
        var pass = sae.Forward(scope, x, step);
        var noise = PreActivationNoise.Of(scope, config, step, [N, F]).ToArray<float>();
        float[] we = sae.WEnc.ToArray<float>(), be = sae.Parameters["b_enc"].ToArray<float>(), bd = sae.BDec.ToArray<float>(), rows = x.ToArray<float>();
        var theta = sae.Parameters.First(p => p.Key.EndsWith("threshold", StringComparison.Ordinal)).Value.ToArray<float>().Select(v => Math.Exp(v)).ToArray();
        using var plain = new TensorScope(_device);
        var norms = RowNorm.L2(plain, sae.WDec).ToArray<float>();
        double active = 0, missing = 0;
        for (var r = 0; r < N; r++)
        {
            for (var j = 0; j < F; j++)
            {
                var h = be[j] + noise[(r * F) + j] + Enumerable.Range(0, D).Sum(i => (rows[(r * D) + i] - bd[i]) * (double)we[(j * D) + i]);
                if (h > theta[j]) active += 1.0 / N;
                if (Dead.Contains(j)) missing += 0.1 * Math.Max(0, theta[j] - h) * norms[j] / N;
            }
        }

        var losses = pass.Losses.ToDictionary(l => l.Name, l => l.Value.Scalar());
        Assert.Equal(active, losses["l0_loss"], 1e-5);
        Assert.Equal(missing, losses["pre_act_loss"], 1e-5);
    }

    [Fact]
    public void First_weights_are_drawn_as_the_method_says()
    {
        const int dIn = 6, dSae = 15;
        var config = new StandardTrainingConfig { DIn = dIn, DSae = dSae, DecoderInitNorm = null, InitEncoderAsDecoderTranspose = false };
        using (var sae = SaeRegistry.Default.CreateForTraining(config with { DecoderInitMethod = DecoderInitMethod.Orthogonal }, _device, seed: 2))
        {
            var w = sae.WDec.ToArray<float>();
            for (var a = 0; a < dIn; a++)
                for (var b = 0; b < dIn; b++)
                    Assert.Equal(a == b ? 1 : 0, Enumerable.Range(0, dSae).Sum(j => (double)w[(j * dIn) + a] * w[(j * dIn) + b]), 1e-6);
            var encoder = sae.WEnc.ToArray<float>();
            Assert.All(encoder, v => Assert.InRange(Math.Abs(v), 0, Math.Sqrt(6.0 / dSae)));
            Assert.True(encoder.Max(Math.Abs) > 0.8 * Math.Sqrt(6.0 / dSae));
        }

        using (var sae = SaeRegistry.Default.CreateForTraining(config with { DIn = 9, DSae = 4, DecoderInitMethod = DecoderInitMethod.Orthogonal }, _device))
        {
            var w = sae.WDec.ToArray<float>();
            for (var a = 0; a < 4; a++)
                for (var b = 0; b < 4; b++)
                    Assert.Equal(a == b ? 1 : 0, Enumerable.Range(0, 9).Sum(i => (double)w[(a * 9) + i] * w[(b * 9) + i]), 1e-6);
        }

        using (var sae = SaeRegistry.Default.CreateForTraining(
            config with { DecoderInitMethod = DecoderInitMethod.Normal, DecoderInitNorm = 0.25, InitEncoderAsDecoderTranspose = true }, _device))
        {
            using var scope = new TensorScope(_device);
            Assert.All(RowNorm.L2(scope, sae.WDec).ToArray<float>(), n => Assert.Equal(0.25f, n, 1e-6f));
            Assert.Equal(sae.WDec.ToArray<float>(), sae.WEnc.ToArray<float>());
        }

        Assert.Equal("decoder_init_norm: 0.1 would undo decoder_init_method = orthogonal; use null",
            Assert.Throws<InvalidInputException>(new StandardTrainingConfig { DIn = 2, DSae = 3, DecoderInitMethod = DecoderInitMethod.Orthogonal }.Validate).Message);
    }

    [Fact]
    public void Ghost_gradients_are_refused_where_residual_and_decoder_have_different_units() => Assert.StartsWith(
        "use_ghost_grads: with normalize_activations = layer_norm",
        Assert.Throws<InvalidInputException>(new StandardTrainingConfig { DIn = 2, DSae = 3, UseGhostGrads = true, NormalizeActivations = NormalizeActivations.LayerNorm }.Validate).Message,
        StringComparison.Ordinal);

    private static float[] Dense(TensorScope scope, SparseFeatures f) => DenseFeatures.Of(scope, f).ToArray<float>();

    private static Tensor Rows(TensorScope scope)
    {
        var random = new Random(8);
        return scope.From<float>([.. Enumerable.Range(0, N * D).Select(_ => 2 * (random.NextSingle() - 0.4f))], [N, D]);
    }

    private TrainingSae Random(TrainingSaeConfig config)
    {
        var sae = SaeRegistry.Default.CreateForTraining(config, _device, seed: 1);
        var random = new Random(3);
        foreach (var p in sae.Parameters.Values) p.CopyFrom<float>([.. p.ToArray<float>().Select(_ => random.NextSingle() - 0.5f)]);
        return sae;
    }

    /// <summary>Every loss in plain loops; what is a constant of the ghost loss is taken from <paramref name="frozen"/>.</summary>
    private static (Dictionary<string, double> Losses, double[][] Frozen) Reference(
        StandardTrainingConfig config, Dictionary<string, double[]> w, double[] x, float[] noise, double[][]? frozen)
    {
        double[] pre = new double[N * F], xhat = new double[N * D], share = new double[N];
        var mean = Enumerable.Range(0, D).Select(i => Enumerable.Range(0, N).Average(r => x[(r * D) + i])).ToArray();
        double mse = 0, l1 = 0, ghostLoss = 0;
        for (var r = 0; r < N; r++)
        {
            share[r] = config.MseLossNormalization is null ? 1
                : 1 / (Math.Sqrt(Enumerable.Range(0, D).Sum(i => Math.Pow(x[(r * D) + i] - mean[i], 2))) + 1e-6);
            for (var j = 0; j < F; j++)
            {
                pre[(r * F) + j] = w["b_enc"][j] + noise[(r * F) + j]
                    + Enumerable.Range(0, D).Sum(i => (x[(r * D) + i] - w["b_dec"][i]) * w["W_enc"][(j * D) + i]);
                var norm = config.ScaleSparsityPenaltyByDecoderNorm
                    ? Math.Sqrt(Enumerable.Range(0, D).Sum(i => w["W_dec"][(j * D) + i] * w["W_dec"][(j * D) + i])) : 1;
                l1 += Math.Max(0, pre[(r * F) + j]) * norm / N;
            }

            for (var i = 0; i < D; i++)
            {
                xhat[(r * D) + i] = w["b_dec"][i] + Enumerable.Range(0, F).Sum(j => Math.Max(0, pre[(r * F) + j]) * w["W_dec"][(j * D) + i]);
                mse += Math.Pow(xhat[(r * D) + i] - x[(r * D) + i], 2) * share[r] / N;
            }
        }

        var residual = frozen?[0] ?? [.. x.Select((v, i) => v - xhat[i])];
        var scale = frozen?[1] ?? new double[N];
        var weight = frozen?[2] ?? new double[N * D];
        for (var r = 0; r < N; r++)
        {
            var ghost = Enumerable.Range(0, D).Select(i => Dead.Sum(j => Math.Exp(pre[(r * F) + j]) * w["W_dec"][(j * D) + i])).ToArray();
            if (frozen is null)
            {
                var norm = Math.Sqrt(Enumerable.Range(0, D).Sum(i => residual[(r * D) + i] * residual[(r * D) + i]));
                scale[r] = norm / (1e-6 + (2 * Math.Sqrt(ghost.Sum(v => v * v))));
            }

            for (var i = 0; i < D; i++)
            {
                var q = Math.Pow((ghost[i] * scale[r]) - residual[(r * D) + i], 2) * share[r];
                if (frozen is null) weight[(r * D) + i] = Math.Pow(residual[(r * D) + i], 2) * share[r] / (q + 1e-6);
                ghostLoss += weight[(r * D) + i] * q / (N * D);
            }
        }

        var losses = new Dictionary<string, double> { ["mse_loss"] = mse, ["l1_loss"] = 0.3 * l1 };
        if (config.UseGhostGrads) losses["ghost_grad_loss"] = ghostLoss;
        return (losses, [residual, scale, weight]);
    }

    private sealed record QuietConfig : TrainingSaeConfig
    {
        public override string Architecture => "quiet";

        public override SaeConfig ToInference() => Shared(new StandardConfig());
    }
}
