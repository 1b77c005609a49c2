using System.Text.Json.Nodes;
using IlgpuSae.Files;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Saes;

/// <summary>SAELens' folder: what is written is read back, old configurations are understood, bad ones are named.</summary>
public sealed class SaeLensFolderTests : IDisposable
{
    private readonly CpuDevice _device = new(1);
    private readonly TempFolder _temp = new();

    public void Dispose()
    {
        _temp.Dispose();
        _device.Dispose();
    }

    [Theory]
    [InlineData("standard", "float32")]
    [InlineData("standard", "torch.bfloat16")]
    [InlineData("topk", "float16")]
    [InlineData("topk", "float64")]
    public void A_folder_is_read_back_as_it_was_written(string architecture, string dtype)
    {
        var metadata = new SaeMetadata().With("hook_name", "blocks.1.hook_resid_pre").With("hook_head_index", null);
        TrainingSaeConfig config = architecture == "standard"
            ? new StandardTrainingConfig { DIn = 5, DSae = 9, Dtype = dtype, L1Coefficient = 3, L1WarmUpSteps = 7, Metadata = metadata }
            : new TopKTrainingConfig { DIn = 5, DSae = 9, Dtype = dtype, K = 4, AuxLossCoefficient = 0.25, Metadata = metadata };
        using var training = SaeRegistry.Default.CreateForTraining(config, _device, seed: 1);
        using var sae = training.ToInference();
        var folder = _temp["sae"];
        var sparsity = Enumerable.Range(0, 9).Select(i => -i / 3f).ToArray();
        SaeLensFolder.Save(folder, sae, sparsity, new JsonObject { ["lr"] = 0.5 }, training);

        using var read = SaeLensFolder.Load(folder, _device);
        Assert.Equal(sae.Config, read.Config);
        Assert.Equal(architecture, read.Config.Architecture);
        var (abs, rel) = dtype.EndsWith("bfloat16", StringComparison.Ordinal) ? (0, 1.0 / 256) : dtype == "float16" ? (0, 1.0 / 2048) : (0, 0.0);
        foreach (var (name, tensor) in sae.Parameters)
            Golden.Close(name, read.Parameters[name].ToArray<float>(), tensor.ToArray<float>(), abs, rel);
        using var again = SaeLensFolder.LoadForTraining(Path.Combine(folder, SaeLensFolder.TrainingFolder), _device);
        Assert.Equal(config, again.Config);
        Golden.Close("W_dec", again.WDec.ToArray<float>(), training.WDec.ToArray<float>(), abs, rel);
        Assert.Equal(sparsity, SaeLensFolder.ReadSparsity(folder));
        Assert.Equal("0.5", SaeLensFolder.ReadRunnerConfig(folder)!["lr"]!.ToJsonString());
        using var weights = SafetensorsFile.Open(Path.Combine(folder, SaeLensFolder.WeightsFile));
        Assert.Equal([5L, 9L], weights["W_enc"].Shape);
        Assert.Equal(read.Config.StorageType.ToString(), weights["W_enc"].Type.ToString());

        // Once more into the same place, with the same bytes.
        var before = File.ReadAllBytes(Path.Combine(folder, SaeLensFolder.WeightsFile));
        SaeLensFolder.Save(folder, sae, sparsity, new JsonObject { ["lr"] = 0.5 }, training);
        Assert.Equal(before, File.ReadAllBytes(Path.Combine(folder, SaeLensFolder.WeightsFile)));
        Assert.Single(Directory.EnumerateFileSystemEntries(_temp.Path));
    }

