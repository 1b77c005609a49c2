using System.Globalization;

namespace IlgpuSae.Tokenizers.Jinja;

/// <summary>value | filter: Jinja's, as far as chat templates use them; tojson is Hugging Face's.</summary>
internal static class JinjaFilters
{
    /// <summary>The filters' names.</summary>
    public static IReadOnlyList<string> Known { get; } =
    [
        "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "indent", "int", "items", "join", "last", "length", "list", "lower",
        "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr", "sort", "string", "sum", "title", "tojson", "trim", "unique", "upper",
    ];

    /// <summary>What a filter makes of a value.</summary>
    public static object? Apply(string name, object? v, List<object?> args, JinjaMap named)
    {
        object? Arg(int i, string key) => i < args.Count ? args[i] : named.TryGet(key, out var value) ? value : null;
        switch (name)
        {
            case "trim": return Text(v).Trim(Arg(0, "chars") is string chars ? chars.ToCharArray() : null);
            case "upper": return Text(v).ToUpperInvariant();
            case "lower": return Text(v).ToLowerInvariant();
            case "title": return JinjaMethods.Title(Text(v));
            case "capitalize": return JinjaMethods.Capitalize(Text(v));
            case "string": return Text(v);
            case "safe": return v;
            case "e" or "escape": return Text(v).Replace("&", "&amp;", StringComparison.Ordinal).Replace("<", "&lt;", StringComparison.Ordinal).Replace(">", "&gt;", StringComparison.Ordinal).Replace("'", "&#39;", StringComparison.Ordinal).Replace("\"", "&#34;", StringComparison.Ordinal);
            case "length" or "count":
                return v is JinjaUndefined or string or List<object?> or JinjaMap ? (long)JinjaValue.Elements(v).Count : throw new JinjaException(0, $"{JinjaValue.Kind(v)} has no length");
            case "d" or "default":
                var missing = v is JinjaUndefined || (Arg(1, "boolean") is true && !JinjaValue.IsTrue(v));
                return missing ? Arg(0, "default_value") ?? (args.Count > 0 ? null : "") : v;
            case "replace": return JinjaMethods.Replace(Text(v), Text(Arg(0, "old")), Text(Arg(1, "new")), Arg(2, "count"));
            case "tojson": return JinjaValue.Json(v, named.TryGet("indent", out var by) && by is long n ? (int)Math.Clamp(n, 0, 16) : null);
            case "indent": return Indent(Text(v), Arg(0, "width"), Arg(1, "first") is true, Arg(2, "blank") is true);
            case "first": return JinjaValue.Elements(v) is { Count: > 0 } l ? l[0] : new JinjaUndefined("the first of nothing");
            case "last": return JinjaValue.Elements(v) is { Count: > 0 } m ? m[^1] : new JinjaUndefined("the last of nothing");
            case "list": return JinjaValue.Elements(v).ToList();
            case "reverse": return v is string s ? string.Concat(JinjaValue.Elements(s).AsEnumerable().Reverse()) : JinjaValue.Elements(v).AsEnumerable().Reverse().ToList();
            case "join": return string.Join(Text(Arg(0, "d") ?? ""), Mapped(v, Arg(1, "attribute")).Select(JinjaValue.Text));
            case "items": return v is JinjaUndefined ? new List<object?>() : v is JinjaMap map ? JinjaMethods.Items(map) : throw new JinjaException(0, $"{JinjaValue.Kind(v)} has no items");
            case "dictsort": return v is JinjaMap sorted ? JinjaMethods.Items(sorted).OrderBy(p => Text(((List<object?>)p!)[0]).ToLowerInvariant(), StringComparer.Ordinal).ToList() : throw new JinjaException(0, $"{JinjaValue.Kind(v)} is no mapping to sort");
            case "map": return Map(v, args, named);
            case "select" or "reject": return JinjaValue.Elements(v).Where(e => Passes(e, args, 0) == (name == "select")).ToList();
            case "selectattr" or "rejectattr": return JinjaValue.Elements(v).Where(e => Passes(Path(e, Text(args[0])), args, 1) == (name == "selectattr")).ToList();
            case "unique": return JinjaValue.Elements(v).Aggregate(new List<object?>(), (kept, e) => kept.Any(k => JinjaValue.AreEqual(k, e)) ? kept : [.. kept, e]);
            case "sort":
                var ordered = JinjaValue.Elements(v).OrderBy(e => Arg(2, "attribute") is string a ? Path(e, a) : e is string t && Arg(1, "case_sensitive") is not true ? t.ToLowerInvariant() : e, Comparer<object?>.Create(JinjaValue.Compare));
                return (Arg(0, "reverse") is true ? ordered.Reverse() : ordered).ToList();
            case "sum": return Mapped(v, Arg(0, "attribute")).Aggregate((object?)0L, (a, b) => JinjaNodes.Binary("+", a, b));
            case "max" or "min":
                var all = JinjaValue.Elements(v).Order(Comparer<object?>.Create(JinjaValue.Compare)).ToList();
                return all.Count == 0 ? new JinjaUndefined($"the {name} of nothing") : name == "max" ? all[^1] : all[0];
            case "abs": return v is long i ? (object)Math.Abs(i) : Math.Abs(Number(v));
            case "int": return v is string text ? double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var parsed) ? (long)parsed : 0L : JinjaValue.Number(v) is { } x ? (long)x : 0L;
            case "float": return v is string number ? double.TryParse(number, NumberStyles.Float, CultureInfo.InvariantCulture, out var d) ? d : 0.0 : JinjaValue.Number(v) ?? 0.0;
            case "round": return Math.Round(Number(v), (int)Math.Clamp(Arg(0, "precision") as long? ?? 0, 0, 15), MidpointRounding.ToEven);
            default: throw new JinjaException(0, $"the filter {name} is not known");
        }
    }

    private static string Text(object? v) => JinjaValue.Text(v);

    private static double Number(object? v) => JinjaValue.Number(v) ?? throw new JinjaException(0, $"{JinjaValue.Kind(v)} is no number");

    private static string Indent(string s, object? width, bool first, bool blank)
    {
        var space = width as string ?? new string(' ', (int)Math.Clamp(width as long? ?? 4, 0, 100));
        var lines = s.Split('\n');
        return string.Join('\n', lines.Select((line, i) => (i > 0 || first) && (blank || line.Length > 0 || i == 0) ? space + line : line));
    }

    private static List<object?> Map(object? v, List<object?> args, JinjaMap named)
    {
        if (named.TryGet("attribute", out var path)) return JinjaValue.Elements(v).Select(e => Path(e, Text(path)) is JinjaUndefined && named.TryGet("default", out var d) ? d : Path(e, Text(path))).ToList();
        if (args.Count == 0 || args[0] is not string filter || !Known.Contains(filter)) throw new JinjaException(0, "map needs a known filter's name or an attribute");
        return JinjaValue.Elements(v).Select(e => Apply(filter, e, args[1..], named)).ToList();
    }

    private static List<object?> Mapped(object? v, object? path) => path is null ? JinjaValue.Elements(v) : JinjaValue.Elements(v).Select(e => Path(e, Text(path))).ToList();

    private static object? Path(object? v, string path)
    {
        foreach (var part in path.Split('.')) v = JinjaValue.Item(v, long.TryParse(part, NumberStyles.None, CultureInfo.InvariantCulture, out var i) ? i : part);
        return v;
    }

    private static bool Passes(object? v, List<object?> args, int from)
    {
        if (args.Count <= from) return JinjaValue.IsTrue(v);
        return args[from] is string test && JinjaTests.Known.Contains(test)
            ? JinjaTests.Holds(test, v, args[(from + 1)..])
            : throw new JinjaException(0, $"the test {Files.Say.Quote(Text(args[from]))} is not known");
    }
}

