using IlgpuSae.Autograd;
using IlgpuSae.Files;
using IlgpuSae.Runs;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using IlgpuSae.Tests;
using IlgpuSae.Training;
using Xunit;

namespace IlgpuSae.GpuTests;

/// <summary>One end-to-end step on an ILGPU device: loss and gradients of the CPU.</summary>
public sealed class EndToEndGpuTests
{
    [Fact]
    public void The_gradient_through_the_model_is_the_CPUs()
    {
        using var cpu = new CpuDevice(1);
        using var gpu = TestDevice.Open();
        var expected = Step(cpu);
        var actual = Step(gpu);
        Assert.Equal(expected.Loss, actual.Loss, 1e-3 * expected.Loss);
        foreach (var (name, values) in expected.Gradients) Golden.Close(name, actual.Gradients[name], values, 1e-3 * values.Max(Math.Abs), 1e-3);
    }

    private static (double Loss, Dictionary<string, float[]> Gradients) Step(Device device)
    {
        using var temp = new TempFolder();
        new SafetensorsWriter().Add("tokens", [1, 5], new long[] { 3, 14, 15, 92, 65 }).Save(temp["t.safetensors"]);
        using var language = LanguageModel.Load(Golden.FolderOf("lm", "gpt2_tiny", "model"), device);
        var data = new DataConfig { ModelName = "m", HookName = "blocks.2.hook_resid_pre", Tokens = temp["t.safetensors"] };
        using var tokens = language.OpenTokens(data, null);
        var endToEnd = new EndToEnd(language, tokens, data, new EndToEndConfig { E2eLoss = EndToEndLoss.Kl, E2eMseCoefficient = 0.1 });
        using var sae = SaeRegistry.Default.CreateForTraining(new TopKTrainingConfig { DIn = endToEnd.Width, DSae = 16, K = 4 }, device, seed: 3);
        using var trainer = new SaeTrainer(sae, endToEnd, new TrainerConfig { TotalTrainingSamples = 5, TrainBatchSizeSamples = 5 });
        using var scope = new TensorScope(device);
        var x = endToEnd.Next(scope, 5)!;
        var step = new TrainingStep(0, new Dictionary<string, double>(), default);
        using var tape = new Tape(scope);
        foreach (var p in sae.Parameters.Values) tape.Watch(p);
        var pass = endToEnd.Extend(new StepContext(trainer, scope, x, x, x, step, 1), sae.Forward(scope, x, step));
        tape.Backward(pass.Total);
        return (pass.Total.Scalar(), sae.Parameters.ToDictionary(p => p.Key, p => tape.Gradient(p.Value).ToArray<float>()));
    }
}
