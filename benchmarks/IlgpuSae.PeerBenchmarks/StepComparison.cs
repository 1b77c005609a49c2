using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using IlgpuSae.Training;
using static TorchSharp.torch;
using TorchTensor = TorchSharp.torch.Tensor;

namespace IlgpuSae.PeerBenchmarks;

/// <summary>
/// Whole training steps (forward, backward, clipping, Adam) of <see cref="SaeTrainer"/> against <see cref="TorchSae"/>,
/// from the same weights on the same rows. The losses of the first two steps have to agree.
/// </summary>
internal static class StepComparison
{
    private const int DIn = 768;

    public static void Run(bool isTopK, int threads, int rounds, int batch, int dSae)
    {
        const int K = 32;
        const float L1 = 1e-3f;
        using var device = new CpuDevice(threads);
        using var torchScope = NewDisposeScope();
        using var scope = new TensorScope(device);
        manual_seed(7);

        // Rows of norm about 1 and unit decoder rows: pre-activations are about N(0, 1 / d_in).
        var x = randn(batch, DIn) * (float)(1 / Math.Sqrt(DIn));
        var wDec = randn(dSae, DIn);
        wDec /= wDec.norm(1, true, 2);
        var l0 = 60.0 * dSae / 24576;
        var bEnc = isTopK ? zeros(dSae) : full(dSae, (float)(-Quantile(1 - (l0 / dSae)) / Math.Sqrt(DIn)));
        using var theirs = new TorchSae(wDec.t().contiguous(), bEnc, wDec, isTopK ? K : 0, L1);
        using var ours = Ours(device, isTopK, dSae, K, L1);
        Fill(scope, ours.WEnc, wDec);
        Fill(scope, ours.WDec, wDec);
        Fill(scope, ours.Parameters["b_enc"], bEnc);
        var rows = TorchMemory.Copy(scope, x);
        using var trainer = new SaeTrainer(ours, new RowSource(rows), new TrainerConfig { TrainBatchSizeSamples = batch, TotalTrainingSamples = 1_000_000_000 });

        var last = 0.0;
        StepMetrics OurStep()
        {
            using var step = new TensorScope(device);
            return trainer.Step(step, rows);
        }

        for (var i = 1; i <= 2; i++)
        {
            var expected = theirs.Step(x);
            var metrics = OurStep();
            last = Math.Abs(metrics.Loss - expected) / expected;
            Console.WriteLine($"step {i}: loss torch {expected:R}, ilgpusae {(float)metrics.Loss:R}; L0 {metrics.L0:F2}, norm of the gradient {metrics.GradNormBeforeClip:F4}");
            if (!(last < 1e-4)) throw new InvalidOperationException("the losses differ");
        }

        Console.WriteLine($"largest differences after two steps: W_enc {TorchMemory.Difference(ours.WEnc, theirs.WEnc.t()):E1}, "
            + $"W_dec {TorchMemory.Difference(ours.WDec, theirs.WDec):E1}, b_enc {TorchMemory.Difference(ours.Parameters["b_enc"], theirs.BEnc):E1}");
        Interleaved.Run($"{(isTopK ? $"topk {K}" : "relu")} step, {batch} rows, {DIn} to {dSae}, {threads} threads", rounds,
            () => theirs.Step(x), () => OurStep());
    }

    private static TrainingSae Ours(CpuDevice device, bool isTopK, int dSae, int k, float l1) => isTopK
        ? new TopKTrainingSae(new TopKTrainingConfig { DIn = DIn, DSae = dSae, K = k, RescaleActsByDecoderNorm = false }, device)
        : new StandardTrainingSae(new StandardTrainingConfig { DIn = DIn, DSae = dSae, L1Coefficient = l1 }, device);

    private static void Fill(TensorScope scope, IlgpuSae.Tensors.Tensor target, TorchTensor source) =>
        target.CopyFrom(TorchMemory.Copy(scope, source));

    /// <summary>The p-quantile of N(0, 1), by bisection on torch's erf.</summary>
    private static double Quantile(double p)
    {
        double low = 0, high = 8;
        for (var i = 0; i < 60; i++)
        {
            var middle = (low + high) / 2;
            if (0.5 + (0.5 * tensor(middle / Math.Sqrt(2)).erf().item<double>()) < p) low = middle;
            else high = middle;
        }

        return low;
    }
}
