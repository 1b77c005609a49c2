using System.Globalization;

namespace IlgpuSae.Files;

/// <summary>
/// The literals that NumPy's headers are made of: strings, integers, True, False, None, tuples, lists, dictionaries with
/// string keys. Everything else, and what is nested deeper than eight, is no literal. Nothing is evaluated.
/// </summary>
/// <param name="text">The source.</param>
internal sealed class PythonLiteral(string text)
{
    private const int MaxDepth = 8;
    private int _at;

    /// <summary>The source.</summary>
    public string Text { get; } = text;

    /// <summary>The value: string, long, bool, null, List (tuples too) or Dictionary; this object itself if it is none.</summary>
    public object? Read()
    {
        try
        {
            var value = Value(0);
            Blank();
            return _at == Text.Length ? value : this;
        }
        catch (FormatException)
        {
            return this;
        }
    }

    private object? Value(int depth)
    {
        if (depth > MaxDepth) throw new FormatException();
        Blank();
        if (_at == Text.Length) throw new FormatException();
        switch (Text[_at])
        {
            case '\'' or '"':
                return String(Text[_at++]);
            case '(':
                return Items(')', depth);
            case '[':
                return Items(']', depth);
            case '{':
                return Fields(depth);
            default:
                var start = _at;
                while (_at < Text.Length && (char.IsAsciiLetterOrDigit(Text[_at]) || Text[_at] is '-' or '+')) _at++;
                var word = Text[start.._at];
                return word switch
                {
                    "True" => true,
                    "False" => false,
                    "None" => null,
                    // Python 2 wrote long integers with an L.
                    _ => long.TryParse(word.EndsWith('L') ? word[..^1] : word, NumberStyles.None, CultureInfo.InvariantCulture, out var n) ? n : throw new FormatException(),
                };
        }
    }

    private string String(char quote)
    {
        var end = Text.IndexOf(quote, _at);
        if (end < 0 || Text[_at..end].Contains('\\', StringComparison.Ordinal)) throw new FormatException();
        var value = Text[_at..end];
        _at = end + 1;
        return value;
    }

    private List<object?> Items(char close, int depth)
    {
        _at++;
        var items = new List<object?>();
        while (!Closes(close))
        {
            items.Add(Value(depth + 1));
            Separated(close);
        }

        return items;
    }

    private Dictionary<string, object?> Fields(int depth)
    {
        _at++;
        var fields = new Dictionary<string, object?>(StringComparer.Ordinal);
        while (!Closes('}'))
        {
            if (Value(depth + 1) is not string key) throw new FormatException();
            Blank();
            if (_at == Text.Length || Text[_at++] != ':') throw new FormatException();
            if (!fields.TryAdd(key, Value(depth + 1))) throw new FormatException();
            Separated('}');
        }

        return fields;
    }

    private bool Closes(char close)
    {
        Blank();
        if (_at == Text.Length) throw new FormatException();
        if (Text[_at] != close) return false;
        _at++;
        return true;
    }

    private void Separated(char close)
    {
        Blank();
        if (_at == Text.Length) throw new FormatException();
        if (Text[_at] == ',') _at++;
        else if (Text[_at] != close) throw new FormatException();
    }

    private void Blank()
    {
        while (_at < Text.Length && char.IsWhiteSpace(Text[_at])) _at++;
    }
}
