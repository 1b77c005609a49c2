using System.Globalization;

namespace IlgpuSae.Tokenizers.Jinja;

/// <summary>value.name: Python's methods of texts, lists and mappings, then a mapping's entries.</summary>
internal static class JinjaMethods
{
    /// <summary>The attribute of a value; undefined when it has none.</summary>
    public static object? Attribute(object? owner, string name)
    {
        if (long.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out var index)) return JinjaValue.Item(owner, index);
        var method = owner switch
        {
            string s => OfText(s, name),
            List<object?> l => OfList(l, name),
            JinjaMap m => OfMapping(m, name),
            _ => null,
        };
        return method ?? JinjaValue.Item(owner, name);
    }

    private static JinjaFunction? OfText(string s, string name) => name switch
    {
        "strip" => (a, _) => Strip(s, a, left: true, right: true),
        "lstrip" => (a, _) => Strip(s, a, left: true, right: false),
        "rstrip" => (a, _) => Strip(s, a, left: false, right: true),
        "upper" => (_, _) => s.ToUpperInvariant(),
        "lower" => (_, _) => s.ToLowerInvariant(),
        "title" => (_, _) => Title(s),
        "capitalize" => (_, _) => Capitalize(s),
        "startswith" => (a, _) => Any(a, p => s.StartsWith(p, StringComparison.Ordinal)),
        "endswith" => (a, _) => Any(a, p => s.EndsWith(p, StringComparison.Ordinal)),
        "removeprefix" => (a, _) => Text(a, 0) is var p && s.StartsWith(p, StringComparison.Ordinal) ? s[p.Length..] : s,
        "removesuffix" => (a, _) => Text(a, 0) is var p && p.Length > 0 && s.EndsWith(p, StringComparison.Ordinal) ? s[..^p.Length] : s,
        "replace" => (a, _) => Replace(s, Text(a, 0), Text(a, 1), a.Count > 2 ? a[2] : null),
        "split" => (a, n) => Split(s, a, n),
        "splitlines" => (_, _) => s.Length == 0 ? new List<object?>() : [.. (s.EndsWith('\n') ? s[..^1] : s).Split('\n')],
        "join" => (a, _) => string.Join(s, JinjaValue.Elements(a.Count > 0 ? a[0] : null).Select(JinjaValue.Text)),
        "find" => (a, _) => (long)s.IndexOf(Text(a, 0), StringComparison.Ordinal),
        "count" => (a, _) => (long)(s.Split(Text(a, 0)).Length - 1),
        "isdigit" => (_, _) => s.Length > 0 && s.All(char.IsDigit),
        "isspace" => (_, _) => s.Length > 0 && s.All(char.IsWhiteSpace),
        _ => null,
    };

    private static JinjaFunction? OfList(List<object?> l, string name) => name switch
    {
        "index" => (a, _) => l.FindIndex(v => JinjaValue.AreEqual(v, a.Count > 0 ? a[0] : null)) is >= 0 and var i ? (long)i : throw new JinjaException(0, "a value is not in the list"),
        "count" => (a, _) => (long)l.Count(v => JinjaValue.AreEqual(v, a.Count > 0 ? a[0] : null)),
        "append" or "extend" or "insert" or "pop" => throw new JinjaException(0, $"lists cannot be changed ({name}); Hugging Face renders templates in a sandbox that forbids it"),
        _ => null,
    };

    private static JinjaFunction? OfMapping(JinjaMap m, string name) => name switch
    {
        _ when m.IsNamespace => null,
        "items" => (_, _) => Items(m),
        "keys" => (_, _) => m.Keys.Select(k => (object?)k).ToList(),
        "values" => (_, _) => m.Keys.Select(k => m[k]).ToList(),
        "get" => (a, _) => a.Count > 0 && a[0] is string key && m.TryGet(key, out var v) ? v : a.Count > 1 ? a[1] : null,
        _ => null,
    };

    /// <summary>Keys and values in pairs.</summary>
    public static List<object?> Items(JinjaMap m) => m.Keys.Select(k => (object?)new List<object?> { k, m[k] }).ToList();

    /// <summary>The first character in upper case, the others in lower.</summary>
    public static string Capitalize(string s) => s.Length == 0 ? s : char.ToUpperInvariant(s[0]) + s[1..].ToLowerInvariant();

    /// <summary>Each word capitalized.</summary>
    public static string Title(string s)
    {
        var chars = s.ToCharArray();
        for (var i = 0; i < chars.Length; i++)
            chars[i] = i > 0 && char.IsLetter(chars[i - 1]) ? char.ToLowerInvariant(chars[i]) : char.ToUpperInvariant(chars[i]);
        return new string(chars);
    }

    /// <summary>Up to so many replacements; null: all.</summary>
    public static string Replace(string s, string old, string @new, object? count)
    {
        if (count is null or < 0L && old.Length > 0) return s.Replace(old, @new, StringComparison.Ordinal);
        if (old.Length == 0) throw new JinjaException(0, "the text to replace is empty");
        for (long left = count is long n ? n : long.MaxValue, at = 0; left > 0 && s.IndexOf(old, (int)at, StringComparison.Ordinal) is >= 0 and var i; left--)
        {
            s = s[..i] + @new + s[(i + old.Length)..];
            at = i + @new.Length;
        }

        return s;
    }

    private static string Strip(string s, IReadOnlyList<object?> args, bool left, bool right)
    {
        char[]? chars = args.Count > 0 && args[0] is string c ? c.ToCharArray() : null;
        if (left) s = s.TrimStart(chars);
        return right ? s.TrimEnd(chars) : s;
    }

    private static bool Any(IReadOnlyList<object?> args, Func<string, bool> holds) =>
        args.Count > 0 && (args[0] is List<object?> many ? many.OfType<string>().Any(holds) : holds(Text(args, 0)));

    private static List<object?> Split(string s, IReadOnlyList<object?> args, JinjaMap named)
    {
        var most = (args.Count > 1 ? args[1] : named.TryGet("maxsplit", out var m) ? m : null) is long n and >= 0 ? (int)Math.Min(n, int.MaxValue - 1) + 1 : int.MaxValue;
        if (args.Count > 0 && args[0] is string separator) return [.. s.Split(separator, most)];
        var words = new List<object?>();
        for (var rest = s.TrimStart(); rest.Length > 0;)
        {
            var end = words.Count + 1 == most ? -1 : Array.FindIndex(rest.ToCharArray(), char.IsWhiteSpace);
            words.Add(end < 0 ? rest.TrimEnd() : rest[..end]);
            rest = end < 0 ? "" : rest[end..].TrimStart();
        }

        return words;
    }

    private static string Text(IReadOnlyList<object?> args, int i) =>
        i < args.Count && args[i] is string s ? s : throw new JinjaException(0, $"argument {i + 1} of a text's method is {(i < args.Count ? JinjaValue.Kind(args[i]) : "missing")}, expected a text");
}
