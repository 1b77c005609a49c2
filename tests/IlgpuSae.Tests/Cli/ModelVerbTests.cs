using System.Text.Json.Nodes;
using IlgpuSae.Tests.Models;
using IlgpuSae.Tests.Tokenizers;
using Xunit;

namespace IlgpuSae.Tests.Cli;

/// <summary>Verbs that run models: generate, activations, model list.</summary>
public sealed class ModelVerbTests : IDisposable
{
    private readonly TempFolder _temp = new();

    public void Dispose() => _temp.Dispose();

    [Fact]
    public void Generate_continues_a_file_of_prompts_as_it_continues_each()
    {
        var model = TextModel();
        File.WriteAllText(_temp["prompts.txt"], "the a's\n\na\n");
        string[] how = ["generate", "--model", model, "--max-new-tokens", "6", "--repetition-penalty", "1.5", "--frequency-penalty", "0.1", "--json", _temp["g.json"]];
        Ilgpusae.Succeed([.. how, "--prompts", _temp["prompts.txt"]]);
        var results = JsonNode.Parse(File.ReadAllText(_temp["g.json"]))!["results"]!.AsArray();
        Assert.Equal(2, results.Count);
        foreach (var (prompt, result) in new[] { "the a's", "a" }.Zip(results))
        {
            Ilgpusae.Succeed([.. how, "--prompt", prompt]);
            var alone = JsonNode.Parse(File.ReadAllText(_temp["g.json"]))!;
            Assert.Equal(alone.ToJsonString(), result!.ToJsonString());
            Assert.Equal("Length", (string?)alone["finished"]);
        }
    }

    [Fact]
    public void Generate_ends_before_a_stop_string_and_at_the_end_of_the_context()
    {
        var model = TextModel();
        string[] how = ["generate", "--model", model, "--prompt", "the a's", "--json", _temp["g.json"]];
        var text = Ilgpusae.Succeed([.. how, "--overflow", "stop", "--max-new-tokens", "500", "--ignore-eos"]);
        var json = JsonNode.Parse(File.ReadAllText(_temp["g.json"]))!;
        Assert.Equal("ContextFull", (string?)json["finished"]);
        Assert.Equal(32, json["tokens"]!.AsArray().Count);
        var fresh = text["the a's".Length..].TrimEnd('\n');
        Assert.True(fresh.Length > 3);
        // Any two characters of what it says.
        var stopped = Ilgpusae.Succeed([.. how, "--max-new-tokens", "20", "--ignore-eos", "--stop", "never", "--stop", fresh[1..3]]);
        Assert.Equal("the a's" + fresh[..fresh.IndexOf(fresh[1..3], StringComparison.Ordinal)], stopped.TrimEnd('\n'));
        Assert.Equal("StopString", (string?)JsonNode.Parse(File.ReadAllText(_temp["g.json"]))!["finished"]);
    }

    [Theory]
    [InlineData("error: overflow \"wrap\" is not known; known: refuse, stop, slide", "--overflow", "wrap")]
    [InlineData("error: dtype \"int8\" is not known; known: auto (as stored), float32, float16, bfloat16", "--dtype", "int8")]
    [InlineData("error: generate: repetition penalty is -1, expected more than 0 (1: none)", "--repetition-penalty", "-1")]
    [InlineData("error: generate: 3 prompt tokens and 40 new ones exceed the context of 32 (n_ctx); ask for at most 29 new tokens", "--no-bos", "--max-new-tokens", "40")]
    public void Generate_refuses_what_it_cannot_do(string message, params string[] options) =>
        Assert.Equal(message, Ilgpusae.Fail(2, ["generate", "--model", TextModel(), "--prompt", "the a's", .. options]));

    [Fact]
    public void A_file_without_prompts_is_refused()
    {
        File.WriteAllText(_temp["none.txt"], "\n \n");
        Assert.Equal($"error: {_temp["none.txt"]}: holds no prompt; give one a line", Ilgpusae.Fail(2, "generate", "--model", TextModel(), "--prompts", _temp["none.txt"]));
    }

    [Fact]
    public void Weights_in_other_types_and_in_their_files_give_text_too()
    {
        var model = TextModel();
        string[] how = ["generate", "--model", model, "--prompt", "the a's", "--max-new-tokens", "6"];
        var plain = Ilgpusae.Succeed(how);
        Assert.Equal(plain, Ilgpusae.Succeed([.. how, "--map-weights"]));
        Assert.StartsWith("the a's", Ilgpusae.Succeed([.. how, "--dtype", "bfloat16"]), StringComparison.Ordinal);
    }

    [Fact]
    public void Model_list_shows_names_hub_ids_and_sizes()
    {
        var text = Ilgpusae.Succeed("model", "list", "--match", "pythia-70m-deduped", "--json", _temp["m.json"]);
        Assert.Contains("EleutherAI/pythia-70m-deduped", text, StringComparison.Ordinal);
        Assert.Contains("GPTNeoXForCausalLM, 70 M, 6 layers, d_model 512, 8 heads", text, StringComparison.Ordinal);
        var models = JsonNode.Parse(File.ReadAllText(_temp["m.json"]))!["models"]!.AsArray();
        Assert.Equal(["pythia-70m-deduped", "pythia-70m-deduped-v0"], models.Select(m => (string?)m!["name"]));
        Assert.Equal(70426624, (long)models[0]!["n_params"]!);
    }

    /// <summary>A tiny GPT-2 with a tokenizer that reads any text.</summary>
    private string TextModel()
    {
        var checkpoint = Checkpoint.Of("gpt2_tiny");
        var name = checkpoint.Tensors.Keys.Single(k => k.EndsWith("wte.weight", StringComparison.Ordinal));
        // Letters only, so that what it says is text: other rows have no length.
        checkpoint.Set(name, [TinyBpe.EndOfText + 1, 32], i => i / 32 is >= 64 and < 90 ? MathF.Sin((i * 1.3f) + (i * i % 7)) : 0);
        checkpoint.Config["vocab_size"] = TinyBpe.EndOfText + 1;
        checkpoint.Save(_temp);
        TinyBpe.WriteFolder(_temp);
        return _temp.Path;
    }
}
