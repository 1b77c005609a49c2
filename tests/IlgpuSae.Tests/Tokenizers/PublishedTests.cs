using System.Text.Json.Nodes;
using IlgpuSae.Tokenizers;
using Xunit;
using static IlgpuSae.Tests.Tokenizers.TinyBpe;

namespace IlgpuSae.Tests.Tokenizers;

/// <summary>Tokenizer files laid out as the published models have them, and TransformerLens' ways of asking.</summary>
public sealed class PublishedTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Opt_begins_with_its_end_of_text()
    {
        var v = Vocabulary();
        foreach (var (piece, id) in new[] { ("<s>", 264), ("<pad>", 265), ("</s>", 266), ("<unk>", 267) }) v[piece] = id;
        _folder.Write("vocab.json", v.ToJsonString());
        _folder.Write("merges.txt", string.Join('\n', TinyBpe.Merges.Select(m => $"{m.Left} {m.Right}")));
        _folder.Write("tokenizer_config.json", """{"errors": "replace", "unk_token": {"content": "</s>"}, "bos_token": {"content": "</s>"}, "eos_token": {"content": "</s>"}, "pad_token": {"content": "<pad>"}, "add_prefix_space": false, "add_bos_token": true, "tokenizer_class": "GPT2Tokenizer"}""");
        var t = Tokenizer.Load(_folder.Path);
        Assert.Equal([266, The, SpaceA], t.Encode("the a"));
        Assert.Equal((266, 266, 265), (t.BosToken, t.EosToken, t.PadToken));
    }

    [Fact]
    public void Pythia_normalizes_and_has_runs_of_spaces_as_added_tokens()
    {
        var json = Json();
        json["normalizer"] = new JsonObject { ["type"] = "NFC" };
        foreach (var n in new[] { 4, 2, 3 }) json["added_tokens"]!.AsArray().Add(new JsonObject { ["id"] = 270 + n, ["content"] = new string(' ', n), ["special"] = false, ["normalized"] = true });
        Assert.Equal([The, 274, 273, 'x', ' '], Load(_folder, json).Encode("the       x "));
    }

    [Fact]
    public void Qwen2_and_llama_3_cut_digits_differently()
    {
        var json = Json();
        json["normalizer"] = new JsonObject { ["type"] = "NFC" };
        json["pre_tokenizer"] = Split(Cl100kSplitter.Pattern1);
        Assert.Equal(['1', '2', ' ', '1', EAcute], Load(_folder, json).Encode("12 1e\u0301"));
        json["pre_tokenizer"] = Split(Cl100kSplitter.Pattern3);
        Assert.Equal([OneTwo, '3', OneTwo, '3', '4'], Load(_folder, json).Encode("1231234"));
    }

    [Fact]
    public void A_batch_is_filled_up_on_either_side()
    {
        WriteFolder(_folder);
        var t = Tokenizer.Load(_folder.Path);
        var right = t.ToTokens(["the", "the cat", ""]);
        Assert.Equal([EndOfText, The, EndOfText, EndOfText, EndOfText, EndOfText, EndOfText, The, ' ', 'c', 'a', 't', EndOfText, EndOfText, EndOfText, EndOfText, EndOfText, EndOfText], right.Ids);
        Assert.Equal((3, 6), (right.Rows, right.Length));
        Assert.Equal([2, 6, 1], right.Lengths);
        Assert.True(right.IsText(0, 1) && !right.IsText(0, 2));
        var left = t.ToTokens(["the", "the cat"], prependBos: false, PaddingSide.Left, maxLength: 3);
        Assert.Equal([EndOfText, EndOfText, The, The, ' ', 'c'], left.Ids);
        Assert.True(left.IsText(0, 2) && !left.IsText(0, 1));
        Assert.Equal("a batch of tokens needs at least one text", Assert.Throws<InvalidInputException>(() => t.ToTokens([])).Message);
    }

    [Fact]
    public void A_batch_without_a_token_to_fill_up_with_is_refused()
    {
        var json = Json();
        json["added_tokens"] = new JsonArray();
        var t = Load(_folder, json);
        Assert.Equal([The, SpaceA], t.ToTokens(["the", " a"], prependBos: false).Ids);
        Assert.Equal("the texts have different lengths, and the tokenizer has no PAD, EOS or BOS token to fill up with; name one in tokenizer_config.json", Assert.Throws<InvalidInputException>(() => t.ToTokens(["the", ""], prependBos: false)).Message);
    }

    [Fact]
    public void Tokens_are_shown_and_looked_up_as_transformer_lens_does()
    {
        WriteFolder(_folder);
        var t = Tokenizer.Load(_folder.Path);
        Assert.Equal(["<|endoftext|>", "the", " a", "\uFFFD", "\uFFFD", "\uFFFD"], t.ToStringTokens("the a€"));
        Assert.Equal(SpaceThe, t.ToSingleToken(" the"));
        Assert.Equal("\"the a\" is 2 tokens (\"the\", \" a\"), expected exactly one; mind the space that begins most words' tokens", Assert.Throws<InvalidInputException>(() => t.ToSingleToken("the a")).Message);
        Assert.Throws<InvalidInputException>(() => t.ToSingleToken(""));
    }

    [Fact]
    public void Gpt2_gives_the_published_ids()
    {
        // GPT-2's vocabulary is too large to be here; where it lies is said by an environment variable.
        var folder = Environment.GetEnvironmentVariable("ILGPUSAE_GPT2_TOKENIZER");
        Assert.SkipUnless(folder is not null, "ILGPUSAE_GPT2_TOKENIZER does not name a folder with GPT-2's vocab.json and merges.txt");
        var t = Tokenizer.Load(folder!);
        Assert.Equal([15496, 995], t.Encode("Hello world"));
        Assert.Equal([6342], t.Encode(" Paris"));
        Assert.Equal(6342, t.ToSingleToken(" Paris"));
        Assert.Equal([464, 3139, 286, 4881, 318], t.Encode("The capital of France is"));
        Assert.Equal([50256, 464], t.ToTokens("The"));
        Assert.Equal([87, 50256, 88], t.Encode("x<|endoftext|>y"));
        Assert.Equal([220, 734, 220, 9029, 220], t.Encode("  two  spaces "));
    }
}
