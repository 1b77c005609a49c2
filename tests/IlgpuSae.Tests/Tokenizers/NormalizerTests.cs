using System.Buffers.Binary;
using System.Text;
using CsCheck;
using IlgpuSae.Tokenizers;
using Xunit;

namespace IlgpuSae.Tests.Tokenizers;

/// <summary>Changes of text before it is cut, and the patterns that cut it.</summary>
public sealed class NormalizerTests
{
    [Fact]
    public void Simple_steps_do_what_their_names_say()
    {
        Assert.Equal("i\u0307ß straße 𐐨", Apply(new Lowercase(), "İß STRAßE 𐐀"));
        Assert.Equal("eo", Apply(new StripAccents(), "e\u0301o\u0308"));
        Assert.Equal("a b", Apply(new StripSpace(true, true), " \u00A0a b\n"));
        Assert.Equal("a b\n", Apply(new StripSpace(true, false), " a b\n"));
        Assert.Equal("a b c", Apply(new NmtCharacters(), "a\u200Bb\u0001\uFEFFc"));
        Assert.Equal("a 中 b", Apply(new BertCharacters(true, true), "\u0000a中b\uFFFD"));
        Assert.Equal("a▁b c", Apply(new ReplaceText(new CodePointRegex(" {2,}"), "▁"), "a   b c"));
    }

