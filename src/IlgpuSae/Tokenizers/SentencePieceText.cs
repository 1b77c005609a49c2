using System.Text;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// The normalization of SentencePiece's normalizer.cc: compiled rules by the longest match, pieces the user defined
/// left alone, spaces become ▁, one is put in front, and, where the model says so, those at both ends and repeated
/// ones vanish.
/// </summary>
/// <param name="model">The model, whose settings decide.</param>
/// <param name="own">The pieces the user defined.</param>
/// <param name="prefixOnlyFirst">Whether only the beginning of the input gets the ▁ in front (legacy = false in
/// tokenizer_config.json) or every stretch of text between special tokens.</param>
internal sealed class SentencePieceText(SentencePieceModel model, PrefixMatcher own, bool prefixOnlyFirst) : TextChange
{
    private protected override string Change(string text, bool first, TextMap? map)
    {
        var at = 0;
        if (model.RemoveExtraWhitespaces)
            while (at < text.Length && Next(text, at) is (" ", var used)) at += used;
        if (at == text.Length)
        {
            map?.Replace(text.Length, 0);
            return "";
        }

        var s = new StringBuilder(text.Length + 1);
        map?.Replace(at, 0);
        if (model.AddDummyPrefix && (first || !prefixOnlyFirst))
        {
            s.Append('▁');
            map?.Replace(0, 1);
        }

        var afterSpace = model.RemoveExtraWhitespaces;
        while (at < text.Length)
        {
            var (part, used) = Next(text, at);
            at += used;
            ReadOnlySpan<char> rest = part;
            if (afterSpace) rest = rest.TrimStart(' ');
            foreach (var c in rest) s.Append(c == ' ' ? '▁' : c);
            if (part.Length == used && rest.Length == used) map?.Keep(used);
            else map?.Replace(used, rest.Length);
            if (rest.Length > 0) afterSpace = model.RemoveExtraWhitespaces && rest[^1] == ' ';
        }

        if (!model.RemoveExtraWhitespaces) return s.ToString();
        // Written-out ▁ at the end go too: the rule looks at the normalized text.
        var end = s.Length;
        while (end > 0 && s[end - 1] == '▁') end--;
        map?.Cut(s.Length - end);
        return s.ToString(0, end);
    }

    /// <summary>The next part: a piece of the user's, a rule's result, or one code point as it is.</summary>
    private (string Part, int Units) Next(string text, int at)
    {
        var rest = text.AsSpan(at);
        if (own.Longest(rest) is > 0 and var n) return (text.Substring(at, n), n);
        if (model.Rules?.Find(rest, longest: true, out n) is { } replaced) return (replaced, n);
        Rune.DecodeFromUtf16(rest, out _, out n);
        return (text.Substring(at, n), n);
    }
}

/// <summary>Finds which of many texts begins a text, the longest of them.</summary>
internal sealed class PrefixMatcher
{
    private readonly Dictionary<string, int> _ids = new(StringComparer.Ordinal);
    private readonly Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> _lookup;
    private readonly Dictionary<char, int[]> _lengths;

    /// <param name="texts">The texts and what they stand for.</param>
    public PrefixMatcher(IEnumerable<KeyValuePair<string, int>> texts)
    {
        foreach (var (text, id) in texts) _ids[text] = id;
        _lookup = _ids.GetAlternateLookup<ReadOnlySpan<char>>();
        _lengths = _ids.Keys.Where(t => t.Length > 0).GroupBy(t => t[0]).ToDictionary(g => g.Key, g => g.Select(t => t.Length).Distinct().OrderDescending().ToArray());
    }

    /// <summary>Length of the longest text that begins <paramref name="rest"/>; 0: none does.</summary>
    public int Longest(ReadOnlySpan<char> rest) => Longest(rest, out _);

    /// <summary>Length of the longest text that begins <paramref name="rest"/>, and what it stands for.</summary>
    public int Longest(ReadOnlySpan<char> rest, out int id)
    {
        id = -1;
        if (!_lengths.TryGetValue(rest[0], out var lengths)) return 0;
        foreach (var n in lengths)
            if (n <= rest.Length && _lookup.TryGetValue(rest[..n], out id)) return n;
        return 0;
    }
}
