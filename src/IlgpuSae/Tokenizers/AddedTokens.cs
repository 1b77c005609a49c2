using System.Buffers;
using System.Globalization;
using System.Text;

namespace IlgpuSae.Tokenizers;

/// <summary>A token found in the text as it stands, before the model proper sees the rest.</summary>
/// <param name="Content">The text that stands for it.</param>
/// <param name="Id">Its id.</param>
/// <param name="Special">Whether it is no text (BOS and the like).</param>
/// <param name="Normalized">Whether it is looked for after the normalizer instead of before.</param>
/// <param name="LeftStrip">Whether it takes white space on its left with it.</param>
/// <param name="RightStrip">Whether it takes white space on its right with it.</param>
/// <param name="SingleWord">Whether it counts only when no word character touches it.</param>
internal sealed record AddedToken(string Content, int Id, bool Special, bool Normalized = false, bool LeftStrip = false, bool RightStrip = false, bool SingleWord = false);

/// <summary>
/// Cuts text at added tokens: leftmost first, longest first, whatever order they were listed in, with the strip and
/// single-word rules of Hugging Face's tokenizers.
/// </summary>
internal sealed class AddedTokens
{
    private readonly SearchValues<char> _firstChars;
    private readonly Dictionary<char, (string Text, AddedToken Token)[]> _byFirstChar;

    /// <param name="tokens">The tokens; empty contents are ignored.</param>
    /// <param name="normalize">Applied to the contents, for tokens that are looked for in normalized text.</param>
    public AddedTokens(IEnumerable<AddedToken> tokens, Func<string, string>? normalize = null)
    {
        var all = tokens.Select(t => (Text: normalize is null ? t.Content : normalize(t.Content), Token: t)).Where(t => t.Text.Length > 0);
        _byFirstChar = all.GroupBy(t => t.Text[0]).ToDictionary(g => g.Key, g => g.OrderByDescending(t => t.Text.Length).ToArray());
        _firstChars = SearchValues.Create([.. _byFirstChar.Keys]);
    }

    /// <summary>The next token at or after a place.</summary>
    /// <param name="input">The text.</param>
    /// <param name="from">Where the token before ended.</param>
    /// <param name="start">Where it starts, white space that it takes with it included; the end of the text when there is none.</param>
    /// <param name="stop">The unit after its last.</param>
    /// <returns>The token; null: there is none.</returns>
    public AddedToken? Next(string input, int from, out int start, out int stop)
    {
        for (var at = from; input.AsSpan(at).IndexOfAny(_firstChars) is >= 0 and var next;)
        {
            at += next;
            if (LongestAt(input, at) is not { } found)
            {
                at++;
                continue;
            }

            (start, stop) = (at, at + found.Text.Length);
            at = stop;
            if (found.Token.SingleWord && (EndsWithWord(input.AsSpan(0, start)) || StartsWithWord(input.AsSpan(stop)))) continue;
            if (found.Token.LeftStrip) while (start > from && char.IsWhiteSpace(input[start - 1])) start--;
            if (found.Token.RightStrip) while (stop < input.Length && char.IsWhiteSpace(input[stop])) stop++;
            return found.Token;
        }

        start = stop = input.Length;
        return null;
    }

    private (string Text, AddedToken Token)? LongestAt(string input, int at)
    {
        foreach (var candidate in _byFirstChar[input[at]])
            if (string.CompareOrdinal(input, at, candidate.Text, 0, candidate.Text.Length) == 0) return candidate;
        return null;
    }

    private static bool EndsWithWord(ReadOnlySpan<char> s) => Rune.DecodeLastFromUtf16(s, out var r, out _) == OperationStatus.Done && IsWord(r);

    private static bool StartsWithWord(ReadOnlySpan<char> s) => Rune.DecodeFromUtf16(s, out var r, out _) == OperationStatus.Done && IsWord(r);

    /// <summary>\w: letters, marks, decimal digits, connector punctuation and the joiners.</summary>
    private static bool IsWord(Rune r) => Rune.IsLetter(r) || r.Value is 0x200C or 0x200D || Rune.GetUnicodeCategory(r) is
        UnicodeCategory.NonSpacingMark or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.EnclosingMark or
        UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.ConnectorPunctuation;
}
