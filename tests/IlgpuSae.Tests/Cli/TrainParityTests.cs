using System.Text.Json.Nodes;
using IlgpuSae.Files;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Cli;

/// <summary>Forty steps that SAELens made, repeated through the command line, from a configuration in SAELens' names.</summary>
public sealed class TrainParityTests
{
    [Theory]
    [InlineData("standard_l1_warmup", false)]
    [InlineData("standard_expected_average", true)]
    [InlineData("topk_dead", false)]
    public void Every_step_and_the_result_are_SAELens(string name, bool nested)
    {
        var golden = Golden.Open("train", name);
        using var temp = new TempFolder();
        var config = Configuration(golden, nested);
        var output = Ilgpusae.Succeed("train", "--activations", golden.PathOf("activations.safetensors"), "--init-from", golden.PathOf("initial.safetensors"),
            "--no-shuffle", "--config", temp.Write("run.json", config.ToJsonString()), "--metrics", temp["m.jsonl"], "--output-path", temp["sae"], "--quiet");
        Assert.Contains("trained", output, StringComparison.Ordinal);

        var steps = File.ReadAllLines(temp["m.jsonl"]).Select(l => JsonNode.Parse(l)!.AsObject()).ToList();
        var expected = golden.Case.GetProperty("steps");
        Assert.Equal(expected.GetArrayLength(), steps.Count);
        var rel = golden.Case.GetProperty("tolerance").GetProperty("rel_loss_per_step").GetDouble();
        for (var i = 0; i < steps.Count; i++) CheckStep(JsonNode.Parse(expected[i].GetRawText())!.AsObject(), steps[i], rel);

        var abs = golden.Case.GetProperty("tolerance").GetProperty("abs_final_weights").GetDouble();
        SameWeights(golden.PathOf(Path.Combine("final_inference", SaeLensFolder.WeightsFile)), Path.Combine(temp["sae"], SaeLensFolder.WeightsFile), abs);
        SameWeights(golden.PathOf(Path.Combine("final_training", SaeLensFolder.WeightsFile)), Path.Combine(temp["sae"], "training", SaeLensFolder.WeightsFile), abs);
        Assert.Equal(SaeLensFolder.ReadConfig(golden.PathOf("final_inference")), SaeLensFolder.ReadConfig(temp["sae"]));
        Assert.Equal(SaeLensFolder.ReadConfig(golden.PathOf("final_training"), training: true), SaeLensFolder.ReadConfig(Path.Combine(temp["sae"], "training"), training: true));
        Assert.Equal(["cfg.json", "runner_cfg.json", "sae_weights.safetensors", "sparsity.safetensors", "training"],
            Directory.EnumerateFileSystemEntries(temp["sae"]).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        Assert.Equal(["m.jsonl", "run.json", "sae"], temp.List());
    }

    [Fact]
    public void The_same_command_gives_the_same_bytes_on_one_thread_and_two()
    {
        var golden = Golden.Open("train", "topk_dead");
        using var temp = new TempFolder();
        var config = temp.Write("run.json", Configuration(golden, nested: true).ToJsonString());
        foreach (var (threads, folder) in new[] { ("1", "a"), ("2", "b"), ("2", "c") })
        {
            Ilgpusae.Succeed("train", "--activations", golden.PathOf("activations.safetensors"), "--config", config, "--output-path", temp[folder],
                "--threads", threads, "--quiet", "--seed", "7");
        }

        foreach (var file in new[] { "sae_weights.safetensors", "sparsity.safetensors", "cfg.json", Path.Combine("training", "sae_weights.safetensors") })
        {
            var first = File.ReadAllBytes(Path.Combine(temp["a"], file));
            Assert.Equal(first, File.ReadAllBytes(Path.Combine(temp["b"], file)));
            Assert.Equal(first, File.ReadAllBytes(Path.Combine(temp["c"], file)));
        }
    }

    [Fact]
    public void Training_goes_on_from_a_folder_with_its_settings()
    {
        var golden = Golden.Open("train", "topk_dead");
        using var temp = new TempFolder();
        string[] common = ["train", "--activations", golden.PathOf("activations.safetensors"), "--training-tokens", "256", "--train-batch-size-tokens", "64", "--quiet", "--output-path"];
        Ilgpusae.Succeed([.. common, temp["a"], "--d-sae", "40", "--k", "5", "--aux-loss-coefficient", "0.5"]);
        Ilgpusae.Succeed([.. common, temp["b"], "--init-from", temp["a"], "--lr", "1e-9"]);
        var config = (TopKTrainingConfig)SaeLensFolder.ReadConfig(Path.Combine(temp["b"], "training"), training: true);
        Assert.Equal((40, 5, 0.5), (config.DSae, config.K, config.AuxLossCoefficient));
        SameWeights(Path.Combine(temp["a"], SaeLensFolder.WeightsFile), Path.Combine(temp["b"], SaeLensFolder.WeightsFile), 1e-5);
    }

    /// <summary>The case's settings as SAELens' runner (nested) or its two records side by side would have them in a file.</summary>
    private static JsonObject Configuration(Golden golden, bool nested)
    {
        var sae = JsonNode.Parse(golden.Case.GetProperty("sae_cfg").GetRawText())!.AsObject();
        // The case's settings are those after the run, when the scale has been folded.
        if (golden.Case.TryGetProperty("scaling_factor", out _)) sae["normalize_activations"] = "expected_average_only_in";
        var config = new JsonObject();
        if (nested) config["sae"] = sae;
        else foreach (var (key, value) in sae) config[key] = value?.DeepClone();
        foreach (var (key, value) in JsonNode.Parse(golden.Case.GetProperty("trainer_cfg").GetRawText())!.AsObject())
        {
            var runner = nested && key == "total_training_samples" ? "training_tokens" : nested && key == "train_batch_size_samples" ? "train_batch_size_tokens" : key;
            config[runner] = value?.DeepClone();
        }

        return config;
    }

    private static void CheckStep(JsonObject expected, JsonObject actual, double rel)
    {
        var at = $"step {expected["step"]}";
        foreach (var field in new[] { "step", "n_dead" }) Assert.Equal(expected[field]!.GetValue<long>(), actual[field]!.GetValue<long>());
        Near($"{at} lr", actual["lr"]!, expected["lr"]!, 1e-9, 0);
        Near($"{at} loss", actual["loss"]!, expected["loss"]!, 0, rel);
        Near($"{at} gradient norm", actual["grad_norm_before_clip"]!, expected["grad_norm_before_clip"]!, 0, rel);
        // One of a batch's 64 rows may fall on the other side of ReLU.
        Near($"{at} l0", actual["l0"]!, expected["l0"]!, 2.0 / 64, 0);
        foreach (var group in new[] { "losses", "coefficients" })
        {
            var (e, a) = (expected[group]!.AsObject(), actual[group]!.AsObject());
            Assert.Equal(e.Select(p => p.Key).Order(StringComparer.Ordinal), a.Select(p => p.Key).Order(StringComparer.Ordinal));
            foreach (var (key, value) in e) Near($"{at} {key}", a[key]!, value!, 1e-7, rel);
        }
    }

    private static void Near(string what, JsonNode actual, JsonNode expected, double abs, double rel)
    {
        double a = actual.GetValue<double>(), e = expected.GetValue<double>();
        Assert.True(Math.Abs(a - e) <= abs + (rel * Math.Abs(e)), $"{what} is {a:R}, expected {e:R}");
    }

    private static void SameWeights(string expected, string actual, double abs)
    {
        using SafetensorsFile e = SafetensorsFile.Open(expected), a = SafetensorsFile.Open(actual);
        Assert.Equal(e.Names.Order(StringComparer.Ordinal), a.Names.Order(StringComparer.Ordinal));
        foreach (var name in e.Names)
        {
            Assert.Equal(e[name].Shape, a[name].Shape);
            Golden.Close(name, a.ReadFloat32(name), e.ReadFloat32(name), abs, abs);
        }
    }
}
