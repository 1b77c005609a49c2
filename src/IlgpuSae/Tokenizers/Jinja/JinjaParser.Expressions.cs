namespace IlgpuSae.Tokenizers.Jinja;

/// <content>Expressions, in the order in which their operators bind, the loosest first.</content>
internal sealed partial class JinjaParser
{
    private static readonly string[] Comparisons = ["==", "!=", "<=", ">=", "<", ">"];

    /// <summary>a, b: a tuple where a comma follows.</summary>
    private JinjaExpression Tuple()
    {
        var first = Expression();
        if (Here is not { Kind: JinjaKind.Sign, Text: "," }) return first;
        var parts = new List<JinjaExpression> { first };
        while (TrySign(",")) parts.Add(Expression());
        return scope => parts.Select(p => p(scope)).ToList();
    }

    /// <summary>a if test else b.</summary>
    private JinjaExpression Expression()
    {
        if (++_depth > 100) throw Wrong("expressions are nested more than 100 deep");
        var value = Or();
        while (TryWord("if"))
        {
            var (yes, test) = (value, Or());
            var no = TryWord("else") ? Expression() : static _ => new JinjaUndefined("the missing else");
            value = scope => JinjaValue.IsTrue(test(scope)) ? yes(scope) : no(scope);
        }

        _depth--;
        return value;
    }

    private JinjaExpression Or()
    {
        var left = And();
        while (TryWord("or"))
        {
            var (a, b) = (left, And());
            left = scope => a(scope) is var v && JinjaValue.IsTrue(v) ? v : b(scope);
        }

        return left;
    }

    private JinjaExpression And()
    {
        var left = Not();
        while (TryWord("and"))
        {
            var (a, b) = (left, Not());
            left = scope => a(scope) is var v && !JinjaValue.IsTrue(v) ? v : b(scope);
        }

        return left;
    }

    private JinjaExpression Not()
    {
        if (!TryWord("not")) return Comparison();
        var value = Not();
        return scope => !JinjaValue.IsTrue(value(scope));
    }

    /// <summary>a &lt; b &lt; c means both, as in Python.</summary>
    private JinjaExpression Comparison()
    {
        var first = Sum();
        var rest = new List<(string Op, JinjaExpression Value)>();
        while (ComparisonSign() is { } op) rest.Add((op, Sum()));
        if (rest.Count == 0) return first;
        return scope =>
        {
            var left = first(scope);
            foreach (var (op, value) in rest)
            {
                var right = value(scope);
                if (!JinjaValue.IsTrue(JinjaNodes.Binary(op, left, right))) return false;
                left = right;
            }

            return true;
        };
    }

    private string? ComparisonSign()
    {
        foreach (var op in Comparisons)
            if (TrySign(op)) return op;
        if (TryWord("in")) return "in";
        if (Here is not { Kind: JinjaKind.Name, Text: "not" } || _tokens[_at + 1] is not { Kind: JinjaKind.Name, Text: "in" }) return null;
        _at += 2;
        return "not in";
    }

    private JinjaExpression Sum() => Chain(Concatenation, "+", "-");

    private JinjaExpression Concatenation() => Chain(Product, "~");

    private JinjaExpression Product() => Chain(Power, "*", "//", "/", "%");

    private JinjaExpression Power() => Chain(Unary, "**");

    private JinjaExpression Chain(Func<JinjaExpression> next, params string[] signs)
    {
        var left = next();
        while (Array.Find(signs, TrySign) is { } op)
        {
            var (a, b) = (left, next());
            left = scope => JinjaNodes.Binary(op, a(scope), b(scope));
        }

        return left;
    }

    private JinjaExpression Unary()
    {
        if (TrySign("-"))
        {
            var value = Unary();
            return scope => JinjaNodes.Binary("-", 0L, value(scope));
        }

        return TrySign("+") ? Unary() : Filters(Postfix(Primary()));
    }

    private JinjaExpression Primary()
    {
        var token = _tokens[_at++];
        switch (token.Kind)
        {
            case JinjaKind.Number: return _ => token.Value;
            case JinjaKind.Quoted:
                var text = (string)token.Value!;
                while (Here.Kind == JinjaKind.Quoted) text += _tokens[_at++].Value; // neighbours are one, as in Python
                return _ => text;
            case JinjaKind.Name:
                return token.Text switch
                {
                    "true" or "True" => static _ => true,
                    "false" or "False" => static _ => false,
                    "none" or "None" => static _ => null,
                    _ => scope => scope[token.Text],
                };
            case JinjaKind.Sign when token.Text == "(":
                if (TrySign(")")) return static _ => new List<object?>();
                var inner = Tuple();
                Sign(")");
                return inner;
            case JinjaKind.Sign when token.Text == "[":
                var items = new List<JinjaExpression>();
                while (!TrySign("]"))
                {
                    if (items.Count > 0) Sign(",");
                    if (TrySign("]")) break;
                    items.Add(Expression());
                }

                return scope => items.Select(i => i(scope)).ToList();
            case JinjaKind.Sign when token.Text == "{":
                return Mapping();
            default:
                _at--;
                throw Wrong($"{Shown(token)} where a value was expected");
        }
    }

