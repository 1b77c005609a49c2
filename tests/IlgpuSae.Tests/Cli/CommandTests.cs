using System.Text.Json.Nodes;
using IlgpuSae.Cli;
using IlgpuSae.Files;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using IlgpuSae.Tests.Models;
using IlgpuSae.Tests.Tokenizers;
using Xunit;

namespace IlgpuSae.Tests.Cli;

/// <summary>Every verb does its work through the program's own entry point.</summary>
public sealed class CommandTests : IDisposable
{
    private readonly TempFolder _temp = new();
    private readonly List<TempFolder> _folders = [];
    private readonly CpuDevice _device = new(1);

    private static string Model => Golden.FolderOf("eval", "gpt2_resid_standard", "model");

    private static string Sae => Golden.FolderOf("eval", "gpt2_resid_standard", "sae");

    public void Dispose()
    {
        foreach (var folder in _folders) folder.Dispose();
        _device.Dispose();
        _temp.Dispose();
    }

    [Fact]
    public void Train_on_the_synthetic_source_finds_its_features()
    {
        var output = Ilgpusae.Succeed("train", "--d-in", "16", "--n-true", "24", "--mean-active", "2", "--training-tokens", "120000", "--train-batch-size-tokens", "256",
            "--lr-decay-steps", "100", "--output-path", _temp["sae"], "--json", _temp["r.json"], "--quiet");
        var json = JsonNode.Parse(File.ReadAllText(_temp["r.json"]))!;
        Assert.Equal(24, json["recovery"]!["true_features"]!.GetValue<int>());
        Assert.True(json["recovery"]!["found"]!.GetValue<int>() >= 20, output);
        Assert.True(json["metrics"]!["reconstruction_quality"]!["explained_variance"]!.GetValue<double>() > 0.7, output);
        Assert.Equal(3.0, json["metrics"]!["sparsity"]!["l0"]!.GetValue<double>(), 0.2);
        Assert.Contains("true features", output, StringComparison.Ordinal);
        Assert.Contains($"saved {_temp["sae"]}", output, StringComparison.Ordinal);
        var runner = SaeLensFolder.ReadRunnerConfig(_temp["sae"])!;
        Assert.Equal(120000, runner["training_tokens"]!.GetValue<long>());
        Assert.Equal("topk", runner["sae"]!["architecture"]!.GetValue<string>());
        Assert.Contains("topk, 48 features of 16 dimensions", Ilgpusae.Succeed("sae", "inspect", "--sae", _temp["sae"]), StringComparison.Ordinal);
    }

    [Fact]
    public void A_run_can_be_repeated_from_its_own_runner_configuration()
    {
        var acts = Ilgpusae.Activations(_temp, "a.safetensors", 64, 8);
        Ilgpusae.Succeed("train", "--activations", acts, "--architecture", "standard", "--d-sae", "24", "--l1-coefficient", "0.3", "--training-tokens", "256",
            "--train-batch-size-tokens", "32", "--output-path", _temp["a"], "--quiet");
        Ilgpusae.Succeed("train", "--config", Path.Combine(_temp["a"], "runner_cfg.json"), "--output-path", _temp["b"], "--quiet");
        Assert.Equal(File.ReadAllBytes(Path.Combine(_temp["a"], "sae_weights.safetensors")), File.ReadAllBytes(Path.Combine(_temp["b"], "sae_weights.safetensors")));
    }

