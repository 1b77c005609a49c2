using System.Text;

namespace IlgpuSae.Tokenizers;

/// <summary>Takes up the tokens of a text, with their places where those are wanted.</summary>
internal sealed class TokenSink
{
    private readonly string _text;
    private readonly int[] _bytesBefore;

    /// <summary>Takes ids alone.</summary>
    public TokenSink() => (_text, _bytesBefore) = ("", []);

    /// <summary>Takes ids and places.</summary>
    /// <param name="text">The input.</param>
    public TokenSink(string text)
    {
        _text = text;
        Spans = [];
        _bytesBefore = new int[text.Length + 1];
        for (var i = 0; i < text.Length; i++)
        {
            // Two bytes for each half of a pair: together its four.
            var c = text[i];
            _bytesBefore[i + 1] = _bytesBefore[i] + (c < 0x80 ? 1 : c < 0x800 || char.IsSurrogate(c) ? 2 : 3);
        }
    }

    /// <summary>The ids, in order.</summary>
    public List<int> Ids { get; } = [];

    /// <summary>The tokens with their places; null when they are not wanted.</summary>
    public List<TokenSpan>? Spans { get; }

    /// <summary>A token that stands for a stretch of the input as it is.</summary>
    public void Add(int id, int start, int end)
    {
        Ids.Add(id);
        Spans?.Add(new(id, start, end, _bytesBefore[start], _bytesBefore[end]));
    }

    /// <summary>The tokens of a word.</summary>
    /// <param name="ids">The tokens.</param>
    /// <param name="lengths">How many bytes of the word's UTF-8 each stands for.</param>
    /// <param name="word">The word, as the model saw it.</param>
    /// <param name="origin">Where each of its units came from.</param>
    public void Add(ReadOnlySpan<int> ids, List<int> lengths, ReadOnlySpan<char> word, ReadOnlySpan<Origin> origin)
    {
        int unit = 0, inside = 0; // inside: bytes of the code point at unit that are taken already
        for (var i = 0; i < ids.Length; i++)
        {
            var (start, byteStart) = Place(word, origin, unit, inside);
            var (end, byteEnd) = (start, byteStart);
            for (var bytes = lengths[i]; bytes > 0 && unit < word.Length;)
            {
                Rune.DecodeFromUtf16(word[unit..], out var rune, out var units);
                var taken = Math.Min(bytes, rune.Utf8SequenceLength - inside);
                (bytes, inside) = (bytes - taken, inside + taken);
                end = Math.Max(end, origin[unit + units - 1].End);
                byteEnd = _bytesBefore[end];
                if (inside < rune.Utf8SequenceLength)
                {
                    if (IsAsWritten(word, origin, unit, units)) byteEnd = _bytesBefore[origin[unit].Start] + inside;
                }
                else
                {
                    (unit, inside) = (unit + units, 0);
                }
            }

            Ids.Add(ids[i]);
            Spans!.Add(new(ids[i], start, end, byteStart, byteEnd));
        }
    }

    private (int Char, int Byte) Place(ReadOnlySpan<char> word, ReadOnlySpan<Origin> origin, int unit, int inside)
    {
        if (unit == word.Length) return (origin[^1].End, _bytesBefore[origin[^1].End]);
        var start = origin[unit].Start;
        if (inside == 0) return (start, _bytesBefore[start]);
        Rune.DecodeFromUtf16(word[unit..], out _, out var units);
        return (start, _bytesBefore[start] + (IsAsWritten(word, origin, unit, units) ? inside : 0));
    }

    private bool IsAsWritten(ReadOnlySpan<char> word, ReadOnlySpan<Origin> origin, int unit, int units) =>
        _text.AsSpan(origin[unit].Start, origin[unit + units - 1].End - origin[unit].Start).SequenceEqual(word.Slice(unit, units));
}