    [Fact]
    public void Forms_stretch_by_stretch_are_the_forms_of_the_whole()
    {
        var marks = Gen.Char["ae\u0301\u0323\u0307\u1E9B\uFB01가각\u0958\u212B\u3099か\u0FB3\u0F71\u0F80\u1100"];
        Gen.OneOf(Gen.String, Gen.String[marks, 0, 20]).Sample(text =>
        {
            text = Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text));
            foreach (var compatibility in (bool[])[false, true])
            {
                foreach (var compose in (bool[])[false, true])
                {
                    var parts = UnicodeNormalizer.Stretches(text, compatibility).Select(r => UnicodeNormalizer.Form(text[r], compatibility, compose));
                    Assert.Equal(UnicodeNormalizer.Form(text, compatibility, compose), string.Concat(parts));
                }
            }
        }, seed: "0000KvVvyQR3", iter: 3000, threads: 1);
    }

    [Fact]
    public void Text_said_to_be_plain_is_its_own_form()
    {
        // Every code point of the basic plane, alone and behind a letter, by the long way and by the short one.
        for (var c = 0x300; c < 0x10000; c++)
        {
            if (char.IsSurrogate((char)c)) continue;
            foreach (var text in (string[])[((char)c).ToString(), "a" + (char)c])
                if (UnicodeNormalizer.IsPlain(text, compatibility: false, compose: true)) Assert.Equal(text, UnicodeNormalizer.Nfkc(UnicodeNormalizer.Nfd(text)) is var k && k.Length == 0 ? "" : UnicodeNormalizer.Form(UnicodeNormalizer.Nfd(text), false, true));
        }

        Assert.True(UnicodeNormalizer.IsPlain("日本語 のテキスト 한글 é", false, true));
        Assert.False(UnicodeNormalizer.IsPlain("e\u0301", false, true));
    }

    [Theory]
    [InlineData(@" ?[^(\s|[.,!?…。，、।۔،])]+", "Hi, (you) 中。x", "Hi|, (|you|)| 中|。|x")] // BLOOM's: a class within a class; the rest is text between matches
    [InlineData(@"[\r\n]", "a\n\nb", "a|\n|\n|b")]
    [InlineData(@"\p{L}+", "𐐷𝔸x1😀é", "𐐷𝔸x|1😀|é")]
    [InlineData(@"\p{N}{1,3}", "a𝟘2024", "a|𝟘20|24")]
    [InlineData(@"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "HelloWorld it's", "Hello|World| it's")] // o200k's first branch
    public void Other_patterns_cut_by_code_points(string pattern, string text, string pieces)
    {
        Assert.Equal(pieces, Pieces(new CodePointRegex(pattern).Matches, MatchBehavior.Isolated, text));
    }

    [Theory]
    [InlineData("a--b-c-", "Isolated", "a|-|-|b|-|c|-")]
    [InlineData("a--b-c-", "Removed", "a|b|c")]
    [InlineData("a--b-c-", "Contiguous", "a|--|b|-|c|-")]
    [InlineData("a--b-c-", "MergedWithPrevious", "a-|-|b-|c-")]
    [InlineData("a--b-c-", "MergedWithNext", "a|-|-b|-c|-")]
    [InlineData("-a", "MergedWithPrevious", "-|a")]
    public void Matches_are_treated_as_the_behavior_says(string text, string behavior, string pieces) =>
        Assert.Equal(pieces, Pieces(NamedPatterns.Literal("-"), Enum.Parse<MatchBehavior>(behavior), text));

    [Theory]
    [InlineData(@"\p{L}++", "has a possessive quantifier, which is not known")]
    [InlineData(@"\s*+", "has a possessive quantifier, which is not known")]
    [InlineData(@"[a&&b]", "intersects classes, which is not known")]
    [InlineData(@"[a[^b]]", "has a negated class within a class, which is not known")]
    public void Patterns_that_would_be_followed_wrongly_are_refused(string pattern, string problem) =>
        Assert.Equal(problem, Assert.Throws<ArgumentException>(() => new CodePointRegex(pattern)).Message);

    [Fact]
    public void Compiled_rules_replace_sequences()
    {
        // ab -> X, a -> y, é -> e: by the shortest rule for Hugging Face, by the longest for SentencePiece.
        var map = new CharacterMap(Compile(("ab"u8.ToArray(), "X"), ("a"u8.ToArray(), "y"), ("é"u8.ToArray(), "e")));
        Assert.Equal(("X", 2), (map.Find("abc", longest: true, out var n), n));
        Assert.Equal(("y", 1), (map.Find("abc", longest: false, out n), n));
        Assert.Null(map.Find("b", longest: true, out n));
        Assert.Equal("ybe😀", Apply(new PrecompiledRules(map), "abé😀"));
        Assert.Throws<ArgumentException>(() => new CharacterMap([1, 2, 3]));
    }

    private static string Apply(TextChange change, string text)
    {
        var origin = Enumerable.Range(0, text.Length).Select(i => new Origin(i, i + 1)).ToArray();
        var (traced, from) = change.Trace(text, true, origin);
        Assert.Equal(traced, change.Apply(text, true));
        Assert.Equal(traced.Length, from.Length);
        return traced;
    }

    private static string Pieces(MatchFinder matches, MatchBehavior behavior, string text)
    {
        var pieces = new List<string>();
        var at = 0;
        foreach (var (end, keep) in new MatchSplitter(matches, behavior).Cut(text))
        {
            if (keep) pieces.Add(text[at..end]);
            at = end;
        }

        return string.Join('|', pieces);
    }

    /// <summary>A double array with one block of 256 units a node: wasteful, and plainly right.</summary>
    private static byte[] Compile(params (byte[] Key, string Value)[] rules)
    {
        using var texts = new MemoryStream();
        var nodes = new List<Dictionary<byte, int>> { new() };
        var value = new Dictionary<int, int>();
        foreach (var (key, text) in rules)
        {
            var node = 0;
            foreach (var b in key)
            {
                if (!nodes[node].TryGetValue(b, out var next))
                {
                    nodes[node][b] = next = nodes.Count;
                    nodes.Add([]);
                }

                node = next;
            }

            value[node] = (int)texts.Length;
            texts.Write([.. Encoding.UTF8.GetBytes(text), 0]);
        }

        // Node n's children lie at base(n) ^ byte, base(n) = 256 * (n + 1); a unit's offset leads from itself to its node's base.
        var units = new uint[256 * (nodes.Count + 1)];
        units[0] = (uint)256 << 10;
        for (var n = 0; n < nodes.Count; n++)
        {
            foreach (var (b, child) in nodes[n])
            {
                var at = 256 * (n + 1) ^ b;
                var offset = (uint)(at ^ 256 * (child + 1));
                // Offsets of 2^21 and more are stored in units of 256; these are small.
                units[at] = offset << 10 | (value.ContainsKey(child) ? 1u << 8 : 0) | b;
                if (value.TryGetValue(child, out var v)) units[256 * (child + 1)] = (uint)v | 1u << 31;
            }
        }

        var blob = new byte[4 + 4 * units.Length + texts.Length];
        BinaryPrimitives.WriteInt32LittleEndian(blob, 4 * units.Length);
        for (var i = 0; i < units.Length; i++) BinaryPrimitives.WriteUInt32LittleEndian(blob.AsSpan(4 + 4 * i), units[i]);
        texts.ToArray().CopyTo(blob, 4 + 4 * units.Length);
        return blob;
    }
}
