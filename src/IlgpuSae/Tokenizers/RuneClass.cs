using System.Globalization;
using System.Text;

namespace IlgpuSae.Tokenizers;

/// <summary>What the pre-tokenizers' patterns tell apart.</summary>
internal enum RuneKind : byte
{
    /// <summary>Neither letter nor number nor white space.</summary>
    Other,

    /// <summary>\p{L}.</summary>
    Letter,

    /// <summary>\p{N}: decimal digits, letter numbers, other numbers.</summary>
    Number,

    /// <summary>\s: Unicode's White_Space.</summary>
    Space,
}

/// <summary>
/// Classes of whole code points. .NET's regular expressions see UTF-16 halves and so miss letters and digits beyond
/// U+FFFF (mathematical letters, rare Han, Deseret); the patterns of tokenizers mean code points.
/// </summary>
internal static class RuneClass
{
    private static readonly RuneKind[] Ascii = [.. Enumerable.Range(0, 128).Select(i => Slow(new Rune(i)))];

    /// <summary>The class of the code point at <paramref name="at"/>, and its length in UTF-16 units.</summary>
    public static RuneKind At(ReadOnlySpan<char> text, int at, out int length)
    {
        var c = text[at];
        if (c < 128)
        {
            length = 1;
            return Ascii[c];
        }

        Rune.DecodeFromUtf16(text[at..], out var rune, out length);
        return Slow(rune);
    }

    /// <summary>The end of the run of code points of one class that begins at <paramref name="at"/>.</summary>
    public static int EndOfRun(ReadOnlySpan<char> text, int at, RuneKind kind)
    {
        while (at < text.Length && At(text, at, out var length) == kind) at += length;
        return at;
    }

    private static RuneKind Slow(Rune rune) => Rune.GetUnicodeCategory(rune) switch
    {
        UnicodeCategory.UppercaseLetter or UnicodeCategory.LowercaseLetter or UnicodeCategory.TitlecaseLetter
            or UnicodeCategory.ModifierLetter or UnicodeCategory.OtherLetter => RuneKind.Letter,
        UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber => RuneKind.Number,
        _ => Rune.IsWhiteSpace(rune) ? RuneKind.Space : RuneKind.Other,
    };
}
