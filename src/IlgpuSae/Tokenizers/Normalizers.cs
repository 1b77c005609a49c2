using System.Globalization;
using System.Text;

namespace IlgpuSae.Tokenizers;

/// <summary>Several steps, one after another.</summary>
/// <param name="steps">The steps.</param>
internal sealed class ChangeSequence(IReadOnlyList<TextChange> steps)
{
    /// <summary>Whether there are none.</summary>
    public bool IsEmpty => steps.Count == 0;

    /// <summary>The changed text.</summary>
    public string Apply(string text)
    {
        foreach (var step in steps) text = step.Apply(text, first: true);
        return text;
    }

    /// <summary>The changed text and where each unit came from.</summary>
    public (string Text, Origin[] Origin) Trace(string text, ReadOnlySpan<Origin> origin)
    {
        var at = origin.ToArray();
        foreach (var step in steps) (text, at) = step.Trace(text, first: true, at);
        return (text, at);
    }
}

/// <summary>A change that takes each code point for itself.</summary>
internal abstract class RuneChange : TextChange
{
    /// <summary>What a code point becomes; null: itself.</summary>
    private protected abstract string? Of(Rune rune);

    private protected override string Change(string text, bool first, TextMap? map)
    {
        StringBuilder? changed = null;
        var kept = 0;
        for (var at = 0; at < text.Length;)
        {
            Rune.DecodeFromUtf16(text.AsSpan(at), out var rune, out var used);
            if (Of(rune) is { } other)
            {
                changed ??= new StringBuilder(text.Length + 16);
                changed.Append(text, kept, at - kept).Append(other);
                map?.Keep(at - kept);
                map?.Replace(used, other.Length);
                kept = at + used;
            }

            at += used;
        }

        if (changed is null) return text;
        map?.Keep(text.Length - kept);
        return changed.Append(text, kept, text.Length - kept).ToString();
    }
}

/// <summary>Unicode's normalization forms, <see cref="UnicodeNormalizer"/>.</summary>
/// <param name="compatibility">NFKC and NFKD.</param>
/// <param name="compose">NFC and NFKC.</param>
internal sealed class UnicodeForm(bool compatibility, bool compose) : TextChange
{
    private protected override string Change(string text, bool first, TextMap? map)
    {
        if (map is null) return UnicodeNormalizer.Form(text, compatibility, compose);
        if (UnicodeNormalizer.IsPlain(text, compatibility, compose)) return text;
        var changed = new StringBuilder(text.Length);
        foreach (var stretch in UnicodeNormalizer.Stretches(text, compatibility))
        {
            var before = text[stretch];
            var after = UnicodeNormalizer.Form(before, compatibility, compose);
            if (after == before) map.Keep(before.Length);
            else map.Replace(before.Length, after.Length);
            changed.Append(after);
        }

        return changed.ToString();
    }
}

/// <summary>Lower case, by Unicode's full mapping: İ is i and a dot above; a sigma at a word's end is not treated specially.</summary>
internal sealed class Lowercase : RuneChange
{
    private protected override string? Of(Rune rune)
    {
        if (rune.Value == 0x130) return "i\u0307"; // the only code point whose lower case has two
        var lower = Rune.ToLowerInvariant(rune);
        return lower == rune ? null : lower.ToString();
    }
}

/// <summary>Takes out combining marks (Mn), as Hugging Face's StripAccents does after NFD; its BERT normalizer too.</summary>
internal sealed class StripAccents : RuneChange
{
    private protected override string? Of(Rune rune) => Rune.GetUnicodeCategory(rune) == UnicodeCategory.NonSpacingMark ? "" : null;
}

/// <summary>Puts text in front of every stretch.</summary>
/// <param name="prefix">The text.</param>
internal sealed class PrependText(string prefix) : TextChange
{
    private protected override string Change(string text, bool first, TextMap? map)
    {
        map?.Replace(0, prefix.Length);
        map?.Keep(text.Length);
        return prefix + text;
    }
}

/// <summary>Puts text in place of a literal or of what a pattern matches.</summary>
internal sealed class ReplaceText : TextChange
{
    private readonly string? _literal;
    private readonly CodePointRegex? _pattern;
    private readonly string _content;

    public ReplaceText(string literal, string content) => (_literal, _content) = (literal, content);

    public ReplaceText(CodePointRegex pattern, string content) => (_pattern, _content) = (pattern, content);

