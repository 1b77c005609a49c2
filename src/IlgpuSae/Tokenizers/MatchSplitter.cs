namespace IlgpuSae.Tokenizers;

/// <summary>What becomes of the matches of a splitting pattern; Hugging Face's SplitDelimiterBehavior.</summary>
internal enum MatchBehavior
{
    /// <summary>Matches vanish.</summary>
    Removed,

    /// <summary>Each match is a piece.</summary>
    Isolated,

    /// <summary>Neighbouring matches are one piece.</summary>
    Contiguous,

    /// <summary>A match ends the piece before it.</summary>
    MergedWithPrevious,

    /// <summary>A match begins the piece after it.</summary>
    MergedWithNext,
}

/// <summary>Cuts at the matches of any pattern: the Split stage of tokenizer.json where its pattern has no splitter of its own.</summary>
/// <param name="matches">Finds the matches in a text: none empty, in order, without overlap.</param>
/// <param name="behavior">What becomes of them.</param>
/// <param name="invert">Whether what lies between the matches counts as the matches.</param>
internal sealed class MatchSplitter(MatchFinder matches, MatchBehavior behavior, bool invert = false) : Splitter
{
    /// <inheritdoc/>
    public override int Next(ReadOnlySpan<char> text, int at) => throw new InvalidOperationException("matches are found for a whole text at once");

    /// <inheritdoc/>
    public override List<(int End, bool Keep)> Cut(ReadOnlySpan<char> text)
    {
        var parts = new List<(int End, bool Match)>();
        var done = 0;
        foreach (var (start, end) in matches(text))
        {
            if (start > done) parts.Add((start, invert));
            parts.Add((end, !invert));
            done = end;
        }

        if (done < text.Length) parts.Add((text.Length, invert));
        var pieces = new List<(int End, bool Keep)>(parts.Count);
        for (var i = 0; i < parts.Count; i++)
        {
            var (end, match) = parts[i];
            var before = i > 0 ? parts[i - 1].Match : !match;
            var joins = behavior switch
            {
                MatchBehavior.Contiguous => i > 0 && before == match,
                MatchBehavior.MergedWithPrevious => i > 0 && match && !before,
                MatchBehavior.MergedWithNext => i > 0 && !match && before,
                _ => false,
            };
            if (joins) pieces[^1] = (end, true);
            else pieces.Add((end, behavior != MatchBehavior.Removed || !match));
        }

        return pieces;
    }
}

/// <summary>BERT's words: white space vanishes, each punctuation mark is a word of its own.</summary>
internal sealed class BertSplitter : Splitter
{
    /// <inheritdoc/>
    public override int Next(ReadOnlySpan<char> text, int at) => throw new InvalidOperationException("words are found for a whole text at once");

    /// <inheritdoc/>
    public override List<(int End, bool Keep)> Cut(ReadOnlySpan<char> text)
    {
        var pieces = new List<(int End, bool Keep)>();
        int start = 0, at = 0;
        foreach (var rune in text.EnumerateRunes())
        {
            var space = System.Text.Rune.IsWhiteSpace(rune);
            if (space || NamedPatterns.IsPunctuation(rune))
            {
                if (at > start) pieces.Add((at, true));
                start = at + rune.Utf16SequenceLength;
                pieces.Add((start, !space));
            }

            at += rune.Utf16SequenceLength;
        }

        if (at > start) pieces.Add((at, true));
        return pieces;
    }
}

/// <summary>Finds the matches of a splitting pattern.</summary>
internal delegate List<(int Start, int End)> MatchFinder(ReadOnlySpan<char> text);

/// <summary>Patterns that tokenizer.json names instead of spelling them.</summary>
internal static class NamedPatterns
{
    /// <summary>A literal text.</summary>
    public static MatchFinder Literal(string literal) => text =>
    {
        var found = new List<(int, int)>();
        for (var at = 0; text[at..].IndexOf(literal, StringComparison.Ordinal) is >= 0 and var n; at += n + literal.Length) found.Add((at + n, at + n + literal.Length));
        return found;
    };

    /// <summary>Each white-space code point: WhitespaceSplit, and the first half of BERT's.</summary>
    public static MatchFinder WhiteSpace { get; } = Each(static r => System.Text.Rune.IsWhiteSpace(r));

    /// <summary>Each punctuation code point: ASCII's symbols and Unicode's P categories.</summary>
    public static MatchFinder Punctuation { get; } = Each(IsPunctuation);

    /// <summary>Whether BERT counts a code point as punctuation.</summary>
    public static bool IsPunctuation(System.Text.Rune r) =>
        r.IsAscii ? r.Value is (>= 33 and <= 47) or (>= 58 and <= 64) or (>= 91 and <= 96) or (>= 123 and <= 126) : System.Text.Rune.IsPunctuation(r);

    private static MatchFinder Each(Func<System.Text.Rune, bool> is_) => text =>
    {
        var found = new List<(int, int)>();
        var at = 0;
        foreach (var rune in text.EnumerateRunes())
        {
            if (is_(rune)) found.Add((at, at + rune.Utf16SequenceLength));
            at += rune.Utf16SequenceLength;
        }

        return found;
    };
}
