using IlgpuSae.Tokenizers;
using Xunit;
using static IlgpuSae.Tests.Tokenizers.TinyPieces;

namespace IlgpuSae.Tests.Tokenizers;

public sealed class SentencePieceTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_model_file_encodes_and_decodes()
    {
        var t = Load(Model());
        Assert.Equal([Bos, SpaceThe, SpaceA, B], t.Encode("the ab"));
        Assert.Equal([SpaceThe], t.Encode("the", addBos: false));
        Assert.Equal("the ab", t.Decode([SpaceThe, SpaceA, B]));
        Assert.Equal("<s> the", t.Decode([Bos, SpaceThe]));
        Assert.Equal("the", t.Decode([Bos, SpaceThe], skipSpecial: true));
        Assert.Equal((269, Bos, Eos, Unk, true), (t.VocabularySize, t.BosToken, t.EosToken, t.UnkToken, t.AddsBos));
        Assert.Equal(("the", "▁the"), (t.TokenString(SpaceThe), t.Piece(SpaceThe)));
    }

    [Fact]
    public void What_is_no_piece_becomes_bytes_and_comes_back()
    {
        var t = Load(Model());
        Assert.Equal([Bos, Space, B0 + 0xC3, B0 + 0xA9, B], t.Encode("éb"));
        Assert.Equal("éb", t.Decode([Space, B0 + 0xC3, B0 + 0xA9, B]));
        Assert.Equal("\uFFFDé", t.Decode([B0 + 0xE2, B0 + 0xC3, B0 + 0xA9])); // only the bad byte is lost
        Assert.Equal("\uFFFD", t.TokenString(B0 + 0xC3));
        Assert.Equal([Space, B0 + '<', B0 + '0', B0 + 'x', B0 + '0', B0 + 'A', B0 + '>'], t.Encode("<0x0A>", addBos: false));
    }

    [Fact]
    public void Short_and_blank_texts_are_not_lost()
    {
        var t = Load(Model());
        Assert.Equal([Bos], t.Encode(""));
        Assert.Equal([Bos, SpaceA], t.Encode("a"));
        Assert.Equal([Bos, Space, B], t.Encode("b"));
        Assert.Equal([Bos, Space, Space], t.Encode(" "));
        Assert.Equal([Bos, Space, B0 + '\n'], t.Encode("\n"));
    }

    [Fact]
    public void Extra_spaces_vanish_where_the_model_says_so()
    {
        var t = Load(Model(removeExtra: true));
        Assert.Equal([Bos], t.Encode("  "));
        Assert.Equal([Bos, SpaceThe, SpaceA], t.Encode("  the   a "));
        Assert.Equal([Bos, SpaceA], t.Encode("a▁"));
    }

    [Fact]
    public void Special_tokens_in_the_text_are_ids_and_the_prefix_follows_the_legacy_flag()
    {
        var model = Model();
        Assert.Equal([Bos, SpaceA, Eos, SpaceA], Load(model).Encode("a</s>a"));
        _folder.Write("tokenizer_config.json", """{"tokenizer_class": "LlamaTokenizer", "legacy": false}""");
        Assert.Equal([Bos, SpaceA, Eos, A], Load(model).Encode("a</s>a"));
    }

    [Fact]
    public void Pieces_of_several_spaces_are_found()
    {
        var t = Load(Model([.. Pieces(), ("▁▁", 1)]));
        Assert.Equal([Bos, SpaceSpace, Space, B], t.Encode("  b"));
        Assert.Equal([Bos, SpaceSpace, SpaceSpace, Space, B], t.Encode("    b")); // of equals the leftmost
    }

    [Fact]
    public void Pieces_that_the_user_defined_are_taken_first_and_never_merged()
    {
        // Gemma defines runs of newlines and spaces, and table tags.
        var t = Load(Model([.. Pieces(), ("<table>", 4), ("▁▁", 4), ("he<", 4)], dummyPrefix: false));
        Assert.Equal([Bos, A, 269, B], t.Encode("a<table>b"));
        Assert.Equal([Bos, 270, SpaceA], t.Encode("   a"));
        Assert.Equal([Bos, T, 271, A], t.Encode("the<a")); // the longest that stands there
    }

    [Fact]
    public void Without_byte_fallback_unknown_neighbours_are_one()
    {
        var t = Load(Model(byteFallback: false));
        Assert.Equal([Bos, Space, Unk, A, Unk], t.Encode("éüaß"));
        Assert.Equal([new(Space, 0, 0, 0, 0), new(Unk, 0, 2, 0, 4), new(A, 2, 3, 4, 5)], t.EncodeWithOffsets("éüa", addBos: false));
    }

    [Fact]
    public void Models_that_would_be_followed_wrongly_are_refused()
    {
        Refused("is a SentencePiece model of type 3 (words or characters), only 1 (Unigram) and 2 (BPE) are known", Model(type: 3));
        Refused("is no SentencePiece model: has a trie of 67305985 bytes in 8", Model(characterMap: [1, 2, 3, 4, 0, 0, 0, 0]));
        Refused("has white space behind words (treat_whitespace_as_suffix), which is not known", Model(suffix: true));
        Refused("has 255 pieces for bytes, expected 256", Model(Pieces().Where(p => p.Text != "<0x41>")));
        Refused("has the piece \"xa\" but none for its character \"x\", which is not known", Model([.. Pieces(), ("xa", 1)]));
        Refused("has the unused piece \"z\", which is not known here; use the model's tokenizer.json", Model([.. Pieces(), ("z", 5)]));
        Refused("token \"a\" has the ids 264 and 269", Model([.. Pieces(), ("a", 1)]));
        Refused("is no SentencePiece model: it has no pieces", []);
        Assert.StartsWith($"{_folder["tokenizer.model"]}: is no SentencePiece model: ", Refusal(Model()[..100]), StringComparison.Ordinal);
        _folder.Write("tokenizer_config.json", """{"tokenizer_class": "XLNetTokenizer"}""");
        Assert.Equal($"{_folder.Path}: tokenizer.model belongs to the tokenizer class \"XLNetTokenizer\"; known are LlamaTokenizer, GemmaTokenizer and T5Tokenizer, and any class with a tokenizer.json", Refusal(Model()));
    }

    private Tokenizer Load(byte[] model)
    {
        _folder.Write("tokenizer.model", model);
        return Tokenizer.Load(_folder.Path);
    }

    private string Refusal(byte[] model) => Assert.Throws<InvalidFileException>(() => Load(model)).Message;

    private void Refused(string problem, byte[] model) => Assert.Equal($"{_folder["tokenizer.model"]}: {problem}", Refusal(model));
}
