using System.Text.Json.Nodes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Cli;

/// <summary>Several SAEs on one stream of activations.</summary>
public sealed class SweepTests : IDisposable
{
    private readonly TempFolder _temp = new();

    public void Dispose() => _temp.Dispose();

    [Fact]
    public void Every_SAE_of_a_model_is_the_one_trained_alone()
    {
        // Hooks of two widths, a head, a transcoder; widths, seeds, lengths; with and without an estimated scale.
        var common = new JsonObject
        {
            ["model_name"] = Golden.FolderOf("eval", "gpt2_resid_standard", "model"),
            ["tokens"] = Ilgpusae.Tokens(_temp, "t.safetensors", 60, 8, i => (i * 7) % 61),
            ["hook_name"] = "blocks.0.hook_resid_post",
            ["training_tokens"] = 320,
            ["train_batch_size_tokens"] = 32,
            ["store_batch_size_prompts"] = 4,
            ["n_batches_in_buffer"] = 3,
            ["contexts"] = "0:50",
            ["eval_contexts"] = "50:60",
            ["lr"] = 1e-3,
        };
        SameAsAlone(common,
            """{ "name": "a", "architecture": "topk", "d_sae": 40, "k": 4 }""",
            """{ "name": "b", "architecture": "topk", "d_sae": 64, "k": 3, "seed": 7, "lr": 0.003, "normalize_activations": "expected_average_only_in" }""",
            """{ "name": "c", "architecture": "standard", "d_sae": 40, "l1_coefficient": 0.5, "hook_name": "blocks.1.hook_resid_pre" }""",
            """{ "name": "d", "architecture": "standard", "d_sae": 24, "hook_name": "blocks.0.attn.hook_z", "hook_head_index": 1, "normalize_activations": "expected_average_only_in" }""",
            """{ "name": "e", "architecture": "topk", "d_sae": 40, "k": 4, "training_tokens": 160 }""",
            """{ "name": "f", "architecture": "transcoder", "d_sae": 48, "hook_name": "blocks.0.ln2.hook_normalized", "hook_name_out": "blocks.0.hook_mlp_out", "apply_b_dec_to_input": false }""");
    }

    [Fact]
    public void Every_SAE_of_a_file_or_a_synthetic_source_is_the_one_trained_alone()
    {
        var file = new JsonObject { ["activations"] = Ilgpusae.Activations(_temp, "acts.safetensors", 200, 12), ["training_tokens"] = 480, ["train_batch_size_tokens"] = 48, ["k"] = 2 };
        SameAsAlone(file, """{ "d_sae": 20 }""", """{ "d_sae": 30, "seed": 3, "normalize_activations": "expected_average_only_in" }""");
        var synthetic = new JsonObject { ["synthetic"] = "synthsaebench-1k", ["n_true"] = 48, ["d_in"] = 12, ["total_root_nodes"] = 2, ["training_tokens"] = 480, ["train_batch_size_tokens"] = 48 };
        SameAsAlone(synthetic, """{ "k": 2 }""", """{ "k": 3, "seed": 5 }""");
    }