    [Fact]
    public void Train_on_text_reads_packs_mixes_and_judges()
    {
        var model = TextModel();
        Directory.CreateDirectory(_temp["texts"]);
        foreach (var i in Enumerable.Range(0, 3)) File.WriteAllText(Path.Combine(_temp["texts"], $"{i}.txt"), string.Concat(Enumerable.Repeat($"the a's {i} éclair the 12, ", 12)));
        var output = Ilgpusae.Succeed("train", "--model", model.Path, "--hook-name", "blocks.1.hook_resid_pre", "--text", _temp["texts"], "--context-size", "16",
            "--exclude-special-tokens", "true", "--k", "4", "--training-tokens", "512", "--train-batch-size-tokens", "64", "--n-batches-in-buffer", "2", "--store-batch-size-prompts", "4",
            "--n-eval-batches", "2", "--output-path", _temp["sae"]);
        Assert.Contains("CE loss score", output, StringComparison.Ordinal);
        Assert.Contains("data read again", output, StringComparison.Ordinal);
        var metadata = SaeLensFolder.ReadConfig(_temp["sae"]).Metadata;
        Assert.Equal("blocks.1.hook_resid_pre", metadata.Get<string>("hook_name"));
        Assert.Equal(16, metadata.Get<int>("context_size"));
        // Everything else follows from the metadata.
        Ilgpusae.Succeed("eval", "--sae", _temp["sae"], "--model", model.Path, "--text", _temp["texts"], "--json", _temp["e.json"], "--quiet",
            "--n-eval-reconstruction-batches", "1", "--n-eval-sparsity-variance-batches", "1", "--batch-size-prompts", "4");
        var json = JsonNode.Parse(File.ReadAllText(_temp["e.json"]))!;
        Assert.Equal(4.0, json["metrics"]!["sparsity"]!["l0"]!.GetValue<double>(), 0.5);
        Assert.Equal(64, json["metrics"]!["token_stats"]!["total_tokens_eval_reconstruction"]!.GetValue<int>());
        Assert.True(json["metrics"]!["token_stats"]!["kept_tokens"]!.GetValue<int>() < 64);
    }

    [Fact]
    public void Eval_gives_the_golden_numbers()
    {
        var golden = Golden.Open("eval", "gpt2_resid_topk_masked");
        Ilgpusae.Succeed("eval", "--sae", golden.PathOf("sae"), "--model", golden.PathOf("model"), "--tokens", golden.PathOf("inputs.safetensors"), "--exclude-special-tokens", "0,5",
            "--batch-size-prompts", "4", "--n-eval-reconstruction-batches", "null", "--n-eval-sparsity-variance-batches", "null", "--json", _temp["e.json"], "--quiet");
        var metrics = JsonNode.Parse(File.ReadAllText(_temp["e.json"]))!["metrics"]!;
        Near(golden, golden.Case.GetProperty("conventional").GetProperty("explained_variance").GetDouble(), metrics["reconstruction_quality"]!["explained_variance"]!);
        Near(golden, golden.Case.GetProperty("metrics").GetProperty("model_performance_preservation").GetProperty("ce_loss_score").GetDouble(), metrics["model_performance_preservation"]!["ce_loss_score"]!);
        Assert.Equal(216, metrics["token_stats"]!["total_tokens_eval_reconstruction"]!.GetValue<int>());
    }

