using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using IlgpuSae.Training;
using Xunit;

namespace IlgpuSae.Tests.Training;

/// <summary>Forty steps of SAELens' own trainer repeated: every step's numbers, first gradients, final weights.</summary>
public sealed class TrainingGoldenTests
{
    [Theory]
    [InlineData("batchtopk_dead")]
    [InlineData("gated")]
    [InlineData("jumprelu_step")]
    [InlineData("jumprelu_tanh_preact")]
    [InlineData("matryoshka_batchtopk")]
    [InlineData("standard_l1_warmup")]
    [InlineData("standard_expected_average")]
    [InlineData("topk_dead")]
    public void A_run_is_the_one_SAELens_made(string name)
    {
        using var device = new CpuDevice(2);
        using var run = new TrainingGolden(name, device);
        run.CheckFirstGradients();
        var steps = 0;
        run.Trainer.Progress = p =>
        {
            run.CheckStep(p.Metrics);
            Assert.Equal(40, p.TotalSteps);
            steps++;
        };
        var report = run.Trainer.Train(TestContext.Current.CancellationToken);
        Assert.Equal((TrainingEnd.Completed, 40, 40L, 2560L), (report.End, steps, report.Steps, report.Samples));
        if (run.Case.TryGetProperty("scaling_factor", out var scale)) Assert.Equal(scale.GetDouble(), report.ActivationScale!.Value, 1e-6);
        else Assert.Null(report.ActivationScale);
        run.CheckEnd(report);
    }
}
