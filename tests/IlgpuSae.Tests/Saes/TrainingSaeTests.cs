using IlgpuSae.Autograd;
using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using Xunit;

namespace IlgpuSae.Tests.Saes;

/// <summary>
/// Losses and gradients of standard and TopK SAEs on the small formulas of <see cref="FormulaSae"/>, and what all have in common.
/// The expected numbers come from running SAELens 6.18's classes in float32.
/// </summary>
public sealed class TrainingSaeTests : IDisposable
{
    private const double Printed = 2e-5;
    private readonly CpuDevice _device = new(1);

    public void Dispose() => _device.Dispose();

    [Fact]
    public void Standard_losses_are_those_of_SAELens()
    {
        var config = new StandardTrainingConfig { DIn = 3, DSae = 5, L1Coefficient = 0.5 };
        Check(config, [1.24939, .11005, 0, 0, 0, 1.08061, 2.11123, 1.50628, 0, 0], 22.829273, ("l1_loss", 2.171736),
            [29.138655, 13.417190, 19.641439, 22.713058]);
        Check(config with { LpNorm = 2, ApplyBDecToInput = false }, [1.07009, 0, 0, 0, 0, .9013, 1.93338, 1.46447, 0, 0],
            20.173517, ("l1_loss", 1.316414), [6.275904, 11.574658, 16.718590, 20.257620]);
        Check(config with { NormalizeActivations = NormalizeActivations.LayerNorm },
            [1.4128, .45333, 0, 0, 0, 1.30478, 1.94184, 1.07152, 0, 0], 16.192791, ("l1_loss", 2.211961),
            [26.393848, 12.218817, 15.327270, 15.924580]);
        Check(config with { NormalizeActivations = NormalizeActivations.ConstantNormRescale },
            [1.32312, .10892, 0, 0, 0, 1.0639, 2.07814, 1.48185, 0, 0], 22.865677, ("l1_loss", 2.168611),
            [29.493525, 13.573875, 19.657835, 22.733662]);
    }

    [Fact]
    public void Topk_losses_are_those_of_SAELens()
    {
        var config = new TopKTrainingConfig { DIn = 3, DSae = 5, K = 2 };
        double[] rescaled = [1.65486, .17068, 0, 0, 0, 0, 3.27456, 2.15555, 0, 0];
        double[] raw = [1.24939, .11005, 0, 0, 0, 0, 2.11123, 1.50628, 0, 0];
        Check(config, rescaled, 19.376650, ("auxiliary_reconstruction_loss", 0), [22.246523, 10.783279, 16.083895, 19.179228]);
        // With dead features {1, 3, 4}; this auxiliary loss has no b_dec, so it is computed here, in double.
        Check(config, rescaled, 19.376650, ("auxiliary_reconstruction_loss", AuxiliaryByHand()), null, dead: [1, 3, 4]);
        Check(config with { RescaleActsByDecoderNorm = false }, raw, 19.376650, ("auxiliary_reconstruction_loss", AuxiliaryByHand()), null, dead: [1, 3, 4]);
    }

    [Fact]
    public void The_auxiliary_losss_gradient_is_that_of_finite_differences()
    {
        using var sae = FormulaSae.Create(new TopKTrainingConfig { DIn = 3, DSae = 5, K = 2, AuxLossCoefficient = 0.7 }, _device);
        int[] dead = [1, 3, 4];
        // The residual is a constant of the loss, so the auxiliary loss alone is differenced with it frozen.
        var (_, residual) = Auxiliary(Weights(sae), null);
        using var scope = new TensorScope(_device);
        using var tape = new Tape(scope);
        foreach (var p in sae.Parameters.Values) tape.Watch(p);
        var pass = sae.Forward(scope, FormulaSae.Input(scope), new TrainingStep(0, new Dictionary<string, double>(), dead));
        tape.Backward(pass.Losses[1].Value);
        foreach (var (name, tensor) in sae.Parameters)
        {
            var gradient = tape.Gradient(tensor).ToArray<float>();
            for (var i = 0; i < gradient.Length; i++)
            {
                var w = Weights(sae);
                w[name][i] += 1e-5;
                var up = Auxiliary(w, residual).Loss;
                w[name][i] -= 2e-5;
                var down = Auxiliary(w, residual).Loss;
                Assert.Equal(0.7 * (up - down) / 2e-5, gradient[i], 2e-4);
            }
        }
    }

