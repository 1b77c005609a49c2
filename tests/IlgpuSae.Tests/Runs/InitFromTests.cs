using System.Text.Json.Nodes;
using IlgpuSae.Kernels;
using IlgpuSae.Runs;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using IlgpuSae.Tests.Cli;
using Xunit;

namespace IlgpuSae.Tests.Runs;

/// <summary>Training goes on from anything that was saved: the form for use or the one in training, of today or of old.</summary>
public sealed class InitFromTests : IDisposable
{
    private readonly TempFolder _temp = new();
    private readonly CpuDevice _device = new(2);

    public void Dispose()
    {
        _temp.Dispose();
        _device.Dispose();
    }

    public static TheoryData<string> Architectures => [.. SaeRegistry.Default.TrainingNames.Where(n => !n.Contains("transcoder", StringComparison.Ordinal))];

    [Theory]
    [MemberData(nameof(Architectures))]
    public void The_form_for_use_can_be_trained_further(string architecture)
    {
        var rows = Ilgpusae.Activations(_temp, "a.safetensors", 320, 12);
        var settings = new JsonObject
        {
            ["activations"] = rows,
            ["shuffle"] = false,
            ["d_sae"] = 40,
            ["training_tokens"] = 3200,
            ["train_batch_size_tokens"] = 64,
            ["lr"] = 0.005,
            ["n_eval_batches"] = 0,
            ["output_path"] = _temp["first"],
            ["normalize_activations"] = "expected_average_only_in",
        };
        var type = SaeRegistry.Default.ConfigType(architecture, training: true);
        if (ConfigJson.Fields(type).Contains("k")) settings["k"] = 4;
        if (ConfigJson.Fields(type).Contains("matryoshka_widths")) settings["matryoshka_widths"] = new JsonArray(10, 40);
        Run(settings, architecture);
        using var before = SaeLensFolder.Load(_temp["first"], _device);
        Directory.Delete(Path.Combine(_temp["first"], SaeLensFolder.TrainingFolder), recursive: true);

        var further = new JsonObject
        {
            ["activations"] = rows,
            ["shuffle"] = false,
            ["training_tokens"] = 64,
            ["train_batch_size_tokens"] = 64,
            ["lr"] = 1e-6,
            ["n_eval_batches"] = 0,
            ["b_dec_init_method"] = "mean",
            ["init_from"] = _temp["first"],
            ["output_path"] = _temp["second"],
        };
        var report = Run(further, "topk");
        // The first step's loss is that of what was saved, on the rows as they are.
        using var scope = new TensorScope(_device);
        var x = scope.From<float>(SaeLensFolder.ReadWeights(rows).Single().Values.AsSpan(0, 64 * 12), [64, 12]);
        var expected = SquaredError.MeanOfRowSums(scope, before.Forward(scope, x), x).Scalar();
        Assert.Equal(expected, report.Training.Last!.Losses["mse_loss"], 1e-3 * expected);
        Assert.Equal(before.Config.Architecture, report.Config.Sae.ToInference().Architecture);
        Assert.Equal(40, report.Config.Sae.DSae);
    }

    [Fact]
    public void An_SAE_of_old_keeps_its_scaling_factor_and_settings()
    {
        var golden = Golden.FolderOf("sae", "standard_bdec", "sae");
        Directory.CreateDirectory(_temp["old"]);
        var state = SaeLensFolder.ReadWeights(Path.Combine(golden, SaeLensFolder.WeightsFile));
        var writer = new IlgpuSae.Files.SafetensorsWriter();
        foreach (var t in state) writer.Add(t.Name, [.. t.Shape.Dims.ToArray().Select(d => (long)d)], t.Values);
        var (dIn, dSae) = (state.First(t => t.Name == "b_dec").Values.Length, state.First(t => t.Name == "b_enc").Values.Length);
        writer.Add("scaling_factor", [dSae], Enumerable.Range(0, dSae).Select(i => 1 + (0.1f * i)).ToArray());
        writer.Save(Path.Combine(_temp["old"], SaeLensFolder.WeightsFile));
        File.WriteAllText(Path.Combine(_temp["old"], SaeLensFolder.ConfigFile),
            $$"""{"d_in": {{dIn}}, "d_sae": {{dSae}}, "activation_fn_str": "relu", "finetuning_scaling_factor": true, "l1_coefficient": 5, "normalize_activations": "none", "sae_lens_training_version": "3.1.0"}""");
        var rows = Ilgpusae.Activations(_temp, "a.safetensors", 64, dIn);
        var report = Run(new JsonObject
        {
            ["activations"] = rows,
            ["training_tokens"] = 64,
            ["train_batch_size_tokens"] = 64,
            ["n_eval_batches"] = 0,
            ["init_from"] = _temp["old"],
            ["output_path"] = _temp["new"],
            ["lr"] = 1e-7,
        }, "topk");
        Assert.Equal(5, ((StandardTrainingConfig)report.Config.Sae).L1Coefficient);
        using var sae = SaeLensFolder.Load(_temp["new"], _device);
        var decoder = state.First(t => t.Name == "W_dec").Values;
        Golden.Close("W_dec", sae.WDec.ToArray<float>(), [.. decoder.Select((v, i) => v * (1 + (0.1f * (i / dIn))))], 1e-5, 1e-5);
    }

    private TrainingRunReport Run(JsonObject settings, string architecture) =>
        new TrainingRun(RunConfigReader.Read([], settings, "test", architecture), _device).Execute(TestContext.Current.CancellationToken);
}
