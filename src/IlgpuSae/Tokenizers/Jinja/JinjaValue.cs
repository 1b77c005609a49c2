using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace IlgpuSae.Tokenizers.Jinja;

/// <summary>What a name or key that does not exist gives: empty text, false, no elements; anything else is an error.</summary>
/// <param name="name">What was looked for.</param>
internal sealed class JinjaUndefined(string name)
{
    /// <summary>What was looked for.</summary>
    public string Name { get; } = name;
}

/// <summary>A mapping in the order of its keys' arrival: a Python dict with text keys, or Jinja's namespace().</summary>
internal sealed class JinjaMap
{
    private readonly Dictionary<string, object?> _values = new(StringComparer.Ordinal);
    private readonly List<string> _keys = [];

    /// <summary>Whether this is a namespace(), whose entries may be set.</summary>
    public bool IsNamespace { get; init; }

    /// <summary>The keys, in order.</summary>
    public IReadOnlyList<string> Keys => _keys;

    /// <summary>A value.</summary>
    public object? this[string key]
    {
        get => _values[key];
        set
        {
            if (!_values.ContainsKey(key)) _keys.Add(key);
            _values[key] = value;
        }
    }

    /// <summary>The value of a key, if there is one.</summary>
    public bool TryGet(string key, out object? value) => _values.TryGetValue(key, out value);
}

/// <summary>Something that can be called.</summary>
/// <param name="args">Arguments by place.</param>
/// <param name="named">Arguments by name.</param>
internal delegate object? JinjaFunction(IReadOnlyList<object?> args, JinjaMap named);

/// <summary>
/// Python's rules for the values of a template: null is None, long and double are numbers, List is list and tuple.
/// </summary>
internal static class JinjaValue
{
    /// <summary>Python's truth.</summary>
    public static bool IsTrue(object? v) => v switch
    {
        null or JinjaUndefined => false,
        bool b => b,
        long n => n != 0,
        double d => d != 0,
        string s => s.Length > 0,
        List<object?> l => l.Count > 0,
        JinjaMap m => m.IsNamespace || m.Keys.Count > 0,
        _ => true,
    };

    /// <summary>Python's str().</summary>
    public static string Text(object? v) => v switch
    {
        string s => s,
        JinjaUndefined => "",
        _ => Repr(v),
    };

    /// <summary>Python's repr().</summary>
    public static string Repr(object? v) => v switch
    {
        null => "None",
        bool b => b ? "True" : "False",
        long n => n.ToString(CultureInfo.InvariantCulture),
        double d => Float(d),
        string s => Quote(s),
        List<object?> l => "[" + string.Join(", ", l.Select(Repr)) + "]",
        JinjaMap m => "{" + string.Join(", ", m.Keys.Select(k => $"{Quote(k)}: {Repr(m[k])}")) + "}",
        JinjaUndefined => "Undefined",
        _ => "<function>",
    };

    /// <summary>Python's ==.</summary>
    public static bool AreEqual(object? a, object? b)
    {
        if (Number(a) is { } x && Number(b) is { } y) return x == y;
        return (a, b) switch
        {
            (null, null) or (JinjaUndefined, JinjaUndefined) => true,
            (string s, string t) => s == t,
            (List<object?> l, List<object?> m) => l.Count == m.Count && l.Zip(m).All(p => AreEqual(p.First, p.Second)),
            (JinjaMap l, JinjaMap m) => l.Keys.Count == m.Keys.Count && l.Keys.All(k => m.TryGet(k, out var v) && AreEqual(l[k], v)),
            _ => a is not null && ReferenceEquals(a, b),
        };
    }

    /// <summary>Python's order of numbers and of texts.</summary>
    public static int Compare(object? a, object? b)
    {
        if (Number(a) is { } x && Number(b) is { } y) return x.CompareTo(y);
        if (a is string s && b is string t)
        {
            // By code points, as Python does; UTF-16 would put U+E000 after the code points beyond U+FFFF.
            return Encoding.UTF8.GetBytes(s).AsSpan().SequenceCompareTo(Encoding.UTF8.GetBytes(t));
        }

        throw new JinjaException(0, $"{Kind(a)} and {Kind(b)} cannot be compared");
    }

    /// <summary>Python's in.</summary>
    public static bool Contains(object? container, object? item) => container switch
    {
        string s when item is string t => s.Contains(t, StringComparison.Ordinal),
        List<object?> l => l.Any(v => AreEqual(v, item)),
        JinjaMap m => item is string key && m.TryGet(key, out _),
        JinjaUndefined => false,
        _ => throw new JinjaException(0, $"{Kind(item)} cannot be looked for in {Kind(container)}"),
    };

    /// <summary>The elements to loop over: of a list, the keys of a mapping, the characters of a text.</summary>
    public static List<object?> Elements(object? v) => v switch
    {
        List<object?> l => l,
        JinjaMap m => [.. m.Keys],
        string s => [.. s.EnumerateRunes().Select(r => (object?)r.ToString())],
        JinjaUndefined => [],
        _ => throw new JinjaException(0, $"{Kind(v)} has no elements to loop over"),
    };

