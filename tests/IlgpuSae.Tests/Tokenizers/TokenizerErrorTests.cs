using System.Text.Json.Nodes;
using IlgpuSae.Tokenizers;
using Xunit;

namespace IlgpuSae.Tests.Tokenizers;

/// <summary>Whatever is not known is refused by name.</summary>
public sealed class TokenizerErrorTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_folder_without_a_tokenizer_is_refused()
    {
        Assert.Equal($"{_folder.Path}: has no tokenizer: neither tokenizer.json, nor vocab.json with merges.txt, nor tokenizer.model or spiece.model", Refusal(_folder.Path));
        Assert.Equal($"{_folder["no"]}: no such folder", Refusal(_folder["no"]));
        TinyBpe.WriteFolder(_folder);
        _folder.Write("tokenizer_config.json", """{"tokenizer_class": "CLIPTokenizerFast"}""");
        Assert.Equal($"{_folder.Path}: vocab.json and merges.txt belong to the tokenizer class \"CLIPTokenizer\"; known are GPT2Tokenizer and Qwen2Tokenizer, and any class with a tokenizer.json", Refusal(_folder.Path));
    }

    public static TheoryData<string, string, string> UnknownParts => new()
    {
        { "model.type", "\"WordLevel\"", "\"model.type\" is the tokenizer model \"WordLevel\"; known are BPE, Unigram and WordPiece" },
        { "model.type", "\"Unigram\"", "\"model.vocab\" is no list of pieces and scores" },
        { "model.dropout", "0.1", "\"model.dropout\" makes the tokens random, which is not known" },
        { "model.end_of_word_suffix", "\"</w>\"", "\"model.end_of_word_suffix\" is set, which is not known" },
        { "model.merges", "[\"t x\"]", "merge 0 of \"t\" and \"x\" needs the token \"tx\", which the vocabulary lacks" },
        { "model.merges", "[\"t h e\"]", "\"model.merges\" has \"\"t h e\"\" at place 0, expected \"a b\" or [\"a\", \"b\"]" },
        { "model.merges", "5", "\"model.merges\" is no list of merges" },
        { "model.vocab", "{\"a\": \"b\"}", "\"model.vocab.a\" is no token id, expected an integer" },
        { "model.vocab", "{\"a\": -1}", "token \"a\" has the id -1, expected 0..4000000" },
        { "model.vocab", "{\"a\": 1, \"b\": 1}", "tokens \"a\" and \"b\" share the id 1" },
        { "normalizer", "{\"type\": \"Cyrillic\"}", "\"normalizer.type\" is the normalizer \"Cyrillic\"; known are NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, Prepend, Replace, Nmt, Precompiled, BertNormalizer and Sequence" },
        { "normalizer", "{\"type\": \"Precompiled\", \"precompiled_charsmap\": \"AAAA\"}", "\"normalizer.precompiled_charsmap\" is no map of characters: is too short" },
        { "normalizer", "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"x++\"}, \"content\": \"\"}", "\"normalizer.pattern\" is \"x++\", which cannot be followed: it has a possessive quantifier, which is not known" },
        { "pre_tokenizer", "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"UnicodeScripts\"}, {\"type\": \"ByteLevel\"}]}", "\"pre_tokenizer.pretokenizers.[].type\" is the pre-tokenizer \"UnicodeScripts\"; known are ByteLevel, Split, Digits, Metaspace, Whitespace, WhitespaceSplit, Punctuation, BertPreTokenizer and Sequence" },
        { "pre_tokenizer", "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\p{Han}+\"}, \"behavior\": \"Isolated\"}, {\"type\": \"ByteLevel\"}]}", "\"pre_tokenizer.pretokenizers.[].pattern\" is \"\\p{Han}+\", which cannot be followed: it is no .NET expression: UnrecognizedUnicodeProperty" },
        { "pre_tokenizer", "{\"type\": \"Split\", \"pattern\": {\"String\": \"x\"}, \"behavior\": \"Kept\"}", "\"pre_tokenizer.behavior\" is \"Kept\"; known are Removed, Isolated, Contiguous, MergedWithPrevious, MergedWithNext" },
        { "post_processor", "{\"type\": \"BertProcessing\"}", "\"post_processor.cls\" is not of the form [\"token\", id]" },
        { "post_processor", "{\"type\": \"Other\"}", "\"post_processor.type\" is the post-processor \"Other\"; known are ByteLevel, TemplateProcessing, BertProcessing, RobertaProcessing and Sequence" },
        { "decoder", "{\"type\": \"WordPiece\"}", "\"decoder\" is \"WordPiece\", expected ByteLevel to go with the ByteLevel pre-tokenizer" },
        { "decoder", "null", "\"decoder\" is \"\", expected ByteLevel to go with the ByteLevel pre-tokenizer" },
        { "added_tokens", "[{\"id\": 5, \"content\": \"<x>\"}]", "tokens \"ą\" and \"<x>\" share the id 5" },
    };

    [Theory]
    [MemberData(nameof(UnknownParts))]
    public void An_unknown_part_is_named(string key, string value, string problem)
    {
        var json = TinyBpe.Json();
        var keys = key.Split('.');
        (keys.Length == 2 ? json[keys[0]]! : json)[keys[^1]] = JsonNode.Parse(value);
        var message = Assert.Throws<InvalidFileException>(() => TinyBpe.Load(_folder, json)).Message;
        Assert.Equal($"{_folder["tokenizer.json"]}: {problem}", System.Text.RegularExpressions.Regex.Replace(message, " in line \\d+", ""));
    }

    [Fact]
    public void A_byte_without_a_token_is_named_when_a_text_needs_it()
    {
        var json = TinyBpe.Json();
        json["model"]!["vocab"]!.AsObject().Remove("z");
        var t = TinyBpe.Load(_folder, json);
        Assert.Equal(['y'], t.Encode("y"));
        Assert.Equal("the vocabulary has no token for the byte 0x7A (spelled \"z\"), which the text contains", Assert.Throws<InvalidInputException>(() => t.Encode("yz")).Message);
    }

    [Theory]
    [InlineData("a b c")]
    [InlineData("ab")]
    [InlineData(" a")]
    public void A_line_of_merges_that_is_no_pair_is_named(string line)
    {
        TinyBpe.WriteFolder(_folder);
        _folder.Write("merges.txt", "#version: 0.2\nt h\n" + line);
        Assert.Equal($"{_folder["merges.txt"]}: line 3 is \"{line}\", expected two tokens with a space between them", Refusal(_folder.Path));
    }

    private static string Refusal(string path) => Assert.Throws<InvalidFileException>(() => Tokenizer.Load(path)).Message;
}