    [Fact]
    public void Fields_are_written_in_SAELens_spelling_and_stable_order()
    {
        var config = new TopKTrainingConfig { DIn = 5, DSae = 9, K = 4, Metadata = new SaeMetadata(new JsonObject { ["model_name"] = "tiny" }) };
        Assert.Equal(
            """
            {"d_in":5,"d_sae":9,"dtype":"float32","device":"cpu","apply_b_dec_to_input":true,"normalize_activations":"none","reshape_activations":"none","metadata":{"model_name":"tiny"},"decoder_init_norm":0.1,"k":4,"use_sparse_activations":false,"aux_loss_coefficient":1,"rescale_acts_by_decoder_norm":true,"architecture":"topk"}
            """,
            ConfigJson.ToJson(config).ToJsonString());
        Assert.Equal(
            """
            {"d_in":0,"d_sae":0,"dtype":"float32","device":"cpu","apply_b_dec_to_input":true,"normalize_activations":"layer_norm","reshape_activations":"hook_z","metadata":{},"decoder_init_norm":null,"l1_coefficient":1,"lp_norm":1,"l1_warm_up_steps":0,"architecture":"standard"}
            """,
            ConfigJson.ToJson(new StandardTrainingConfig
            {
                NormalizeActivations = NormalizeActivations.LayerNorm,
                ReshapeActivations = ReshapeActivations.HookZ,
                DecoderInitNorm = null,
                Metadata = new SaeMetadata([]),
            }).ToJsonString());
    }

    [Fact]
    public void A_flat_configuration_of_an_old_version_becomes_todays()
    {
        // What SAELens itself makes of gpt2-small-res-jb, layer 0.
        var json = Migrated("""
            {"hook_point": "blocks.0.hook_resid_pre", "hook_point_head_index": null, "hook_point_layer": 0, "model_name": "gpt2-small",
             "d_in": 768, "d_sae": 24576, "dtype": "torch.float32", "device": "mps", "context_size": 128, "normalize_activations": null,
             "model_from_pretrained_kwargs": {"center_writing_weights": true}, "neuronpedia_id": "gpt2-small/0-res-jb",
             "dataset_path": "Skylion007/openwebtext", "l1_coefficient": 8e-05, "lp_norm": 1}
            """);
        var expected = JsonNode.Parse("""
            {"model_name": "gpt2-small", "hook_name": "blocks.0.hook_resid_pre", "hook_head_index": null, "context_size": 128,
             "model_from_pretrained_kwargs": {"center_writing_weights": true}, "neuronpedia_id": "gpt2-small/0-res-jb", "prepend_bos": true,
             "dataset_path": "Skylion007/openwebtext", "sae_lens_training_version": null}
            """);
        var config = (StandardConfig)ConfigJson.FromJson(json, typeof(StandardConfig), "cfg.json", unknownFields: true);
        Assert.Equal(new SaeMetadata(expected!.AsObject()).OrderBy(p => p.Key, StringComparer.Ordinal).Select(p => $"{p.Key} {p.Value?.ToJsonString()}"),
            config.Metadata.OrderBy(p => p.Key, StringComparer.Ordinal).Select(p => $"{p.Key} {p.Value?.ToJsonString()}"));
        Assert.Equal(new StandardConfig { DIn = 768, DSae = 24576, Dtype = "torch.float32", Metadata = config.Metadata }, config);
        Assert.Equal("standard", json["architecture"]!.ToString());
    }

    [Fact]
    public void An_old_TopK_configuration_becomes_todays()
    {
        var json = Migrated("""
            {"architecture": "standard", "d_in": 768, "d_sae": 32768, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 32},
             "normalize_activations": "layer_norm", "prepend_bos": false, "context_size": 64, "hook_name": "blocks.{layer}.attn.hook_z", "hook_layer": 3,
             "sae_lens_version": "5.10.1"}
            """);
        Assert.Equal("topk", json["architecture"]!.ToString());
        var config = (TopKConfig)ConfigJson.FromJson(json, typeof(TopKConfig), "cfg.json", unknownFields: true);
        Assert.Equal((32, false, NormalizeActivations.LayerNorm, ReshapeActivations.HookZ),
            (config.K, config.RescaleActsByDecoderNorm, config.NormalizeActivations, config.ReshapeActivations));
        Assert.False(config.Metadata.Get("prepend_bos", true));
        Assert.Equal("blocks.3.attn.hook_z", config.Metadata.Get<string>("hook_name"));
        Assert.Equal("expected_average_only_in", Migrated("""{"normalize_activations": true}""")["normalize_activations"]!.ToString());
    }

    [Theory]
    [InlineData("6.0.0-rc.0")]
    [InlineData("6.18.0")]
    [InlineData("7.1")]
    public void A_configuration_of_version_6_is_left_alone(string version) =>
        Assert.Equal("x", Migrated($$$"""{"hook_point": "x", "metadata": {"sae_lens_version": "{{{version}}}"}}""")["hook_point"]!.ToString());