    private JinjaExpression Mapping()
    {
        var entries = new List<(JinjaExpression Key, JinjaExpression Value)>();
        while (!TrySign("}"))
        {
            if (entries.Count > 0) Sign(",");
            if (TrySign("}")) break;
            var key = Expression();
            Sign(":");
            entries.Add((key, Expression()));
        }

        return scope =>
        {
            var map = new JinjaMap();
            foreach (var (key, value) in entries) map[key(scope) as string ?? throw new JinjaException(0, "a mapping's key is no text, which is not known")] = value(scope);
            return map;
        };
    }

    /// <summary>.name, [key], [a:b:c] and (arguments).</summary>
    private JinjaExpression Postfix(JinjaExpression value)
    {
        while (true)
        {
            var owner = value;
            if (TrySign("."))
            {
                var name = Here.Kind == JinjaKind.Number ? _tokens[_at++].Text : Name();
                value = scope => JinjaMethods.Attribute(owner(scope), name);
            }
            else if (TrySign("["))
            {
                value = Subscript(owner);
            }
            else if (TrySign("("))
            {
                var arguments = Arguments();
                value = scope => Call(owner(scope), arguments(scope));
            }
            else
            {
                return value;
            }
        }
    }

    private JinjaExpression Subscript(JinjaExpression owner)
    {
        var parts = new JinjaExpression?[3];
        var n = 0;
        while (!TrySign("]"))
        {
            if (TrySign(":"))
            {
                if (++n > 2) throw Wrong("a slice has more than three parts");
            }
            else if (parts[n] is null)
            {
                parts[n] = Expression();
            }
            else
            {
                throw Wrong($"{Shown(Here)} where \"]\" was expected");
            }
        }

        var (first, second, third) = (parts[0], parts[1], parts[2]);
        if (n == 0) return first is null ? throw Wrong("[] has no key") : scope => JinjaValue.Item(owner(scope), first(scope));
        return scope => JinjaValue.Slice(owner(scope), Whole(first, scope), Whole(second, scope), Whole(third, scope) ?? 1);

        static long? Whole(JinjaExpression? e, JinjaScope scope) => e?.Invoke(scope) switch
        {
            null => null,
            long i => i,
            var v => throw new JinjaException(0, $"{JinjaValue.Kind(v)} is no bound of a slice"),
        };
    }

    private Func<JinjaScope, (List<object?> Args, JinjaMap Named)> Arguments()
    {
        var args = new List<JinjaExpression>();
        var named = new List<(string Name, JinjaExpression Value)>();
        for (var first = true; !TrySign(")"); first = false)
        {
            if (!first) Sign(",");
            if (TrySign(")")) break;
            if (Here.Kind == JinjaKind.Name && _tokens[_at + 1] is { Kind: JinjaKind.Sign, Text: "=" })
            {
                var name = Name();
                Sign("=");
                named.Add((name, Expression()));
            }
            else
            {
                args.Add(Expression());
            }
        }

        return scope =>
        {
            var map = new JinjaMap();
            foreach (var (name, value) in named) map[name] = value(scope);
            return (args.ConvertAll(a => a(scope)), map);
        };
    }

    private static object? Call(object? function, (List<object?> Args, JinjaMap Named) arguments) => function is JinjaFunction f
        ? f(arguments.Args, arguments.Named)
        : throw new JinjaException(0, $"{JinjaValue.Kind(function)} cannot be called");

    /// <summary>| filter(arguments) and is test arguments.</summary>
    private JinjaExpression Filters(JinjaExpression value)
    {
        while (true)
        {
            var owner = value;
            if (TrySign("|"))
            {
                var name = Name();
                if (!JinjaFilters.Known.Contains(name)) throw Wrong($"the filter {Files.Say.Quote(name)} is not known; known are {string.Join(", ", JinjaFilters.Known)}");
                var arguments = TrySign("(") ? Arguments() : static _ => ([], new JinjaMap());
                value = scope => arguments(scope) is var (args, named) ? JinjaFilters.Apply(name, owner(scope), args, named) : null;
                value = Postfix(value);
            }
            else if (TryWord("is"))
            {
                var not = TryWord("not");
                var name = Name();
                if (!JinjaTests.Known.Contains(name)) throw Wrong($"the test {Files.Say.Quote(name)} is not known; known are {string.Join(", ", JinjaTests.Known)}");
                Func<JinjaScope, (List<object?> Args, JinjaMap Named)> arguments = static _ => ([], new JinjaMap());
                if (TrySign("(")) arguments = Arguments();
                else if (Here.Kind is JinjaKind.Quoted or JinjaKind.Number || Here is { Kind: JinjaKind.Sign, Text: "[" or "{" } || (Here.Kind == JinjaKind.Name && Here.Text is not ("and" or "or" or "else" or "if" or "in" or "is" or "not")))
                {
                    var argument = Postfix(Primary());
                    arguments = scope => ([argument(scope)], new JinjaMap());
                }

                value = scope => JinjaTests.Holds(name, owner(scope), arguments(scope).Args) != not;
            }
            else
            {
                return value;
            }
        }
    }
}