/// <summary>value is test.</summary>
internal static class JinjaTests
{
    /// <summary>The tests' names.</summary>
    public static IReadOnlyList<string> Known { get; } =
    [
        "defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "integer", "float", "boolean", "true", "false", "callable", "odd", "even", "divisibleby",
        "in", "sameas", "eq", "equalto", "ne", "lt", "lessthan", "le", "gt", "greaterthan", "ge", "lower", "upper",
    ];

    /// <summary>Whether a test holds.</summary>
    public static bool Holds(string name, object? v, List<object?> args)
    {
        object? other = args.Count > 0 ? args[0] : null;
        return name switch
        {
            "defined" => v is not JinjaUndefined,
            "undefined" => v is JinjaUndefined,
            "none" => v is null,
            "string" => v is string,
            "mapping" => v is JinjaMap { IsNamespace: false },
            "iterable" or "sequence" => v is string or List<object?> or JinjaMap or JinjaUndefined,
            "number" => v is long or double or bool,
            "integer" => v is long,
            "float" => v is double,
            "boolean" => v is bool,
            "true" => v is true,
            "false" => v is false,
            "callable" => v is JinjaFunction,
            "odd" => JinjaNodes.Binary("%", v, 2L) is 1L,
            "even" => JinjaNodes.Binary("%", v, 2L) is 0L,
            "divisibleby" => JinjaNodes.Binary("%", v, other) is 0L,
            "in" => JinjaValue.Contains(other, v),
            "sameas" => v is null or bool ? Equals(v, other) : ReferenceEquals(v, other) || (v is string or long && Equals(v, other)),
            "eq" or "equalto" => JinjaValue.AreEqual(v, other),
            "ne" => !JinjaValue.AreEqual(v, other),
            "lt" or "lessthan" => JinjaValue.Compare(v, other) < 0,
            "le" => JinjaValue.Compare(v, other) <= 0,
            "gt" or "greaterthan" => JinjaValue.Compare(v, other) > 0,
            "ge" => JinjaValue.Compare(v, other) >= 0,
            "lower" => v is string s && s.Any(char.IsLower) && !s.Any(char.IsUpper),
            "upper" => v is string s && s.Any(char.IsUpper) && !s.Any(char.IsLower),
            _ => throw new JinjaException(0, $"the test {name} is not known"),
        };
    }
}
