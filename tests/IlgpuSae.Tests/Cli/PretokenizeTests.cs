using System.Text.Json.Nodes;
using IlgpuSae.Activations;
using IlgpuSae.Datasets;
using IlgpuSae.Tests.Tokenizers;
using Xunit;

namespace IlgpuSae.Tests.Cli;

/// <summary>ilgpusae pretokenize.</summary>
public sealed class PretokenizeTests : IDisposable
{
    private readonly TempFolder _temp = new();

    public PretokenizeTests()
    {
        TinyBpe.WriteFolder(_temp);
        _temp.Write("d.jsonl", string.Join('\n', Enumerable.Range(0, 300).Select(i => $"{{\"text\": \"the {i} a the\"}}")));
    }

    public void Dispose() => _temp.Dispose();

    [Fact]
    public void Contexts_are_written_for_saelens_for_hugging_face_and_for_us()
    {
        Ilgpusae.Succeed("pretokenize", "--tokenizer-name", _temp.Path, "--dataset-path", _temp["d.jsonl"], "--context-size", "16", "--shuffle", "false", "--save-path", _temp["out"], "--json", _temp["r.json"]);
        Assert.Equal(["data-00000-of-00001.arrow", "dataset_info.json", "sae_lens.json", "state.json", "tokens.safetensors"], Directory.EnumerateFiles(_temp["out"]).Select(Path.GetFileName).Order(StringComparer.Ordinal)!);
        using var direct = new DatasetTokenSource([new(Dataset.Open(_temp["d.jsonl"]))], IlgpuSae.Tokenizers.Tokenizer.Load(_temp.Path), new() { ContextSize = 16, BeginBatchToken = TinyBpe.EndOfText, SequenceSeparatorToken = TinyBpe.EndOfText });
        var expected = direct.Contexts().ToList();
        Assert.Equal(expected, Dataset.Open(_temp["out"]).Rows().Select(r => r.Row.Tokens!));
        using var file = new TokenFileSource(_temp["out/tokens.safetensors"]);
        Assert.Equal(expected, file.Contexts());
        var about = JsonNode.Parse(File.ReadAllText(_temp["out/sae_lens.json"]))!;
        Assert.Equal((16, false, "bos", "d.jsonl"), ((int)about["context_size"]!, (bool)about["shuffled"]!, (string)about["begin_batch_token"]!, (string)about["original_dataset"]!));
        Assert.Equal(14, about.AsObject().Count);
        Assert.Equal(expected.Count, (int)JsonNode.Parse(File.ReadAllText(_temp["r.json"]))!["contexts"]!);
        Assert.Contains("no such", Ilgpusae.Fail(2, "pretokenize", "--tokenizer-name", _temp.Path, "--dataset-path", _temp["none"], "--save-path", _temp["x"]), StringComparison.Ordinal);
        Assert.False(Directory.Exists(_temp["x"]));
    }

    [Fact]
    public void Shuffling_keeps_every_context_and_is_the_same_each_time()
    {
        int[][] Run(string name, params string[] more)
        {
            Ilgpusae.Succeed(["pretokenize", "--tokenizer-name", _temp.Path, "--dataset-path", _temp["d.jsonl"], "--context-size", "16", "--save-path", _temp[name], .. more]);
            return [.. Dataset.Open(_temp[name]).Rows().Select(r => r.Row.Tokens!)];
        }

        var plain = Run("plain", "--shuffle", "false");
        var mixed = Run("mixed");
        Assert.NotEqual(plain, mixed);
        Assert.Equal(plain.Select(c => string.Join(',', c)).Order(StringComparer.Ordinal), mixed.Select(c => string.Join(',', c)).Order(StringComparer.Ordinal));
        Run("again");
        foreach (var name in (string[])["tokens.safetensors", "data-00000-of-00001.arrow", "state.json"])
            Assert.Equal(File.ReadAllBytes(Path.Combine(_temp["mixed"], name)), File.ReadAllBytes(Path.Combine(_temp["again"], name)));
        Assert.NotEqual(mixed, Run("other", "--seed", "7"));
    }
}
