using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.GpuTests;

/// <summary>
/// A training run that SAELens made, repeated on an ILGPU device: the same numbers as on the CPU. ILGPU's CPU
/// accelerator makes two of the forty steps.
/// </summary>
public sealed class TrainingRunTests
{
    [Theory]
    [InlineData("standard_l1_warmup")]
    [InlineData("topk_dead")]
    public void A_run_is_the_one_SAELens_made(string name)
    {
        using var device = TestDevice.Open();
        using var run = new TrainingGolden(name, device);
        // The second step's loss comes from the first one's gradients.
        var wanted = device is GpuDevice { IsCuda: true } ? 40 : 2;
        if (wanted == 40) run.CheckFirstGradients();
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        var steps = 0;
        run.Trainer.Progress = p =>
        {
            run.CheckStep(p.Metrics);
            if (++steps == wanted) stop.Cancel();
        };
        var report = run.Trainer.Train(stop.Token);
        Assert.Equal(wanted, steps);
        if (wanted == 40) run.CheckEnd(report);
    }
}
