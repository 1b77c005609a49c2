using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// A tokenizer file's regular expression, matched by code points. .NET's expressions see UTF-16 halves, so a text with
/// code points beyond U+FFFF is matched through stand-ins: each becomes one rarely used character of the same Unicode
/// category, which is all that the classes of such patterns (\p{L}, \p{N}, \s, \w, ...) can tell apart.
/// </summary>
/// <remarks>
/// The patterns are written for Oniguruma. What .NET reads differently is rewritten (a class within a class) or
/// refused (possessive quantifiers, intersections of classes, scripts); nothing is matched differently in silence.
/// </remarks>
internal sealed class CodePointRegex
{
    private readonly Regex _regex;

    /// <param name="pattern">As the file has it.</param>
    /// <exception cref="ArgumentException">The pattern cannot be followed; the message says why.</exception>
    public CodePointRegex(string pattern)
    {
        if (pattern.EnumerateRunes().Any(r => !r.IsBmp)) throw new ArgumentException("has a character beyond U+FFFF, which is not known in patterns");
        // Where case does not count, ſ (U+017F) is an s; .NET keeps them apart.
        pattern = pattern.Replace("(?i:'s|", "(?i:'s|'\u017F|", StringComparison.Ordinal).Replace("(?i:[sdmt]", "(?i:[s\u017Fdmt]", StringComparison.Ordinal);
        try
        {
            _regex = new Regex(Translate(pattern), RegexOptions.CultureInvariant | RegexOptions.Compiled);
        }
        catch (RegexParseException e)
        {
            throw new ArgumentException($"is no .NET expression: {e.Error}", e);
        }
    }

    /// <summary>All matches that are not empty, from left to right.</summary>
    /// <param name="text">Without lone surrogates.</param>
    public List<(int Start, int End)> Matches(ReadOnlySpan<char> text)
    {
        var found = new List<(int, int)>();
        if (text.IndexOfAnyInRange('\uD800', '\uDFFF') < 0)
        {
            foreach (var m in _regex.EnumerateMatches(text))
                if (m.Length > 0) found.Add((m.Index, m.Index + m.Length));
            return found;
        }

        var standing = new StringBuilder(text.Length);
        var at = new List<int>(text.Length + 1);
        var units = 0;
        foreach (var rune in text.EnumerateRunes())
        {
            at.Add(units);
            standing.Append(rune.IsBmp ? (char)rune.Value : StandIn(rune));
            units += rune.Utf16SequenceLength;
        }

        at.Add(units);
        foreach (var m in _regex.EnumerateMatches(standing.ToString()))
            if (m.Length > 0) found.Add((at[m.Index], at[m.Index + m.Length]));
        return found;
    }

    /// <summary>A character of the code point's category in the basic plane; from blocks that no pattern names.</summary>
    private static char StandIn(Rune rune) => Rune.GetUnicodeCategory(rune) switch
    {
        UnicodeCategory.UppercaseLetter => '\uA640',
        UnicodeCategory.LowercaseLetter => '\uA641',
        UnicodeCategory.TitlecaseLetter => '\u1F88',
        UnicodeCategory.ModifierLetter => '\uA60C',
        UnicodeCategory.OtherLetter => '\uA500',
        UnicodeCategory.NonSpacingMark => '\uA6F0',
        UnicodeCategory.SpacingCombiningMark => '\uA823',
        UnicodeCategory.EnclosingMark => '\uA670',
        UnicodeCategory.DecimalDigitNumber => '\uA620',
        UnicodeCategory.LetterNumber => '\uA6E6',
        UnicodeCategory.OtherNumber => '\uA830',
        UnicodeCategory.ConnectorPunctuation => '\uFE33',
        UnicodeCategory.DashPunctuation => '\u301C',
        UnicodeCategory.OpenPunctuation => '\uFE17',
        UnicodeCategory.ClosePunctuation => '\uFE18',
        UnicodeCategory.InitialQuotePunctuation => '\u2E02',
        UnicodeCategory.FinalQuotePunctuation => '\u2E03',
        UnicodeCategory.OtherPunctuation => '\uA60D',
        UnicodeCategory.MathSymbol => '\uFB29',
        UnicodeCategory.CurrencySymbol => '\uA838',
        UnicodeCategory.ModifierSymbol => '\uA700',
        UnicodeCategory.OtherSymbol => '\u4DC0',
        UnicodeCategory.Format => '\uFFF9',
        UnicodeCategory.PrivateUse => '\uE000',
        _ => '\uFDD0', // not assigned; nothing else lies beyond U+FFFF
    };

    private static string Translate(string pattern)
    {
        var result = new StringBuilder(pattern.Length);
        for (var i = 0; i < pattern.Length; i++)
        {
            var c = pattern[i];
            if (c == '\\' && i + 1 < pattern.Length)
            {
                result.Append(c).Append(pattern[++i]);
            }
            else if (c == '[')
            {
                i = Class(pattern, i, result);
            }
            else if (c == '+' && i > 0 && pattern[i - 1] is '+' or '*' or '?' && (i < 2 || pattern[i - 2] != '\\'))
            {
                throw new ArgumentException("has a possessive quantifier, which is not known");
            }
            else
            {
                result.Append(c);
            }
        }

        return result.ToString();
    }

    /// <summary>Copies a class, taking the brackets off classes within it; gives the place of its end.</summary>
    private static int Class(string pattern, int open, StringBuilder result)
    {
        var depth = 0;
        for (var i = open; i < pattern.Length; i++)
        {
            var c = pattern[i];
            if (c == '\\' && i + 1 < pattern.Length)
            {
                result.Append(c).Append(pattern[++i]);
                continue;
            }

            if (c == '&' && i + 1 < pattern.Length && pattern[i + 1] == '&') throw new ArgumentException("intersects classes, which is not known");
            if (c == '[')
            {
                if (++depth == 1) result.Append('[');
                var negated = i + 1 < pattern.Length && pattern[i + 1] == '^';
                if (negated && depth > 1) throw new ArgumentException("has a negated class within a class, which is not known");
                if (negated) result.Append(pattern[++i]);
            }
            else if (c == ']')
            {
                if (--depth > 0) continue;
                result.Append(']');
                return i;
            }
            else
            {
                // .NET subtracts classes by -[...].
                if (c == '-' && i + 1 < pattern.Length && pattern[i + 1] == '[') result.Append('\\');
                result.Append(c);
            }
        }

        throw new ArgumentException("has a class without an end");
    }
}