    [Fact]
    public void The_first_weights_have_the_asked_norm_and_depend_on_the_seed_alone()
    {
        var config = new StandardTrainingConfig { DIn = 7, DSae = 33 };
        using var a = SaeRegistry.Default.CreateForTraining(config, _device, seed: 3);
        using var b = SaeRegistry.Default.CreateForTraining(config, _device, seed: 3);
        using var c = SaeRegistry.Default.CreateForTraining(config, _device, seed: 4);
        using var raw = SaeRegistry.Default.CreateForTraining(config with { DecoderInitNorm = null }, _device, seed: 3);
        Assert.Equal(a.WDec.ToArray<float>(), b.WDec.ToArray<float>());
        Assert.NotEqual(a.WDec.ToArray<float>(), c.WDec.ToArray<float>());
        Assert.Equal(a.WDec.ToArray<float>(), a.WEnc.ToArray<float>());
        using var scope = new TensorScope(_device);
        Assert.All(RowNorm.L2(scope, a.WDec).ToArray<float>(), n => Assert.Equal(0.1f, n, 1e-6f));
        Assert.All(a.BDec.ToArray<float>().Concat(a.Parameters["b_enc"].ToArray<float>()), v => Assert.Equal(0, v));
        var bound = (float)Math.Sqrt(6.0 / 7);
        var values = raw.WDec.ToArray<float>();
        Assert.All(values, v => Assert.InRange(v, -bound, bound));
        Assert.InRange(values.Max(), 0.9f * bound, bound);
        Assert.InRange(values.Average(), -0.15f, 0.15f);
    }

    [Fact]
    public void Coefficients_grow_from_zero()
    {
        var warm = new LossCoefficient(2, 4);
        Assert.Equal([0, 0.5, 1, 1.5, 2, 2], Enumerable.Range(0, 6).Select(t => warm.At(t)));
        Assert.Equal(2, new LossCoefficient(2, 0).At(0));
    }

    private void Check(
        TrainingSaeConfig config, double[] features, double mse, (string Name, double Value) other, double[]? gradientNorms, int[]? dead = null)
    {
        using var sae = FormulaSae.Create(config, _device);
        using var scope = new TensorScope(_device);
        using var tape = new Tape(scope);
        foreach (var p in sae.Parameters.Values) tape.Watch(p);
        var step = new TrainingStep(0, sae.Coefficients.ToDictionary(c => c.Key, c => c.Value.Final), dead ?? []);
        var pass = sae.Forward(scope, FormulaSae.Input(scope), step);
        var dense = DenseFeatures.Of(scope, pass.Features).ToArray<float>();
        for (var i = 0; i < dense.Length; i++) Assert.Equal(features[i], dense[i], Printed);
        Assert.Equal(["mse_loss", other.Name], pass.Losses.Select(l => l.Name));
        Assert.Equal(mse, pass.Losses[0].Value.Scalar(), Printed);
        Assert.Equal(other.Value, pass.Losses[1].Value.Scalar(), Printed);
        Assert.Equal(mse + other.Value, pass.Total.Scalar(), 2 * Printed);
        if (gradientNorms is null) return;
        tape.Backward(pass.Total);
        string[] names = ["b_dec", "b_enc", "W_dec", "W_enc"];
        for (var i = 0; i < 4; i++)
            Assert.Equal(gradientNorms[i], Math.Sqrt(tape.Gradient(sae.Parameters[names[i]]).ToArray<float>().Sum(v => (double)v * v)), 5 * Printed);
    }

    private static Dictionary<string, double[]> Weights(Sae sae) =>
        sae.Parameters.ToDictionary(p => p.Key, p => p.Value.ToArray<float>().Select(v => (double)v).ToArray());

    private double AuxiliaryByHand()
    {
        using var sae = FormulaSae.Create(new TopKTrainingConfig { DIn = 3, DSae = 5, K = 2 }, _device);
        return Auxiliary(Weights(sae), null).Loss;
    }

    /// <summary>
    /// The auxiliary loss for dead {1, 3, 4}, k 2, d_in 3 in plain loops: d_in div 2 = 1, so the one largest
    /// pre-activation times decoder norm among the dead of each row reconstructs the residual.
    /// </summary>
    private static (double Loss, double[] Residual) Auxiliary(Dictionary<string, double[]> w, double[]? residual)
    {
        var x = FormulaSae.Rows();
        double Norm(int j) => Math.Sqrt(Enumerable.Range(0, 3).Sum(i => w["W_dec"][(3 * j) + i] * w["W_dec"][(3 * j) + i]));
        double Pre(int b, int j) => w["b_enc"][j] + Enumerable.Range(0, 3).Sum(i => (x[(3 * b) + i] - w["b_dec"][i]) * w["W_enc"][(3 * j) + i]);
        var frozen = residual ?? new double[6];
        var loss = 0.0;
        for (var b = 0; b < 2; b++)
        {
            var kept = Enumerable.Range(0, 5).OrderByDescending(j => Pre(b, j) * Norm(j)).Take(2).Where(j => Pre(b, j) > 0).ToArray();
            var best = new[] { 1, 3, 4 }.MaxBy(j => Pre(b, j) * Norm(j));
            for (var i = 0; i < 3; i++)
            {
                if (residual is null) frozen[(3 * b) + i] = x[(3 * b) + i] - w["b_dec"][i] - kept.Sum(j => Pre(b, j) * w["W_dec"][(3 * j) + i]);
                var d = (Pre(b, best) * w["W_dec"][(3 * best) + i]) - frozen[(3 * b) + i];
                loss += d * d / 2;
            }
        }

        return (loss, frozen);
    }
}
