using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using IlgpuSae.Training;
using Xunit;

namespace IlgpuSae.GpuTests.Saes;

/// <summary>SAELens' numbers on ILGPU's CPU accelerator: encode, decode, and the first training steps.</summary>
public sealed class SaeGoldenGpuTests
{
    [Theory]
    [InlineData("gated")]
    [InlineData("jumprelu")]
    [InlineData("skip_transcoder")]
    [InlineData("jumprelu_transcoder")]
    [InlineData("standard_layer_norm")]
    [InlineData("topk_rescale_decnorm")]
    public void An_SAE_from_a_folder_computes_what_SAELens_computes(string name)
    {
        var golden = Golden.Open("sae", name);
        using var device = Device.Open("ilgpu-cpu");
        using var sae = SaeLensFolder.Load(golden.PathOf("sae"), device);
        SaeGolden.Check(golden, sae, "expected.safetensors");
    }

    [Theory]
    [InlineData("train_batchtopk")]
    [InlineData("train_matryoshka_batchtopk")]
    public void A_training_form_computes_what_SAELens_computes(string name)
    {
        var golden = Golden.Open("sae", name);
        using var device = Device.Open("ilgpu-cpu");
        using var sae = SaeLensFolder.LoadForTraining(golden.PathOf("sae"), device);
        SaeGolden.Check(golden, sae, "expected.safetensors");
    }

    [Theory]
    [InlineData("batchtopk_dead")]
    [InlineData("gated")]
    [InlineData("jumprelu_step")]
    [InlineData("jumprelu_tanh_preact")]
    [InlineData("matryoshka_batchtopk")]
    [InlineData("standard_l1_warmup")]
    [InlineData("topk_dead")]
    public void Five_steps_are_those_SAELens_made(string name)
    {
        // The two whose kernels another case runs as well make two steps, unless all five are asked for: a minute less.
        var steps = name is "batchtopk_dead" or "jumprelu_step" && Environment.GetEnvironmentVariable("ILGPUSAE_ALL_STEPS") is null ? 2 : 5;
        using var device = Device.Open("ilgpu-cpu");
        using var run = new TrainingGolden(name, device);
        using var stop = new CancellationTokenSource();
        run.Trainer.Progress = p =>
        {
            run.CheckStep(p.Metrics);
            if (p.Metrics.Step == steps - 1) stop.Cancel();
        };
        var report = run.Trainer.Train(stop.Token);
        Assert.Equal((TrainingEnd.Cancelled, (long)steps), (report.End, report.Steps));
    }
}