    private protected override string Change(string text, bool first, TextMap? map)
    {
        // One unit for one is what nearly all tokenizers do here: spaces become ▁.
        if (map is null && _literal is not null) return text.Replace(_literal, _content, StringComparison.Ordinal);
        var found = _pattern is null ? Literals(text) : _pattern.Matches(text);
        if (found.Count == 0) return text;
        var changed = new StringBuilder(text.Length);
        var done = 0;
        foreach (var (start, end) in found)
        {
            changed.Append(text, done, start - done).Append(_content);
            map?.Keep(start - done);
            map?.Replace(end - start, _content.Length);
            done = end;
        }

        map?.Keep(text.Length - done);
        return changed.Append(text, done, text.Length - done).ToString();
    }

    private List<(int Start, int End)> Literals(string text)
    {
        var found = new List<(int, int)>();
        for (var at = 0; (at = text.IndexOf(_literal!, at, StringComparison.Ordinal)) >= 0; at += _literal!.Length) found.Add((at, at + _literal!.Length));
        return found;
    }
}

/// <summary>Takes white space away at the ends.</summary>
/// <param name="left">At the beginning.</param>
/// <param name="right">At the end.</param>
internal sealed class StripSpace(bool left, bool right) : TextChange
{
    private protected override string Change(string text, bool first, TextMap? map)
    {
        // White space is one UTF-16 unit each.
        int start = 0, end = text.Length;
        while (left && start < end && char.IsWhiteSpace(text[start])) start++;
        while (right && end > start && char.IsWhiteSpace(text[end - 1])) end--;
        if (end - start == text.Length) return text;
        map?.Replace(start, 0);
        map?.Keep(end - start);
        map?.Replace(text.Length - end, 0);
        return text[start..end];
    }
}

/// <summary>SentencePiece's rule "nmt": control characters vanish, the many kinds of white space become spaces.</summary>
internal sealed class NmtCharacters : RuneChange
{
    private protected override string? Of(Rune rune) => rune.Value switch
    {
        (>= 0x01 and <= 0x08) or 0x0B or (>= 0x0E and <= 0x1F) or 0x7F or 0x8F or 0x9F => "",
        0x09 or 0x0A or 0x0C or 0x0D or 0x1680 or (>= 0x200B and <= 0x200F) or 0x2028 or 0x2029 or 0x2581 or 0xFEFF or 0xFFFD => " ",
        _ => null,
    };
}

/// <summary>BERT's cleaning: control characters vanish, white space becomes spaces, Han characters get spaces around them.</summary>
/// <param name="clean">Whether control characters and white space are treated.</param>
/// <param name="han">Whether Han characters are.</param>
internal sealed class BertCharacters(bool clean, bool han) : RuneChange
{
    private protected override string? Of(Rune rune)
    {
        if (han && IsHan(rune.Value)) return $" {rune} ";
        if (!clean) return null;
        if (rune.Value is '\t' or '\n' or '\r') return " ";
        if (rune.Value is 0 or 0xFFFD || Rune.GetUnicodeCategory(rune) is UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.PrivateUse or UnicodeCategory.OtherNotAssigned) return "";
        return rune.Value != ' ' && Rune.IsWhiteSpace(rune) ? " " : null;
    }

    /// <summary>The blocks that BERT's own tokenizer lists (google-research/bert, tokenization.py, _is_chinese_char).</summary>
    private static bool IsHan(int c) => c is (>= 0x4E00 and <= 0x9FFF) or (>= 0x3400 and <= 0x4DBF) or (>= 0x20000 and <= 0x2A6DF)
        or (>= 0x2A700 and <= 0x2B73F) or (>= 0x2B740 and <= 0x2B81F) or (>= 0x2B920 and <= 0x2CEAF) or (>= 0xF900 and <= 0xFAFF) or (>= 0x2F800 and <= 0x2FA1F);
}

/// <summary>A space before text that does not begin with one: ByteLevel's add_prefix_space.</summary>
internal sealed class SpaceBefore : TextChange
{
    private protected override string Change(string text, bool first, TextMap? map)
    {
        if (text[0] == ' ') return text;
        map?.Replace(0, 1);
        map?.Keep(text.Length);
        return ' ' + text;
    }
}

/// <summary>Metaspace: spaces become ▁, and one may be put in front.</summary>
/// <param name="always">In front of every stretch.</param>
/// <param name="atFirst">In front of what begins the input.</param>
internal sealed class MetaspaceBefore(bool always, bool atFirst) : TextChange
{
    private protected override string Change(string text, bool first, TextMap? map)
    {
        var spaced = text.Replace(' ', '▁');
        if ((!always && !(atFirst && first)) || spaced[0] == '▁')
        {
            map?.Keep(text.Length);
            return spaced;
        }

        map?.Replace(0, 1);
        map?.Keep(text.Length);
        return '▁' + spaced;
    }
}
