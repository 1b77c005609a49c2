namespace IlgpuSae.Tokenizers;

/// <summary>The stretch of the input that one UTF-16 unit of a changed text stands for.</summary>
/// <param name="Start">Its first unit.</param>
/// <param name="End">The unit after its last; the same as <paramref name="Start"/> for what stands for nothing.</param>
internal readonly record struct Origin(int Start, int End);

/// <summary>A step that changes text before it is cut: a normalizer, or the part of a pre-tokenizer that does so.</summary>
internal abstract class TextChange
{
    /// <summary>The changed text.</summary>
    /// <param name="text">Not empty, without lone surrogates.</param>
    /// <param name="first">Whether nothing of the input stood before it.</param>
    public string Apply(string text, bool first) => text.Length == 0 ? text : Change(text, first, null);

    /// <summary>The changed text and where each of its units came from.</summary>
    /// <param name="text">The text.</param>
    /// <param name="first">Whether nothing of the input stood before it.</param>
    /// <param name="origin">Where each unit of <paramref name="text"/> came from.</param>
    public (string Text, Origin[] Origin) Trace(string text, bool first, ReadOnlySpan<Origin> origin)
    {
        if (text.Length == 0) return (text, []);
        var map = new TextMap();
        var changed = Change(text, first, map);
        return ReferenceEquals(changed, text) ? (text, origin.ToArray()) : (changed, map.Over(origin));
    }

    /// <summary>Changes the text and, unless it is returned as it came, says in <paramref name="map"/> how, from left to right.</summary>
    private protected abstract string Change(string text, bool first, TextMap? map);
}

/// <summary>How a text was changed, as its step tells it from left to right.</summary>
internal sealed class TextMap
{
    private readonly List<Origin> _units = [];
    private int _at;

    /// <summary>Units that stay, each for itself.</summary>
    public void Keep(int units)
    {
        for (var i = 0; i < units; i++) _units.Add(new(_at + i, _at + i + 1));
        _at += units;
    }

    /// <summary>Units of the old text that become units of the new one, all for all; either number may be 0.</summary>
    public void Replace(int old, int @new)
    {
        for (var i = 0; i < @new; i++) _units.Add(new(_at, _at + old));
        _at += old;
    }

    /// <summary>The last units of the new text vanish again.</summary>
    public void Cut(int units) => _units.RemoveRange(_units.Count - units, units);

    /// <summary>The units' origins in the input, given those of the old text.</summary>
    public Origin[] Over(ReadOnlySpan<Origin> old)
    {
        var result = new Origin[_units.Count];
        for (var i = 0; i < result.Length; i++)
        {
            var (start, end) = _units[i];
            var from = start < old.Length ? old[start].Start : old.Length > 0 ? old[^1].End : 0;
            result[i] = new(from, end > start ? old[end - 1].End : from);
        }

        return result;
    }
}
