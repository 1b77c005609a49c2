namespace IlgpuSae.Tokenizers;

/// <summary>
/// Cuts a text into pieces that no token crosses. The pieces cover the text without gaps; each call gives the end of
/// the piece that begins at a place.
/// </summary>
internal abstract class Splitter
{
    /// <summary>End of the piece that begins at <paramref name="at"/>; always beyond it.</summary>
    public abstract int Next(ReadOnlySpan<char> text, int at);

    /// <summary>All pieces at once, and whether each is kept; null for splitters that tell one piece after another and keep all.</summary>
    public virtual List<(int End, bool Keep)>? Cut(ReadOnlySpan<char> text) => null;

    /// <summary>The white-space rules that all patterns end with: \s+(?!\S)|\s+ (the last space stays for the word after it).</summary>
    private protected static int EndOfSpaces(ReadOnlySpan<char> text, int at)
    {
        var end = RuneClass.EndOfRun(text, at, RuneKind.Space);
        // Every white-space code point is one UTF-16 unit, so one step back is one code point back.
        return end == text.Length || end - at == 1 ? end : end - 1;
    }
}

/// <summary>
/// GPT-2's pattern: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ (Radford et al. 2019,
/// encoder.py), by code points.
/// </summary>
internal sealed class Gpt2Splitter : Splitter
{
    /// <summary>The pattern as tokenizer files write it.</summary>
    public const string Pattern = @"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

    /// <inheritdoc/>
    public override int Next(ReadOnlySpan<char> text, int at)
    {
        if (text[at] == '\'' && Contraction(text[(at + 1)..]) is > 0 and var n) return at + 1 + n;
        var kind = RuneClass.At(text, at, out var length);
        if (text[at] == ' ' && at + 1 < text.Length && RuneClass.At(text, at + 1, out _) is var after && after != RuneKind.Space)
            return RuneClass.EndOfRun(text, at + 1, after);
        return kind == RuneKind.Space ? EndOfSpaces(text, at) : RuneClass.EndOfRun(text, at + length, kind);
    }

    private static int Contraction(ReadOnlySpan<char> s) => s switch
    {
        ['s' or 't' or 'm' or 'd', ..] => 1,
        ['r' or 'v', 'e', ..] or ['l', 'l', ..] => 2,
        _ => 0,
    };
}

/// <summary>
/// The pattern of tiktoken's cl100k family as Llama 3 and Qwen2 write it:
/// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+,
/// by code points. Qwen2 has single digits, \p{N}.
/// </summary>
/// <param name="digits">Most digits in one piece: 3 for Llama 3, 1 for Qwen2.</param>
internal sealed class Cl100kSplitter(int digits) : Splitter
{
    /// <summary>The pattern as tokenizer files write it, up to three digits a piece.</summary>
    public const string Pattern3 = @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    /// <summary>The pattern as tokenizer files write it, one digit a piece.</summary>
    public const string Pattern1 = @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    /// <inheritdoc/>
    public override int Next(ReadOnlySpan<char> text, int at)
    {
        if (text[at] == '\'' && Contraction(text[(at + 1)..]) is > 0 and var n) return at + 1 + n;
        var kind = RuneClass.At(text, at, out var length);
        if (kind == RuneKind.Letter) return RuneClass.EndOfRun(text, at, RuneKind.Letter);
        if (kind == RuneKind.Number)
        {
            for (var i = 0; i < digits && at < text.Length && RuneClass.At(text, at, out length) == RuneKind.Number; i++) at += length;
            return at;
        }

        var after = at + length < text.Length ? RuneClass.At(text, at + length, out _) : RuneKind.Space;
        if (text[at] is not ('\r' or '\n') && after == RuneKind.Letter) return RuneClass.EndOfRun(text, at + length, RuneKind.Letter);
        if (kind == RuneKind.Other || (text[at] == ' ' && after == RuneKind.Other))
        {
            at = RuneClass.EndOfRun(text, at + length, RuneKind.Other);
            while (at < text.Length && text[at] is '\r' or '\n') at++;
            return at;
        }

        var spaces = text[at..RuneClass.EndOfRun(text, at, RuneKind.Space)];
        var newline = spaces.LastIndexOfAny('\r', '\n');
        return newline >= 0 ? at + newline + 1 : EndOfSpaces(text, at);
    }

    /// <summary>Case is ignored as Unicode does it: ſ (U+017F) is an s.</summary>
    private static int Contraction(ReadOnlySpan<char> s) => s switch
    {
        ['s' or 'S' or '\u017F' or 't' or 'T' or 'm' or 'M' or 'd' or 'D', ..] => 1,
        ['r' or 'R' or 'v' or 'V', 'e' or 'E', ..] or ['l' or 'L', 'l' or 'L', ..] => 2,
        _ => 0,
    };
}

/// <summary>Cuts numbers out of the text, each code point of \p{N} alone or runs of them whole; the rest goes to the next splitter.</summary>
/// <param name="alone">Whether each digit is a piece of its own.</param>
internal sealed class DigitSplitter(bool alone) : Splitter
{
    /// <inheritdoc/>
    public override int Next(ReadOnlySpan<char> text, int at)
    {
        if (RuneClass.At(text, at, out var length) == RuneKind.Number)
            return alone ? at + length : RuneClass.EndOfRun(text, at, RuneKind.Number);
        while (at < text.Length && RuneClass.At(text, at, out length) != RuneKind.Number) at += length;
        return at;
    }
}