    [Fact]
    public void Tables_plots_and_folders_are_written()
    {
        var folder = _temp["out"];
        var sweep = _temp.Write("s.json", """
            { "base": { "d_in": 12, "n_true": 24, "training_tokens": 2048, "train_batch_size_tokens": 128, "lr_decay_steps": 4, "d_sae": 32 },
              "runs": [ { "architecture": "topk" }, { "architecture": "topk", "seed": 2 } ], "grid": { "k": [2, 4] } }
            """);
        var text = Ilgpusae.Succeed("train", "--sweep", sweep, "--output-path", folder, "--metrics", _temp["m.jsonl"], "--json", _temp["r.json"], "--quiet");
        string[] names = ["topk-k2", "topk-k4", "topk-seed2-k2", "topk-seed2-k4"];
        foreach (var name in names)
        {
            Assert.Contains(name, text, StringComparison.Ordinal);
            Assert.True(File.Exists(Path.Combine(folder, name, SaeLensFolder.WeightsFile)));
            Assert.Equal(16, File.ReadAllLines(_temp[$"m-{name}.jsonl"]).Length);
        }

        Assert.Equal([.. names, "pareto.png", "pareto.svg", "results.csv", "results.json"],
            Directory.EnumerateFileSystemEntries(folder).Select(Path.GetFileName).OrderBy(n => Array.IndexOf(names, n) < 0 ? 1 : 0).ThenBy(n => n, StringComparer.Ordinal));
        var csv = File.ReadAllLines(Path.Combine(folder, "results.csv"));
        Assert.StartsWith("name,architecture,k,seed,l0,explained_variance,mse,f1_score,", csv[0], StringComparison.Ordinal);
        Assert.Equal(5, csv.Length);
        Assert.StartsWith("topk-seed2-k4,topk,4,2,", csv[4], StringComparison.Ordinal);
        var json = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "results.json")))!;
        Assert.Equal(names, json["runs"]!.AsArray().Select(r => r!["name"]!.GetValue<string>()));
        Assert.InRange(json["runs"]![0]!["explained_variance"]!.GetValue<double>(), -1, 1);
        Assert.True(json["activation_seconds"]!.GetValue<double>() < json["seconds"]!.GetValue<double>());
        Assert.Equal(json.ToJsonString(), JsonNode.Parse(File.ReadAllText(_temp["r.json"]))!.ToJsonString());
        // A PNG's first bytes; and the plot's words are there as text.
        Assert.Equal([0x89, (byte)'P', (byte)'N', (byte)'G'], File.ReadAllBytes(Path.Combine(folder, "pareto.png"))[..4]);
        var svg = File.ReadAllText(Path.Combine(folder, "pareto.svg"));
        foreach (var word in new[] { "explained variance", "F1 with the true features", "topk", "seed2-k4" }) Assert.Contains(word, svg, StringComparison.Ordinal);
        Assert.Contains("is not empty", Ilgpusae.Fail(2, "train", "--sweep", sweep, "--output-path", folder), StringComparison.Ordinal);
    }

    [Fact]
    public void A_run_that_fails_does_not_stop_the_others()
    {
        var values = Enumerable.Range(0, 100 * 8).Select(i => MathF.Sin(i)).ToArray();
        var acts = Ilgpusae.Activations(_temp, "acts.safetensors", 100, 8, values);
        var sweep = _temp.Write("s.json", new JsonObject
        {
            ["base"] = new JsonObject { ["activations"] = acts, ["training_tokens"] = 400, ["train_batch_size_tokens"] = 40, ["architecture"] = "standard", ["d_sae"] = 16, ["clip_grad_norm"] = 1e30 },
            ["runs"] = new JsonArray(new JsonObject { ["name"] = "good" }, new JsonObject { ["name"] = "bad", ["lr"] = 1e30 }),
        }.ToJsonString());
        var line = Ilgpusae.Fail(1, "train", "--sweep", sweep, "--output-path", _temp["out"]);
        Assert.StartsWith("error: 1 of 2 runs failed, the others are complete; bad: train: stopped at step ", line, StringComparison.Ordinal);
        Assert.True(Directory.Exists(_temp["out/good"]));
        Assert.False(Directory.Exists(_temp["out/bad"]));
        Assert.Contains("stopped at step", File.ReadAllText(_temp["out/results.csv"]), StringComparison.Ordinal);
    }

    [Fact]
    public void Ctrl_C_saves_what_every_run_has()
    {
        var acts = Ilgpusae.Activations(_temp, "acts.safetensors", 100, 8);
        var sweep = _temp.Write("s.json", new JsonObject { ["base"] = new JsonObject { ["activations"] = acts, ["d_sae"] = 16, ["training_tokens"] = 1_000_000_000 }, ["grid"] = new JsonObject { ["k"] = new JsonArray(1, 2) } }.ToJsonString());
        using var stop = new CancellationTokenSource(TimeSpan.FromSeconds(1.5));
        var (code, _, error) = Ilgpusae.Run(stop.Token, "train", "--sweep", sweep, "--output-path", _temp["out"], "--quiet");
        Assert.Equal(130, code);
        Assert.Contains("interrupted: stopped; what was trained until then is in ", error, StringComparison.Ordinal);
        Assert.True(File.Exists(_temp["out/topk-k2/cfg.json"]));
    }

    [Theory]
    [InlineData("""{ "runs": [ { "k": 1 }, { "k": 2, "train_batch_size_tokens": 64 } ] }""", "train_batch_size_tokens is 4096 in topk-k1 but 64 in topk-k2-train-batch-size-tokens64; runs of a sweep share every batch of activations")]
    [InlineData("""{ "runs": [ { "k": 1 }, { "k": 1 } ] }""", "runs 1 and 2 are both called topk; give them a \"name\"")]
    [InlineData("""{ "runs": [ { "k": 1 }, { "k": 2, "shuffle": false } ] }""", "shuffle is true in topk-k1 but false in topk-k2-shufflefalse")]
    [InlineData("""{ "runs": [ { "k": 1 }, { "k": 2, "data_seed": 3 } ] }""", "run 2: data_seed is the sweep's, not a run's; put it into base")]
    [InlineData("""{ "base": {} }""", "nothing to run")]
    [InlineData("""{ "runs": 3 }""", "\"runs\" is not a list")]
    [InlineData("""{ "grid": { "k": 3 } }""", "grid: \"k\" is not a list of values")]
    [InlineData("""{ "rums": [] }""", "field \"rums\" is not known; a sweep has base, runs, grid and output_path")]
    [InlineData("""{ "runs": [ { "kk": 1 } ] }""", "run 1: field \"kk\" is not known")]
    [InlineData("""{ "runs": [ { "k": 1, "lr": -1 } ] }""", "run 1: lr: -1 is not a positive number")]
    [InlineData("""{ "runs": [ { "k": 1, "name": "a/b" } ] }""", "a run cannot be called \"a/b\"")]
    [InlineData("""{ "runs": [ { "k": 1, "e2e_loss": "kl" } ] }""", "run 1: e2e_loss: end-to-end training takes whole contexts")]
    public void What_cannot_be_shared_is_refused(string json, string message)
    {
        var parsed = JsonNode.Parse(json)!.AsObject();
        parsed["base"] ??= new JsonObject { ["activations"] = Ilgpusae.Activations(_temp, "acts.safetensors", 100, 8), ["d_sae"] = 16, ["training_tokens"] = 8192 };
        Assert.Contains(message, Ilgpusae.Fail(2, "train", "--sweep", _temp.Write("s.json", parsed.ToJsonString()), "--output-path", _temp["out"]), StringComparison.Ordinal);
        Assert.False(Directory.Exists(_temp["out"]));
    }

    /// <summary>Trains a sweep, then each run by itself from the settings its folder holds.</summary>
    private void SameAsAlone(JsonObject common, params string[] runs)
    {
        var id = Guid.NewGuid().ToString("N")[..6];
        var sweep = new JsonObject { ["base"] = common.DeepClone(), ["runs"] = new JsonArray([.. runs.Select(r => JsonNode.Parse(r))]) };
        Ilgpusae.Succeed("train", "--sweep", _temp.Write($"s{id}.json", sweep.ToJsonString()), "--output-path", _temp[id], "--quiet");
        var rows = JsonNode.Parse(File.ReadAllText(Path.Combine(_temp[id], "results.json")))!["runs"]!.AsArray();
        Assert.Equal(runs.Length, rows.Count);
        foreach (var row in rows)
        {
            var name = row!["name"]!.GetValue<string>();
            var together = Path.Combine(_temp[id], name);
            var alone = _temp[$"{id}-{name}"];
            Ilgpusae.Succeed("train", "--config", Path.Combine(together, SaeLensFolder.RunnerConfigFile), "--output-path", alone, "--json", alone + ".json", "--quiet");
            foreach (var file in new[] { "sae_weights.safetensors", "sparsity.safetensors", "cfg.json", "training/sae_weights.safetensors" })
                Assert.True(File.ReadAllBytes(Path.Combine(together, file)).AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(alone, file))), $"{name}: {file} differs");
            var metrics = JsonNode.Parse(File.ReadAllText(alone + ".json"))!["metrics"]!;
            Assert.Equal(metrics["reconstruction_quality"]!["explained_variance"]!.GetValue<double>(), row["explained_variance"]!.GetValue<double>());
            if (row["ce_loss_score"] is { } score) Assert.Equal(metrics["model_performance_preservation"]!["ce_loss_score"]!.GetValue<double>(), score.GetValue<double>());
        }
    }
}