    /// <summary>v[key].</summary>
    public static object? Item(object? v, object? key)
    {
        switch (v, key)
        {
            case (JinjaMap m, string name): return m.TryGet(name, out var value) ? value : new JinjaUndefined(name);
            case (List<object?> l, long i): return (i < 0 ? i + l.Count : i) is >= 0 and var n && n < l.Count ? l[(int)n] : new JinjaUndefined($"element {i}");
            case (string s, long i):
                var runes = s.EnumerateRunes().ToList();
                return (i < 0 ? i + runes.Count : i) is >= 0 and var k && k < runes.Count ? runes[(int)k].ToString() : new JinjaUndefined($"character {i}");
            case (JinjaUndefined u, _): throw new JinjaException(0, $"{Files.Say.Quote(u.Name)} is undefined, so it has no {Text(key)}");
            default: return new JinjaUndefined(Text(key));
        }
    }

    /// <summary>v[start:stop:step].</summary>
    public static object Slice(object? v, long? start, long? stop, long step)
    {
        if (step == 0) throw new JinjaException(0, "a slice's step is 0");
        var items = v is string or List<object?> ? Elements(v) : throw new JinjaException(0, $"{Kind(v)} cannot be sliced");
        long n = items.Count, low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
        long Clip(long? i, long missing) => i is { } k ? Math.Clamp(k < 0 ? k + n : k, low, high) : missing;
        long from = Clip(start, step > 0 ? 0 : n - 1), to = Clip(stop, step > 0 ? n : -1);
        var part = new List<object?>();
        for (var i = from; step > 0 ? i < to : i > to; i += step) part.Add(items[(int)i]);
        return v is string ? string.Concat(part) : part;
    }

    /// <summary>The number that a value counts as; null: none.</summary>
    public static double? Number(object? v) => v switch { long n => n, double d => d, bool b => b ? 1 : 0, _ => null };

    /// <summary>What a value is, for messages.</summary>
    public static string Kind(object? v) => v switch
    {
        null => "None",
        bool => "a truth value",
        long or double => "a number",
        string => "a text",
        List<object?> => "a list",
        JinjaMap => "a mapping",
        JinjaUndefined u => $"{Files.Say.Quote(u.Name)}, which is undefined,",
        _ => "a function",
    };

    /// <summary>JSON as a value.</summary>
    public static object? From(JsonNode? node)
    {
        switch (node)
        {
            case null: return null;
            case JsonArray list: return list.Select(From).ToList();
            case JsonObject o:
                var map = new JinjaMap();
                foreach (var (key, value) in o) map[key] = From(value);
                return map;
            default:
                var v = node.AsValue();
                return v.GetValueKind() switch
                {
                    JsonValueKind.True => true,
                    JsonValueKind.False => false,
                    JsonValueKind.Number when v.ToJsonString() is var text => text.AsSpan().IndexOfAny(".eE") < 0 && long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var n) ? (object)n : double.Parse(text, CultureInfo.InvariantCulture),
                    _ => v.ToString(),
                };
        }
    }

    /// <summary>Python's json.dumps with ensure_ascii off, as Hugging Face's tojson has it.</summary>
    public static string Json(object? v, int? indent, int depth = 0)
    {
        var (open, between, close) = indent is { } n
            ? ("\n" + new string(' ', n * (depth + 1)), ",\n" + new string(' ', n * (depth + 1)), "\n" + new string(' ', n * depth))
            : ("", ", ", "");
        return v switch
        {
            null => "null",
            bool b => b ? "true" : "false",
            string s => JsonText(s),
            List<object?> { Count: 0 } => "[]",
            JinjaMap { Keys.Count: 0 } => "{}",
            List<object?> l => "[" + open + string.Join(between, l.Select(e => Json(e, indent, depth + 1))) + close + "]",
            JinjaMap m => "{" + open + string.Join(between, m.Keys.Select(k => $"{JsonText(k)}: {Json(m[k], indent, depth + 1)}")) + close + "}",
            long or double => Repr(v),
            _ => throw new JinjaException(0, $"{Kind(v)} cannot be written as JSON"),
        };
    }

    private static string JsonText(string s)
    {
        var j = new StringBuilder("\"");
        foreach (var c in s)
        {
            j.Append(c switch
            {
                '"' => "\\\"",
                '\\' => "\\\\",
                '\n' => "\\n",
                '\r' => "\\r",
                '\t' => "\\t",
                '\b' => "\\b",
                '\f' => "\\f",
                < ' ' => $"\\u{(int)c:x4}",
                _ => c.ToString(),
            });
        }

        return j.Append('"').ToString();
    }

    private static string Float(double d)
    {
        if (double.IsNaN(d)) return "nan";
        if (double.IsInfinity(d)) return d > 0 ? "inf" : "-inf";
        if (d == Math.Floor(d) && Math.Abs(d) < 1e16) return d.ToString("F1", CultureInfo.InvariantCulture);
        var s = d.ToString("R", CultureInfo.InvariantCulture);
        return s.Contains('E', StringComparison.Ordinal) ? s.Replace("E", "e", StringComparison.Ordinal) : s;
    }

    private static string Quote(string s)
    {
        var quote = s.Contains('\'', StringComparison.Ordinal) && !s.Contains('"', StringComparison.Ordinal) ? '"' : '\'';
        var r = new StringBuilder().Append(quote);
        foreach (var c in s)
            r.Append(c == quote || c == '\\' ? $"\\{c}" : c switch { '\n' => "\\n", '\r' => "\\r", '\t' => "\\t", < ' ' or '\x7f' => $"\\x{(int)c:x2}", _ => c.ToString() });
        return r.Append(quote).ToString();
    }
}
