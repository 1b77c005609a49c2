using System.Text.Json.Nodes;
using IlgpuSae.Tokenizers;
using Xunit;
using static IlgpuSae.Tests.Tokenizers.TinyBpe;

namespace IlgpuSae.Tests.Tokenizers;

public sealed class ByteLevelTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Vocab_and_merges_encode_and_decode()
    {
        WriteFolder(_folder);
        var t = Tokenizer.Load(_folder.Path);
        Assert.Equal([The, SpaceThe, ' ', 'c', 'a', 't', ApostropheS], t.Encode("the the cat's"));
        Assert.Equal([OneTwo, '3', SpaceA, EAcute], t.Encode("123 aé"));
        Assert.Equal("the the cat's", t.Decode([The, SpaceThe, ' ', 'c', 'a', 't', ApostropheS]));
        Assert.Equal(265, t.VocabularySize);
        Assert.Equal((EndOfText, EndOfText, EndOfText), (t.BosToken, t.EosToken, t.UnkToken));
        Assert.Null(t.PadToken);
        Assert.False(t.AddsBos);
        Assert.Equal((SpaceThe, "Ġthe"), (t.Id("Ġthe"), t.Piece(SpaceThe)));
        Assert.Null(t.Id("no such token"));
    }

    [Fact]
    public void Bos_comes_first_when_asked_for()
    {
        WriteFolder(_folder);
        var t = Tokenizer.Load(_folder.Path);
        Assert.Equal([EndOfText, The], t.Encode("the", addBos: true));
        Assert.Equal([EndOfText], t.Encode("", addBos: true));
        Assert.Empty(t.Encode(""));
        Assert.Equal("<|endoftext|>the", t.Decode([EndOfText, The]));
        Assert.Equal("the", t.Decode([EndOfText, The], skipSpecial: true));
        Assert.True(t.IsSpecial(EndOfText));
    }

    [Fact]
    public void Special_tokens_in_the_text_are_found_longest_first()
    {
        WriteFolder(_folder);
        _folder.Write("added_tokens.json", """{"<a>": 265, "<a><b>": 266}""");
        var t = Tokenizer.Load(_folder.Path);
        Assert.Equal(['x', EndOfText, 'y'], t.Encode("x<|endoftext|>y"));
        Assert.Equal([266, 265, '<', 'x', '>'], t.Encode("<a><b><a><x>"));
        Assert.Equal(["<a><b>", "<a>"], new[] { t.TokenString(266), t.TokenString(265) });
    }

    [Fact]
    public void Parts_of_characters_show_as_replacement_characters()
    {
        WriteFolder(_folder);
        var t = Tokenizer.Load(_folder.Path);
        var euro = t.Encode("€");
        Assert.Equal([0xE2, 0x82, 0xAC], euro);
        Assert.Equal(["\uFFFD", "\uFFFD", "\uFFFD"], euro.Select(t.TokenString));
        Assert.Equal("€", t.Decode(euro));
        Assert.Equal(" the", t.TokenString(SpaceThe));
        Assert.Equal([0xEF, 0xBF, 0xBD], t.Encode("\ud800"));
        Assert.Equal(['a', 0xEF, 0xBF, 0xBD, 'b'], t.Encode("a\udc00b"));
        Assert.Equal("", t.TokenString(9999)); // a padding row of a model has no text
        Assert.Equal("token -1 is out of range; the vocabulary has 0..264", Assert.Throws<InvalidInputException>(() => t.Decode([-1])).Message);
    }

    [Fact]
    public void Streams_hold_back_unfinished_characters()
    {
        WriteFolder(_folder);
        var t = Tokenizer.Load(_folder.Path);
        var stream = new StreamingDecoder(t);
        Assert.Equal(["a", "", "", "€", " the", "", ""], new[] { 'a', 0xE2, 0x82, 0xAC, SpaceThe, EndOfText, 0xE2 }.Select(stream.Add));
        Assert.Equal("\uFFFD", stream.End());
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Tokenizer_json_takes_merges_in_both_shapes(bool pairs)
    {
        var t = Load(_folder, Json(pairs));
        Assert.Equal([The, SpaceThe, ' ', 'c', 'a', 't', ApostropheS, EndOfText], t.Encode("the the cat's<|endoftext|>"));
        Assert.Null(t.BosToken);
        Assert.Equal("the tokenizer has no BOS token; encode without one, or name one in tokenizer_config.json", Assert.Throws<InvalidInputException>(() => t.Encode("x", addBos: true)).Message);
    }

    [Fact]
    public void A_prefix_space_is_put_before_each_stretch_of_text()
    {
        var json = Json();
        json["pre_tokenizer"] = ByteLevelStage(regex: true, prefix: true);
        Assert.Equal([SpaceThe, EndOfText, SpaceA, SpaceThe], Load(_folder, json).Encode("the<|endoftext|>a the"));
    }

    [Fact]
    public void Whole_tokens_win_over_merges_where_the_model_says_so()
    {
        var json = Json();
        json["pre_tokenizer"] = Split(Cl100kSplitter.Pattern3);
        json["model"]!["vocab"]!["cat"] = 300; // no merge leads here
        Assert.Equal(['c', 'a', 't'], Load(_folder, json).Encode("cat"));
        json["model"]!["ignore_merges"] = true;
        Assert.Equal([300, ' ', 'c', 'a', 't', '\n', The], Load(_folder, json).Encode("cat cat\nthe"));
    }

    [Fact]
    public void Normalizers_are_exact_whatever_the_globalization_mode()
    {
        var json = Json();
        json["normalizer"] = new JsonObject { ["type"] = "NFC" };
        var t = Load(_folder, json);
        Assert.Equal([EAcute], t.Encode("e\u0301"));
    }

    [Fact]
    public void Digits_are_cut_before_words()
    {
        var json = Json();
        json["pre_tokenizer"] = new JsonObject { ["type"] = "Sequence", ["pretokenizers"] = new JsonArray(new JsonObject { ["type"] = "Digits", ["individual_digits"] = true }, ByteLevelStage(true)) };
        Assert.Equal([SpaceThe, ' ', '1', '2', SpaceThe], Load(_folder, json).Encode(" the 12 the"));
    }

    [Fact]
    public void A_template_says_whether_bos_is_added()
    {
        var json = Json();
        json["post_processor"] = new JsonObject
        {
            ["type"] = "TemplateProcessing",
            ["single"] = new JsonArray(
                new JsonObject { ["SpecialToken"] = new JsonObject { ["id"] = "<|endoftext|>", ["type_id"] = 0 } },
                new JsonObject { ["Sequence"] = new JsonObject { ["id"] = "A", ["type_id"] = 0 } }),
        };
        var t = Load(_folder, json);
        Assert.Equal([EndOfText, The], t.Encode("the"));
        Assert.Equal([The], t.Encode("the", addBos: false));
        _folder.Write("tokenizer_config.json", """{"add_bos_token": false, "bos_token": {"content": "<|endoftext|>"}}""");
        Assert.Equal([The], Tokenizer.Load(_folder.Path).Encode("the"));
        _folder.Write("tokenizer_config.json", """{"bos_token": "the"}""");
        Assert.Equal($"{_folder["tokenizer.json"]}: \"post_processor\" in line {LineOf("\"post_processor\"")} puts \"<|endoftext|>\" first, which is not the BOS token of tokenizer_config.json", Assert.Throws<InvalidFileException>(() => Tokenizer.Load(_folder.Path)).Message);
    }

    [Fact]
    public void Strip_and_single_word_rules_of_added_tokens_hold()
    {
        var json = Json();
        var added = json["added_tokens"]!.AsArray();
        added.Add(new JsonObject { ["id"] = 265, ["content"] = "<pad>", ["special"] = true, ["lstrip"] = true, ["rstrip"] = true });
        added.Add(new JsonObject { ["id"] = 266, ["content"] = "foo", ["single_word"] = true });
        var t = Load(_folder, json);
        Assert.Equal(['x', 265, 'y'], t.Encode("x  <pad> \ny"));
        Assert.Equal(['f', 'o', 'o', 'd', ' ', 266, '!'], t.Encode("food foo!"));
    }

    [Fact]
    public void Special_tokens_come_from_the_configuration_files_in_order()
    {
        WriteFolder(_folder);
        _folder.Write("config.json", """{"model_type": "gpt2", "bos_token_id": 1, "eos_token_id": [2, 3]}""");
        Assert.Equal((EndOfText, EndOfText), (Tokenizer.Load(_folder.Path).BosToken, Tokenizer.Load(_folder.Path).EosToken));
        _folder.Write("special_tokens_map.json", """{"eos_token": "the", "pad_token": {"content": "th"}}""");
        Assert.Equal((EndOfText, The, Th), (Tokenizer.Load(_folder.Path).BosToken, Tokenizer.Load(_folder.Path).EosToken, Tokenizer.Load(_folder.Path).PadToken));
        _folder.Write("tokenizer_config.json", """{"bos_token": null, "eos_token": "th", "add_bos_token": true}""");
        var t = Tokenizer.Load(_folder.Path);
        Assert.Null(t.BosToken);
        Assert.Equal(Th, t.EosToken);
        Assert.False(t.AddsBos);
        _folder.Write("tokenizer_config.json", "{\n\"bos_token\": \"<s>\"}");
        Assert.Equal($"{_folder["tokenizer_config.json"]}: \"bos_token\" in line 2 is \"<s>\", which the vocabulary lacks", Assert.Throws<InvalidFileException>(() => Tokenizer.Load(_folder.Path)).Message);
    }

    private int LineOf(string text) => 1 + Array.FindIndex(File.ReadAllLines(_folder["tokenizer.json"]), l => l.Contains(text, StringComparison.Ordinal));
}
