using System.Text;

namespace IlgpuSae.Tokenizers.Jinja;

/// <summary>Names and their values; a loop's and a macro's names end with it.</summary>
/// <param name="outer">Where names that are not here are looked up.</param>
internal sealed class JinjaScope(JinjaScope? outer)
{
    private readonly Dictionary<string, object?> _names = new(StringComparer.Ordinal);

    /// <summary>The value of a name; undefined when it has none.</summary>
    public object? this[string name]
    {
        get
        {
            for (var s = this; s is not null; s = s.Outer)
                if (s._names.TryGetValue(name, out var value)) return value;
            return new JinjaUndefined(name);
        }
        set => _names[name] = value;
    }

    private JinjaScope? Outer { get; } = outer;
}

/// <summary>An expression.</summary>
internal delegate object? JinjaExpression(JinjaScope scope);

/// <summary>What a statement leaves behind.</summary>
internal enum JinjaFlow
{
    /// <summary>The next statement follows.</summary>
    Next,

    /// <summary>The loop ends.</summary>
    Break,

    /// <summary>The loop's next element follows.</summary>
    Continue,
}

/// <summary>A statement: writes text, sets names.</summary>
internal delegate JinjaFlow JinjaStatement(JinjaScope scope, StringBuilder output);

/// <summary>How statements and operators work.</summary>
internal static class JinjaNodes
{
    /// <summary>One after another.</summary>
    public static JinjaStatement Block(IReadOnlyList<JinjaStatement> statements) => (scope, output) =>
    {
        foreach (var s in statements)
            if (s(scope, output) is var flow and not JinjaFlow.Next) return flow;
        return JinjaFlow.Next;
    };

    /// <summary>for TARGETS in LIST if FILTER ... else ... endfor.</summary>
    public static JinjaStatement For(IReadOnlyList<string> targets, JinjaExpression list, JinjaExpression? filter, JinjaStatement body, JinjaStatement? otherwise) => (outer, output) =>
    {
        var items = JinjaValue.Elements(list(outer));
        if (filter is not null)
        {
            items = items.Where(item =>
            {
                var scope = new JinjaScope(outer);
                Bind(scope, targets, item);
                return JinjaValue.IsTrue(filter(scope));
            }).ToList();
        }

        for (var i = 0; i < items.Count; i++)
        {
            var scope = new JinjaScope(outer);
            Bind(scope, targets, items[i]);
            scope["loop"] = Loop(items, i);
            if (body(scope, output) == JinjaFlow.Break) break;
        }

        if (items.Count == 0) otherwise?.Invoke(outer, output);
        return JinjaFlow.Next;
    };

    /// <summary>A value to one name, or its elements to several.</summary>
    public static void Bind(JinjaScope scope, IReadOnlyList<string> targets, object? value)
    {
        if (targets.Count == 1)
        {
            scope[targets[0]] = value;
            return;
        }

        var parts = JinjaValue.Elements(value);
        if (parts.Count != targets.Count) throw new JinjaException(0, $"{parts.Count} values cannot be given to the {targets.Count} names {string.Join(", ", targets)}");
        for (var i = 0; i < parts.Count; i++) scope[targets[i]] = parts[i];
    }

    /// <summary>An operator between two values.</summary>
    public static object? Binary(string op, object? a, object? b)
    {
        switch (op)
        {
            case "==": return JinjaValue.AreEqual(a, b);
            case "!=": return !JinjaValue.AreEqual(a, b);
            case "<": return JinjaValue.Compare(a, b) < 0;
            case ">": return JinjaValue.Compare(a, b) > 0;
            case "<=": return JinjaValue.Compare(a, b) <= 0;
            case ">=": return JinjaValue.Compare(a, b) >= 0;
            case "in": return JinjaValue.Contains(b, a);
            case "not in": return !JinjaValue.Contains(b, a);
            case "~": return JinjaValue.Text(a) + JinjaValue.Text(b);
            case "+" when a is string s && b is string t: return s + t;
            case "+" when a is List<object?> l && b is List<object?> m: return l.Concat(m).ToList();
            case "*" when a is string s && b is long n: return Repeat(s, n);
            case "*" when a is long n && b is string s: return Repeat(s, n);
        }

        if (JinjaValue.Number(a) is not { } x || JinjaValue.Number(b) is not { } y) throw new JinjaException(0, $"{op} does not go between {JinjaValue.Kind(a)} and {JinjaValue.Kind(b)}");
        if (op is "/" or "//" or "%" && y == 0) throw new JinjaException(0, "division by zero");
        var whole = a is not double && b is not double;
        var (i, j) = whole ? ((long)x, (long)y) : (0, 0);
        try
        {
            return op switch
            {
                "+" => whole ? (object)checked(i + j) : x + y,
                "-" => whole ? (object)checked(i - j) : x - y,
                "*" => whole ? (object)checked(i * j) : x * y,
                "/" => x / y,
                // Python rounds down, not towards zero.
                "//" => whole ? (object)(i / j - (i % j != 0 && i < 0 != j < 0 ? 1 : 0)) : Math.Floor(x / y),
                "%" => whole ? (object)((i % j + j) % j) : x - y * Math.Floor(x / y),
                "**" => whole && j >= 0 ? (object)checked((long)Math.Pow(x, y)) : Math.Pow(x, y),
                _ => throw new JinjaException(0, $"{op} is no operator"),
            };
        }
        catch (OverflowException)
        {
            throw new JinjaException(0, $"{x} {op} {y} is too large");
        }
    }

    private static string Repeat(string s, long n) =>
        n * s.Length <= 1_000_000 ? string.Concat(Enumerable.Repeat(s, (int)Math.Max(0, n))) : throw new JinjaException(0, $"a text repeated {n} times is too long");

    private static JinjaMap Loop(List<object?> items, int i) => new()
    {
        ["index"] = (long)i + 1,
        ["index0"] = (long)i,
        ["revindex"] = (long)items.Count - i,
        ["revindex0"] = (long)items.Count - i - 1,
        ["first"] = i == 0,
        ["last"] = i == items.Count - 1,
        ["length"] = (long)items.Count,
        ["previtem"] = i > 0 ? items[i - 1] : new JinjaUndefined("previtem"),
        ["nextitem"] = i + 1 < items.Count ? items[i + 1] : new JinjaUndefined("nextitem"),
        ["depth"] = 1L,
        ["depth0"] = 0L,
        ["cycle"] = (JinjaFunction)((args, _) => args.Count > 0 ? args[i % args.Count] : throw new JinjaException(0, "loop.cycle has nothing to choose from")),
    };
}
