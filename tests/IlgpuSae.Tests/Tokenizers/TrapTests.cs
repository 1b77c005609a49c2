using System.Diagnostics;
using System.Text;
using System.Text.Json.Nodes;
using IlgpuSae.Tokenizers;
using Xunit;
using static IlgpuSae.Tests.Tokenizers.TinyBpe;

namespace IlgpuSae.Tests.Tokenizers;

/// <summary>What goes wrong, mostly in silence, with ready-made .NET tokenizers: each must not happen here.</summary>
public sealed class TrapTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Letters_beyond_ascii_go_by_their_bytes_without_an_option() => Assert.Equal(['w', ' ', EAcute], Gpt2().Encode("w é"));

    [Fact]
    public void Text_between_the_matches_of_a_pattern_is_kept()
    {
        var json = Json();
        json["pre_tokenizer"] = Split(@"\p{L}+");
        Assert.Equal("ab 12 cd!", Load(_folder, json).Decode(Load(_folder, json).Encode("ab 12 cd!")));
    }

    [Fact]
    public void Special_tokens_are_found_longest_first_whatever_their_order()
    {
        var json = Json();
        foreach (var (id, content) in new[] { (265, "<a>"), (266, "<a><b>"), (267, "<a><b><c>") })
            json["added_tokens"]!.AsArray().Add(new JsonObject { ["id"] = id, ["content"] = content, ["special"] = true });
        Assert.Equal([267, 266, 265, 'x'], Load(_folder, json).Encode("<a><b><c><a><b><a>x"));
    }

    [Fact]
    public void Flags_of_added_tokens_are_obeyed()
    {
        var json = Json();
        json["normalizer"] = new JsonObject { ["type"] = "Lowercase" };
        json["added_tokens"]!.AsArray().Add(new JsonObject { ["id"] = 265, ["content"] = "<M>", ["lstrip"] = true });
        json["added_tokens"]!.AsArray().Add(new JsonObject { ["id"] = 266, ["content"] = "<R>", ["rstrip"] = true });
        json["added_tokens"]!.AsArray().Add(new JsonObject { ["id"] = 267, ["content"] = "WORD", ["single_word"] = true, ["normalized"] = true });
        var t = Load(_folder, json);
        Assert.Equal(['a', 265, ' ', 'b'], t.Encode("a \t<M> b"));
        Assert.Equal(['a', ' ', 266, 'b'], t.Encode("a <R> \nb"));
        Assert.Equal([267, ' ', 267, '-', 'w', 'o', 'r', 'd', 's'], t.Encode("Word word-words")); // looked for in normalized text
        Assert.Equal([.. "<m>".Select(c => (int)c)], t.Encode("<m>")); // not looked for there
    }

    [Fact]
    public void Lone_surrogates_are_replacement_characters()
    {
        Assert.Equal([0xEF, 0xBF, 0xBD], Gpt2().Encode("\uD800"));
        Assert.Equal(Gpt2().Encode("a\uFFFDb"), Gpt2().Encode("a\uDC00b"));
    }

    [Fact]
    public void Letters_and_digits_beyond_the_basic_plane_are_letters_and_digits()
    {
        var json = Json();
        json["pre_tokenizer"] = Split(Cl100kSplitter.Pattern3);
        // 's is cut from a letter; digits go by threes; a Han letter takes the space before it.
        Assert.Equal([ApostropheS], Load(_folder, json).Encode("𐐷's")[^1..]);
        Assert.Equal("𝟘20|24| 𠀀", Cut(new Cl100kSplitter(3), "𝟘2024 𠀀"));
        Assert.Equal("𐐷|'s", Cut(new Gpt2Splitter(), "𐐷's"));
    }

    [Fact]
    public void Text_is_normalized_without_icu()
    {
        Assert.Equal("e\u0301", "e\u0301".Normalize()); // what .NET does here, in silence
        var json = Json();
        json["normalizer"] = new JsonObject { ["type"] = "NFC" };
        Assert.Equal([EAcute], Load(_folder, json).Encode("e\u0301"));
    }

    [Fact]
    public void Llama_3_takes_whole_words_before_merging()
    {
        var json = Json();
        json["model"]!["vocab"]!["Ġcat"] = 300; // no merge leads here
        json["model"]!["ignore_merges"] = true;
        Assert.Equal(['a', 300], Load(_folder, json).Encode("a cat"));
    }

    [Fact]
    public void Patterns_that_dotnet_would_read_differently_are_refused_by_name()
    {
        var json = Json();
        json["pre_tokenizer"] = Split(@"\p{L}++");
        Assert.EndsWith("is \"\\p{L}++\", which cannot be followed: it has a possessive quantifier, which is not known", Assert.Throws<InvalidFileException>(() => Load(_folder, json)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Long_s_counts_as_s_where_case_does_not_count()
    {
        Assert.Equal("a|'ſ", Cut(new Cl100kSplitter(3), "a'ſ"));
        Assert.Equal([(0, 2)], new CodePointRegex("(?i:'s|'t)").Matches("'ſ"));
    }

    [Fact]
    public void Texts_of_one_character_and_blank_texts_are_not_lost()
    {
        _folder.Write("tokenizer.model", TinyPieces.Model());
        var t = Tokenizer.Load(_folder.Path);
        Assert.Equal([TinyPieces.Bos, TinyPieces.SpaceA], t.Encode("a"));
        Assert.Equal([TinyPieces.Bos], t.Encode(""));
        Assert.Equal([TinyPieces.Bos, TinyPieces.Space, TinyPieces.Space], t.Encode(" "));
    }

    [Fact]
    public void A_text_without_spaces_takes_time_in_proportion_to_its_length()
    {
        var t = Gpt2();
        t.Encode(new string('日', 1000));
        // 300 kB of one word. In quadratic time these are minutes; the bound is far from both.
        var watch = Stopwatch.StartNew();
        var text = new string('日', 100_000);
        Assert.Equal(text, t.Decode(t.Encode(text)));
        Assert.Equal(50_000, t.Encode(new string(' ', 100_000)).Length);
        Assert.True(watch.Elapsed < TimeSpan.FromSeconds(20), $"{watch.Elapsed}");
    }

    [Fact]
    public void Many_threads_give_what_one_gives()
    {
        var t = Gpt2();
        var texts = Enumerable.Range(0, 300).Select(i => string.Concat(Enumerable.Range(0, i % 40).Select(j => $" the{(char)('a' + (i * j % 26))}{i * j} été"))).ToList();
        Assert.Equal(texts.Select(x => t.Encode(x)), t.EncodeAll(texts, threads: 8));
        Assert.Equal(t.EncodeAll(texts, threads: 1), t.EncodeAll(texts, threads: 3));
    }

    [Fact]
    public void Every_plane_of_unicode_and_malformed_utf8_survive_as_they_should()
    {
        var t = Gpt2();
        var all = new StringBuilder();
        for (var plane = 0; plane <= 16; plane++)
            for (var c = plane << 16; c < (plane + 1) << 16; c += plane == 0 ? 7 : 251)
                if (Rune.IsValid(c)) all.Append(new Rune(c).ToString());
        var text = all.ToString() + new string(' ', 5000) + "\n\n" + new string('\t', 77);
        Assert.Equal(text, t.Decode(t.Encode(text)));
        Assert.Equal(text, t.Decode(t.Encode(Encoding.UTF8.GetBytes(text))));
        // One U+FFFD for each longest part of a character, as the Unicode Standard advises (and Python does).
        Assert.Equal("a\uFFFDb\uFFFD\uFFFDc\uFFFD", t.Decode(t.Encode([(byte)'a', 0xE2, 0x82, (byte)'b', 0xC0, 0x80, (byte)'c', 0xF0, 0x9F, 0x98])));
    }

    private Tokenizer Gpt2()
    {
        WriteFolder(_folder);
        return Tokenizer.Load(_folder.Path);
    }

    private static string Cut(Splitter splitter, string text)
    {
        var pieces = new List<string>();
        for (var at = 0; at < text.Length;)
        {
            var end = splitter.Next(text, at);
            pieces.Add(text[at..end]);
            at = end;
        }

        return string.Join('|', pieces);
    }
}
