using IlgpuSae.Autograd;
using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.GpuTests.Saes;

/// <summary>Architectures without SAELens' numbers compute on ILGPU's CPU accelerator what they compute on the CPU.</summary>
public sealed class SameOnEveryDeviceTests
{
    private const int Rows = 6;

    public static TheoryData<string> Trained => [.. SaeRegistry.Default.TrainingNames
        .Where(n => n.EndsWith("transcoder", StringComparison.Ordinal) || n == "matching_pursuit")];

    [Theory]
    [MemberData(nameof(Trained))]
    public void Features_output_losses_and_gradients_of_a_step(string architecture)
    {
        var type = SaeRegistry.Default.ConfigType(architecture, training: true);
        var json = ConfigJson.ToJson(Activator.CreateInstance(type)!);
        json["d_in"] = 5;
        json["d_sae"] = 12;
        if (json.ContainsKey("d_out")) json["d_out"] = 4;
        if (json.ContainsKey("k")) json["k"] = 3;
        var config = (TrainingSaeConfig)ConfigJson.FromJson(json, type, "test");
        using var cpu = new CpuDevice(2);
        using var gpu = Device.Open("ilgpu-cpu");
        var (expected, given) = (Step(config, cpu), Step(config, gpu));
        Assert.Equal(expected.Keys, given.Keys);
        foreach (var (name, values) in expected) Golden.Close(name, given[name], values, 1e-5, 1e-4);
    }

    [Fact]
    public void A_temporal_SAEs_features_and_output()
    {
        var config = new TemporalConfig { DIn = 5, DSae = 12, NHeads = 2, BottleneckFactor = 3, KvalTopk = 4 };
        using var cpu = new CpuDevice(2);
        using var gpu = Device.Open("ilgpu-cpu");
        Dictionary<string, float[]> Run(Device device)
        {
            using var sae = SaeRegistry.Default.Create(config, device);
            Fill(sae, _ => true);
            using var scope = new TensorScope(device);
            var x = Input(scope, [2, 3, 5]);
            return new() { ["features"] = DenseFeatures.Of(scope, sae.Encode(scope, x)).ToArray<float>(), ["output"] = sae.Forward(scope, x).ToArray<float>() };
        }

        var (expected, given) = (Run(cpu), Run(gpu));
        foreach (var (name, values) in expected) Golden.Close(name, given[name], values, 1e-5, 1e-4);
    }

    private static Dictionary<string, float[]> Step(TrainingSaeConfig config, Device device)
    {
        using var sae = SaeRegistry.Default.CreateForTraining(config, device, seed: 3);
        Fill(sae, name => name is "W_skip" or "b_dec");
        using var scope = new TensorScope(device);
        using var tape = new Tape(scope);
        foreach (var p in sae.Parameters.Values) tape.Watch(p);
        var coefficients = sae.Coefficients.ToDictionary(c => c.Key, _ => 0.3);
        var pass = sae.Forward(scope, Input(scope, [Rows, 5]), new TrainingStep(0, coefficients, new[] { 1, 7 }), config.IsTranscoder ? Input(scope, [Rows, 4]) : null);
        tape.Backward(pass.Total);
        var all = new Dictionary<string, float[]>
        {
            ["features"] = DenseFeatures.Of(scope, pass.Features).ToArray<float>(),
            ["output"] = pass.Reconstruction.ToArray<float>(),
        };
        foreach (var (name, value) in pass.Losses) all[name] = value.ToArray<float>();
        foreach (var (name, p) in sae.Parameters) all[$"gradient of {name}"] = tape.Gradient(p).ToArray<float>();
        return all;
    }

    private static void Fill(Sae sae, Func<string, bool> which)
    {
        var phase = 0f;
        foreach (var (name, p) in sae.Parameters)
        {
            phase += 0.7f;
            if (which(name)) p.CopyFrom<float>([.. Enumerable.Range(0, (int)p.Count).Select(i => MathF.Sin(phase + (1.3f * i)))]);
        }
    }

    private static Tensor Input(TensorScope scope, Shape shape) => scope.From<float>([.. Enumerable.Range(0, (int)shape.Count).Select(i => 1.5f * MathF.Cos(0.4f + (0.9f * i) + (0.03f * i * i)))], shape);
}