    [Fact]
    public void Activations_are_TransformerLens()
    {
        var golden = Golden.Open("lm", "gpt2_tiny");
        Ilgpusae.Succeed("activations", "--model", golden.PathOf("model"), "--tokens", golden.PathOf("inputs.safetensors"), "--hooks", "blocks.*.hook_resid_post,blocks.0.attn.hook_z",
            "--output", _temp["o.safetensors"], "--store-batch-size-prompts", "1", "--quiet");
        using var file = SafetensorsFile.Open(_temp["o.safetensors"]);
        Assert.Equal(["blocks.0.attn.hook_z", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post", "blocks.2.hook_resid_post", "logits", "tokens"], file.Names.Order(StringComparer.Ordinal));
        var expected = golden.Floats("expected.safetensors");
        foreach (var name in file.Names.Where(n => n != "tokens")) golden.Close(name, file.ReadFloat32(name), expected[expected.ContainsKey(name) ? name : "cache." + name]);
    }

    [Theory]
    [InlineData("topk")]
    [InlineData("standard_hook_z")]
    public void Encode_is_SAELens_sparse_and_dense(string name)
    {
        var golden = Golden.Open("sae", name);
        string[] common = ["encode", "--sae", golden.PathOf("sae"), "--input", golden.PathOf("inputs.safetensors"), "--batch-size", "3", "--quiet", "--output"];
        Ilgpusae.Succeed([.. common, _temp["s.safetensors"]]);
        Ilgpusae.Succeed([.. common, _temp["d.safetensors"], "--dense"]);
        var expected = golden.Floats("expected.safetensors");
        using SafetensorsFile dense = SafetensorsFile.Open(_temp["d.safetensors"]), sparse = SafetensorsFile.Open(_temp["s.safetensors"]);
        golden.Close("features", dense.ReadFloat32("features"), expected["feature_acts"]);
        golden.Close("reconstruction", dense.ReadFloat32("reconstruction"), expected["forward"]);
        Assert.Equal(dense.ReadFloat32("reconstruction"), sparse.ReadFloat32("reconstruction"));
        var (offsets, indices, values) = (sparse.ReadInt32("features.row_offsets"), sparse.ReadInt32("features.indices"), sparse.ReadFloat32("features.values"));
        var rebuilt = new float[dense["features"].Count];
        var width = (int)dense["features"].Shape[^1];
        for (var r = 0; r + 1 < offsets.Length; r++)
            for (var e = offsets[r]; e < offsets[r + 1]; e++) rebuilt[(r * width) + indices[e]] = values[e];
        Assert.Equal(dense.ReadFloat32("features"), rebuilt);
    }

    [Fact]
    public void Generate_continues_a_text_the_same_way_every_time()
    {
        var model = TextModel();
        string[] line = ["generate", "--model", model.Path, "--prompt", "the a's", "--max-new-tokens", "8", "--temperature", "1", "--seed", "3", "--json", _temp["g.json"]];
        var text = Ilgpusae.Succeed(line);
        Assert.StartsWith("the a's", text, StringComparison.Ordinal);
        Assert.Equal(text, Ilgpusae.Succeed(line));
        var json = JsonNode.Parse(File.ReadAllText(_temp["g.json"]))!;
        Assert.InRange(json["tokens"]!.AsArray().Count - json["prompt_tokens"]!.GetValue<int>(), 1, 8);
    }

    [Fact]
    public void Model_inspect_lists_hooks_and_checks_weights()
    {
        var output = Ilgpusae.Succeed("model", "inspect", "--model", Model, "--check", "--quiet");
        Assert.Contains("GPT2LMHeadModel", output, StringComparison.Ordinal);
        Assert.Contains("blocks.0.attn.hook_pattern", output, StringComparison.Ordinal);
        Assert.Contains("weights: complete", output, StringComparison.Ordinal);
    }

    [Fact]
    public void Sae_inspect_shows_settings_and_weights()
    {
        Ilgpusae.Succeed("sae", "inspect", "--sae", Sae, "--json", _temp["s.json"]);
        var json = JsonNode.Parse(File.ReadAllText(_temp["s.json"]))!;
        Assert.Equal(96, json["cfg"]!["d_sae"]!.GetValue<int>());
        Assert.Equal([96, 32], json["weights"]!["W_dec"]!["shape"]!.AsArray().Select(d => d!.GetValue<int>()));
    }

    [Fact]
    public void An_interrupted_run_saves_what_it_has_and_says_how_to_go_on()
    {
        var acts = Ilgpusae.Activations(_temp, "a.safetensors", 64, 8);
        using var interrupt = new CancellationTokenSource();
        using var watcher = new Timer(_ => { if (File.Exists(_temp["m.jsonl.partial"]) && new FileInfo(_temp["m.jsonl.partial"]).Length > 1000) interrupt.Cancel(); }, null, 10, 10);
        var (code, _, error) = Ilgpusae.Run(interrupt.Token, "train", "--activations", acts, "--k", "2", "--training-tokens", "2000000000", "--train-batch-size-tokens", "64",
            "--output-path", _temp["out"], "--metrics", _temp["m.jsonl"], "--quiet");
        Assert.Equal(130, code);
        Assert.Contains("interrupted: stopped after ", error, StringComparison.Ordinal);
        Assert.Contains($"go on with --init-from {_temp["out"]}", error, StringComparison.Ordinal);
        SaeLensFolder.LoadForTraining(Path.Combine(_temp["out"], "training"), _device).Dispose();
        Assert.Equal(["a.safetensors", "m.jsonl", "out"], _temp.List());
    }

    [Fact]
    public void Help_lists_every_verb_and_every_option_with_its_default()
    {
        var all = Ilgpusae.Succeed("--help");
        foreach (var (about, type) in CommandLine.Verbs())
        {
            Assert.Contains(about.Words, all, StringComparison.Ordinal);
            var help = Ilgpusae.Succeed([.. about.Words.Split(' '), "--help"]);
            foreach (var option in ((Verb)Activator.CreateInstance(type)!).Groups.SelectMany(g => g.Options)) Assert.Contains(option.Name, help, StringComparison.Ordinal);
            Assert.All(help.Split('\n').Where(l => !l.StartsWith("  ilgpusae", StringComparison.Ordinal)), line => Assert.True(line.Length <= 120, line));
        }

        var train = Ilgpusae.Succeed("train", "--help");
        foreach (var part in new[] { "--l1-coefficient X", "--k N", "[0.0003]", "Data:", "Training:", "SAE: abstopk, batchtopk, matryoshka_batchtopk, topk:", "SAE: jumprelu:", "Examples:" }) Assert.Contains(part, train, StringComparison.Ordinal);
    }

    [Fact]
    public void The_documented_options_are_those_the_program_has()
    {
        var text = new System.Text.StringBuilder("# Options of the command line\n\nWritten by the program itself (`--help`). To renew this page, run the tests with `UPDATE_DOCS=1`.\n");
        foreach (var (about, _) in CommandLine.Verbs())
            text.Append(System.Globalization.CultureInfo.InvariantCulture, $"\n## {about.Words}\n\n```text\n{Ilgpusae.Succeed([.. about.Words.Split(' '), "--help"])}```\n");
        var path = Path.Combine(Golden.FolderOf(), "..", "..", "docs", "cli-options.md");
        if (Environment.GetEnvironmentVariable("UPDATE_DOCS") == "1") File.WriteAllText(path, text.ToString());
        Assert.Equal(text.ToString(), File.ReadAllText(path));
    }

    [Fact]
    public void Every_verb_lies_in_a_file_of_its_own_and_has_options_with_descriptions()
    {
        foreach (var (_, type) in CommandLine.Verbs())
        {
            Assert.Equal("IlgpuSae.Cli.Verbs", type.Namespace);
            foreach (var option in ((Verb)Activator.CreateInstance(type)!).Groups.SelectMany(g => g.Options))
                Assert.False(string.IsNullOrWhiteSpace(option.Description), $"{type.Name} {option.Name}");
        }
    }

    private static void Near(Golden golden, double expected, JsonNode actual) =>
        Assert.True(Math.Abs(actual.GetValue<double>() - expected) <= golden.Abs + (golden.Rel * Math.Abs(expected)), $"{actual} instead of {expected}");

    /// <summary>A tiny GPT-2 with a tokenizer that reads any text.</summary>
    private TempFolder TextModel()
    {
        var checkpoint = Checkpoint.Of("gpt2_tiny");
        var name = checkpoint.Tensors.Keys.Single(k => k.EndsWith("wte.weight", StringComparison.Ordinal));
        checkpoint.Set(name, [TinyBpe.EndOfText + 1, checkpoint.Tensors[name].Shape[1]], i => MathF.Sin(i * 1.3f));
        checkpoint.Config["vocab_size"] = TinyBpe.EndOfText + 1;
        var folder = new TempFolder();
        _folders.Add(folder);
        checkpoint.Save(folder);
        TinyBpe.WriteFolder(folder);
        return folder;
    }
}