    [Theory]
    [InlineData("5.11.0")]
    [InlineData("6.0.0.dev1")]
    [InlineData("6.0.0-beta.2")]
    public void An_earlier_one_is_migrated(string version) =>
        Assert.Equal("x", Migrated($$"""{"hook_point": "x", "sae_lens_version": "{{version}}"}""")["hook_name"]!.ToString());

    [Fact]
    public void A_scaling_factor_of_ones_is_dropped_and_a_learned_one_goes_into_the_decoder()
    {
        var folder = OldFolder("{}", [1, 1, 1]);
        using (var sae = SaeLensFolder.Load(folder, _device)) Assert.Equal([1, 2, 3, 4, 5, 6], sae.WDec.ToArray<float>());
        folder = OldFolder("""{"finetuning_scaling_factor": true}""", [1, 2, 10]);
        using (var sae = SaeLensFolder.Load(folder, _device)) Assert.Equal([1, 2, 6, 8, 50, 60], sae.WDec.ToArray<float>());
        folder = OldFolder("{}", [1, 2, 10]);
        Refused("scaling_factor", "finetuning_scaling_factor is not true", () => SaeLensFolder.Load(folder, _device));
    }

    [Fact]
    public void What_cannot_be_read_is_named()
    {
        var none = _temp["none"];
        Refused("none", "cfg.json", () => SaeLensFolder.Load(none, _device));

        var folder = NewFolder();
        Change(folder, c => c["architecture"] = "gates");
        Refused("cfg.json", "architecture \"gates\" is not known; known: ", () => SaeLensFolder.Load(folder, _device), andMore: true);
        Change(folder, c => c["architecture"] = "standard", c => c["normalize_activations"] = "batch_norm");
        Refused("cfg.json", "field \"normalize_activations\" cannot be \"batch_norm\"", () => SaeLensFolder.Load(folder, _device));
        Change(folder, c => c["normalize_activations"] = "none", c => c["dtype"] = "int8");
        Refused("cfg.json", "dtype: \"int8\" is not known; known: float32", () => SaeLensFolder.Load(folder, _device));
        Change(folder, c => c["dtype"] = "float32", c => c["d_sae"] = 0);
        Refused("cfg.json", "d_sae: 0 features; it must be at least 1", () => SaeLensFolder.Load(folder, _device));
        Change(folder, c => c["d_sae"] = 3.5);
        Refused("cfg.json", "field \"d_sae\" cannot be 3.5", () => SaeLensFolder.Load(folder, _device));
        Change(folder, c => c["d_sae"] = 3, c => c["sae_lens_version"] = "6.18.0", c => c["metadata"] = "none");
        Refused("cfg.json", "field \"metadata\" cannot be \"none\"", () => SaeLensFolder.Load(folder, _device));
        Change(folder, c => c["metadata"] = new JsonObject { ["sae_lens_version"] = "6.18.0" }, c => c["d_sae"] = 4);
        Refused("sae_weights.safetensors", "tensor \"b_enc\" is [3] but d_in = 2, d_sae = 4 ask for [4]", () => SaeLensFolder.Load(folder, _device));
        Change(folder, c => c["d_sae"] = 3, c => c["added_in_a_later_version"] = 1);
        SaeLensFolder.Load(folder, _device).Dispose();

        Weights(folder, w => w.Remove("b_dec"));
        Refused("sae_weights.safetensors", "tensor \"b_dec\" of architecture standard is missing", () => SaeLensFolder.Load(folder, _device));
        Weights(folder, w => w["threshold"] = [3]);
        Refused("sae_weights.safetensors", "tensor \"threshold\" is no parameter of architecture standard", () => SaeLensFolder.Load(folder, _device));
        Weights(folder, w => w["b_dec"] = [0, 5_000_000_000]);
        Refused("sae_weights.safetensors", "tensor \"b_dec\" is [0, 5000000000]; at most", () => SaeLensFolder.Load(folder, _device));
        new SafetensorsWriter().Add("b_dec", [2], new long[2]).Save(Path.Combine(folder, SaeLensFolder.WeightsFile));
        Refused("sae_weights.safetensors", "has dtype I64", () => SaeLensFolder.Load(folder, _device));
        File.Delete(Path.Combine(folder, SaeLensFolder.WeightsFile));
        Refused("sae_weights.safetensors", "", () => SaeLensFolder.Load(folder, _device));
    }

