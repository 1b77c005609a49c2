using System.Text.Json.Nodes;
using Xunit;
using static IlgpuSae.Tests.Tokenizers.TinyPieces;

namespace IlgpuSae.Tests.Tokenizers;

/// <summary>tokenizer.json of the SentencePiece kind: LLaMA, Mistral, Gemma.</summary>
public sealed class PieceJsonTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Llama_puts_a_space_before_each_stretch_of_text()
    {
        var t = TinyBpe.Load(_folder, Json());
        Assert.Equal([SpaceThe, SpaceA, B, Eos, SpaceA], t.Encode("the ab</s>a"));
        Assert.Equal([Space, Space, B0 + 0xC3, B0 + 0xA9], t.Encode(" é"));
        Assert.Equal("the ab", t.Decode([SpaceThe, SpaceA, B]));
        Assert.Equal("\uFFFD\uFFFD\uFFFDb", t.Decode([B0 + 0xE2, B0 + 0xC3, B0 + 0xA9, B])); // one bad byte spoils the run
        Assert.Equal(Unk, t.UnkToken);
        Assert.Empty(t.Encode(""));
    }

    [Fact]
    public void Metaspace_puts_one_first_only()
    {
        var json = Json();
        json["normalizer"] = null;
        json["pre_tokenizer"] = new JsonObject { ["type"] = "Metaspace", ["replacement"] = "▁", ["prepend_scheme"] = "first", ["split"] = false };
        Assert.Equal([SpaceThe, SpaceA, B, Eos, A, Eos, SpaceA], TinyBpe.Load(_folder, json).Encode("the ab</s>a</s> a"));
    }

    [Fact]
    public void Gemma_puts_none()
    {
        var json = Json();
        json["normalizer"] = Replace(" ", "▁");
        json["pre_tokenizer"] = new JsonObject { ["type"] = "Split", ["pattern"] = new JsonObject { ["String"] = " " }, ["behavior"] = "MergedWithPrevious", ["invert"] = false };
        json["decoder"] = Sequence("decoders", Replace("▁", " "), Type("ByteFallback"), Type("Fuse"));
        var t = TinyBpe.Load(_folder, json);
        Assert.Equal([T, He, SpaceA], t.Encode("the a"));
        Assert.Equal(" a", t.Decode([SpaceA]));
    }

    [Fact]
    public void Without_byte_fallback_neighbouring_unknowns_share_a_token()
    {
        var json = Json();
        json["model"]!["byte_fallback"] = false;
        Assert.Equal([Space, Unk, A, Unk], TinyBpe.Load(_folder, json).Encode("éüaß"));
        json["model"]!["fuse_unk"] = false;
        Assert.Equal([Space, Unk, Unk, A, Unk], TinyBpe.Load(_folder, json).Encode("éüaß"));
        json["model"]!["unk_token"] = null;
        Assert.Equal("the vocabulary has no token for \"é\" (U+00E9), which the text contains", Assert.Throws<InvalidInputException>(() => TinyBpe.Load(_folder, json).Encode("é")).Message);
    }

    [Fact]
    public void Words_cut_at_spaces_merge_as_the_whole_text_does()
    {
        var byWord = TinyBpe.Load(_folder, Json());
        var json = Json();
        // A token with a space inside forbids cutting; nothing merges into it here, so the ids must stay.
        json["model"]!["vocab"]!["b▁"] = 269;
        json["model"]!["vocab"]!["b▁the"] = 270;
        json["model"]!["merges"]!.AsArray().Add("b▁ the");
        json["model"]!["vocab"]!["the"] = 271;
        var whole = TinyBpe.Load(_folder, json);
        const string text = "the abba  the\nthe ab é a  a";
        Assert.Equal(byWord.Encode(text), whole.Encode(text));
    }
}
