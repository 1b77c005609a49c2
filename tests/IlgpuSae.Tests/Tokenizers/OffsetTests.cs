using System.Text;
using System.Text.Json.Nodes;
using CsCheck;
using IlgpuSae.Tokenizers;
using Xunit;

namespace IlgpuSae.Tests.Tokenizers;

/// <summary>Which part of the text each token stands for.</summary>
public sealed class OffsetTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Tokens_know_their_characters_and_bytes()
    {
        TinyBpe.WriteFolder(_folder);
        var t = Tokenizer.Load(_folder.Path);
        Assert.Equal(
            [new(TinyBpe.EndOfText, 0, 0, 0, 0), new(TinyBpe.The, 0, 3, 0, 3), new(TinyBpe.SpaceA, 3, 5, 3, 5), new(TinyBpe.EAcute, 5, 6, 5, 7), new(TinyBpe.EndOfText, 6, 19, 7, 20), new('x', 19, 20, 20, 21)],
            t.EncodeWithOffsets("the aé<|endoftext|>x", addBos: true));
    }

    [Fact]
    public void Parts_of_a_character_share_it_and_have_bytes_of_their_own()
    {
        TinyBpe.WriteFolder(_folder);
        var t = Tokenizer.Load(_folder.Path);
        Assert.Equal(
            [new('a', 0, 1, 0, 1), new(0xF0, 1, 3, 1, 2), new(0x9F, 1, 3, 2, 3), new(0x98, 1, 3, 3, 4), new(0x80, 1, 3, 4, 5), new('b', 3, 4, 5, 6)],
            t.EncodeWithOffsets("a😀b"));
    }

    [Fact]
    public void Text_put_in_front_stands_for_nothing()
    {
        var t = TinyBpe.Load(_folder, TinyPieces.Json());
        Assert.Equal(
            [new(TinyPieces.SpaceThe, 0, 3, 0, 3), new(TinyPieces.SpaceA, 3, 5, 3, 5), new(TinyPieces.B0 + 0xC3, 5, 6, 5, 6), new(TinyPieces.B0 + 0xA9, 5, 6, 6, 7), new(TinyPieces.Eos, 6, 10, 7, 11), new(TinyPieces.SpaceA, 10, 11, 11, 12)],
            t.EncodeWithOffsets("the aé</s>a"));
    }

    [Fact]
    public void Normalized_text_is_taken_back_to_the_smallest_stretch_it_came_from()
    {
        var json = TinyBpe.Json();
        json["normalizer"] = new JsonObject { ["type"] = "NFC" };
        var t = TinyBpe.Load(_folder, json);
        Assert.Equal([new('a', 0, 1, 0, 1), new(TinyBpe.EAcute, 1, 3, 1, 4), new('b', 3, 4, 4, 5)], t.EncodeWithOffsets("ae\u0301b"));
        json["normalizer"] = TinyPieces.Sequence("normalizers", new JsonObject { ["type"] = "Strip" }, new JsonObject { ["type"] = "NFKC" }, new JsonObject { ["type"] = "Lowercase" });
        t = TinyBpe.Load(_folder, json);
        Assert.Equal([new('f', 2, 3, 2, 5), new('i', 2, 3, 2, 5), new('1', 3, 4, 5, 8), new(TinyBpe.SpaceThe, 4, 8, 8, 12)], t.EncodeWithOffsets("  ﬁ① THE "));
    }

    [Fact]
    public void Any_text_is_covered_from_its_first_to_its_last_byte()
    {
        TinyBpe.WriteFolder(_folder);
        var t = Tokenizer.Load(_folder.Path);
        Gen.OneOf(Gen.String, Gen.String[Gen.Char["the a's12 \n\r\té\u0301中<|endoftext|>"], 0, 40]).Sample(text =>
        {
            var clean = Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text));
            var utf8 = Encoding.UTF8.GetBytes(clean);
            var spans = t.EncodeWithOffsets(text);
            Assert.Equal(t.Encode(text), spans.Select(s => s.Id));
            var at = 0;
            foreach (var s in spans)
            {
                Assert.Equal(at, s.ByteStart);
                at = s.ByteEnd;
                // What a token decodes to is what it points at, unless it is part of a character.
                if (!t.TokenString(s.Id).Contains('\uFFFD', StringComparison.Ordinal)) Assert.Equal(t.TokenString(s.Id), clean[s.Start..s.End]);
                Assert.Equal(Encoding.UTF8.GetBytes(t.TokenString(s.Id)).AsSpan().SequenceEqual(utf8.AsSpan(s.ByteStart..s.ByteEnd)), !t.TokenString(s.Id).Contains('\uFFFD', StringComparison.Ordinal) || utf8.AsSpan(s.ByteStart..s.ByteEnd).SequenceEqual("\uFFFD"u8));
            }

            Assert.Equal(utf8.Length, at);
        }, seed: "0000KvVvyQR3", iter: 2000, threads: 1);
    }

    [Fact]
    public void Ids_are_the_same_with_and_without_places_whatever_the_stages()
    {
        var json = TinyPieces.Json();
        json["normalizer"] = TinyPieces.Sequence("normalizers", new JsonObject { ["type"] = "NFKD" }, new JsonObject { ["type"] = "StripAccents" }, new JsonObject { ["type"] = "Lowercase" }, new JsonObject { ["type"] = "Replace", ["pattern"] = new JsonObject { ["Regex"] = " {2,}" }, ["content"] = "▁" });
        json["pre_tokenizer"] = TinyPieces.Sequence("pretokenizers", new JsonObject { ["type"] = "WhitespaceSplit" }, new JsonObject { ["type"] = "Punctuation" }, new JsonObject { ["type"] = "Metaspace", ["prepend_scheme"] = "first" });
        var t = TinyBpe.Load(_folder, json);
        Gen.OneOf(Gen.String, Gen.String[Gen.Char["the aÁb's,.ﬁ \n中</s>"], 0, 40]).Sample(text =>
        {
            var spans = t.EncodeWithOffsets(text);
            Assert.Equal(t.Encode(text), spans.Select(s => s.Id));
            Assert.All(spans, s => Assert.True(s.Start <= s.End && s.ByteStart <= s.ByteEnd && s.End <= text.Length));
            Assert.All(spans.Zip(spans.Skip(1)), p => Assert.True(p.First.Start <= p.Second.Start));
        }, seed: "0000KvVvyQR3", iter: 2000, threads: 1);
    }
}