    [Fact]
    public void A_folder_with_other_files_is_not_replaced()
    {
        var folder = NewFolder();
        File.WriteAllText(Path.Combine(folder, "thesis.txt"), "years of work");
        using var sae = SaeRegistry.Default.Create(new StandardConfig { DIn = 2, DSae = 3 }, _device);
        Assert.Contains("not empty", Assert.Throws<InvalidInputException>(() => SaeLensFolder.Save(folder, sae)).Message, StringComparison.Ordinal);
        Assert.Equal("years of work", File.ReadAllText(Path.Combine(folder, "thesis.txt")));
    }

    [Fact]
    public void A_run_configuration_with_an_unknown_field_is_refused_by_name()
    {
        var json = JsonNode.Parse("""{"d_in": 4, "d_sae": 8, "l1_coeficient": 3}""")!.AsObject();
        var e = Assert.Throws<InvalidInputException>(() => ConfigJson.FromJson(json, typeof(StandardTrainingConfig), "run.json"));
        Assert.StartsWith("run.json: field \"l1_coeficient\" is not known; known: d_in,", e.Message, StringComparison.Ordinal);
        Assert.Contains("l1_coefficient", e.Message, StringComparison.Ordinal);
    }

    private static JsonObject Migrated(string json) => SaeLensMigration.Migrate(JsonNode.Parse(json)!.AsObject(), "cfg.json");

    private static void Refused(string file, string what, Action action, bool andMore = false)
    {
        var e = Assert.ThrowsAny<InvalidInputException>(action);
        Assert.Contains(file, e.Message, StringComparison.Ordinal);
        Assert.Contains(what, e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', e.Message);
        if (!andMore && what.Length > 0) Assert.True(e.Message.Length < 400, e.Message);
    }

    private string NewFolder()
    {
        var folder = _temp["sae" + Directory.GetFileSystemEntries(_temp.Path).Length];
        using var sae = SaeRegistry.Default.Create(new StandardConfig { DIn = 2, DSae = 3 }, _device);
        SaeLensFolder.Save(folder, sae);
        return folder;
    }

    private string OldFolder(string extra, float[] scalingFactor)
    {
        var folder = NewFolder();
        var config = JsonNode.Parse(extra)!.AsObject();
        config["d_in"] = 2;
        config["d_sae"] = 3;
        File.WriteAllText(Path.Combine(folder, SaeLensFolder.ConfigFile), config.ToJsonString());
        new SafetensorsWriter().Add("b_dec", [2], new float[2]).Add("b_enc", [3], new float[3]).Add("W_enc", [2, 3], new float[6])
            .Add("W_dec", [3, 2], new float[] { 1, 2, 3, 4, 5, 6 }).Add("scaling_factor", [3], scalingFactor)
            .Save(Path.Combine(folder, SaeLensFolder.WeightsFile));
        return folder;
    }

    private static void Change(string folder, params Action<JsonObject>[] changes)
    {
        var path = Path.Combine(folder, SaeLensFolder.ConfigFile);
        var json = JsonNode.Parse(File.ReadAllText(path))!.AsObject();
        foreach (var change in changes) change(json);
        File.WriteAllText(path, json.ToJsonString());
    }

    private static void Weights(string folder, Action<Dictionary<string, long[]>> change)
    {
        Dictionary<string, long[]> shapes = new() { ["b_dec"] = [2], ["b_enc"] = [3], ["W_dec"] = [3, 2], ["W_enc"] = [2, 3] };
        change(shapes);
        var writer = new SafetensorsWriter();
        foreach (var (name, shape) in shapes) writer.Add(name, shape, new float[shape.Aggregate(1L, (a, b) => a * b)]);
        writer.Save(Path.Combine(folder, SaeLensFolder.WeightsFile));
    }
}
