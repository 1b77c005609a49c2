using System.Text;

namespace IlgpuSae.Tokenizers.Jinja;

/// <summary>
/// Reads a template into something that can be run: text, {{ expressions }}, if, for (with filter, else, break and
/// continue), set (of names, of entries of a namespace, of blocks), macro, and Hugging Face's generation marks.
/// Anything else is refused by name.
/// </summary>
internal sealed partial class JinjaParser
{
    private readonly List<JinjaToken> _tokens;
    private int _at;
    private int _depth;

    private JinjaParser(List<JinjaToken> tokens) => _tokens = tokens;

    private JinjaToken Here => _tokens[_at];

    /// <summary>A template as a statement.</summary>
    /// <exception cref="JinjaException">It is none, or uses what is not known.</exception>
    public static JinjaStatement Parse(string source)
    {
        var parser = new JinjaParser(JinjaLexer.Cut(source));
        var (body, _) = parser.Statements();
        return body;
    }

    /// <summary>Statements up to a block with one of the names, which is left to be read on.</summary>
    private (JinjaStatement Body, string End) Statements(params string[] ends)
    {
        if (++_depth > 100) throw Wrong("blocks are nested more than 100 deep");
        var opened = Here.Line;
        var body = new List<JinjaStatement>();
        while (true)
        {
            var token = _tokens[_at++];
            if (token.Kind == JinjaKind.Text)
            {
                body.Add((_, output) => Write(output, token.Text));
            }
            else if (token.Kind == JinjaKind.End)
            {
                if (ends.Length > 0) throw new JinjaException(opened, $"the block has no {ends[^1]}");
                _depth--;
                return (JinjaNodes.Block(body), "");
            }
            else if (token.Text == "{{")
            {
                var value = Expression();
                Close();
                body.Add(At(token.Line, (scope, output) => Write(output, JinjaValue.Text(value(scope)))));
            }
            else
            {
                var name = Name();
                if (ends.Contains(name))
                {
                    _depth--;
                    return (JinjaNodes.Block(body), name);
                }

                body.Add(At(token.Line, Statement(name)));
            }
        }
    }

    private static JinjaFlow Write(StringBuilder output, string text)
    {
        output.Append(text);
        return JinjaFlow.Next;
    }

    /// <summary>Errors that know no line get the statement's.</summary>
    private static JinjaStatement At(int line, JinjaStatement statement) => (scope, output) =>
    {
        try
        {
            return statement(scope, output);
        }
        catch (JinjaException e) when (e.Line == 0)
        {
            throw new JinjaException(line, e.Message);
        }
    };

    private JinjaStatement Statement(string name)
    {
        switch (name)
        {
            case "if": return If();
            case "for": return For();
            case "set": return Set();
            case "macro": return Macro();
            case "generation":
                Close();
                var (marked, _) = Statements("endgeneration");
                Close();
                return marked;
            case "break" or "continue":
                Close();
                var flow = name == "break" ? JinjaFlow.Break : JinjaFlow.Continue;
                return (_, _) => flow;
            default: throw Wrong($"{{% {name} %}} is not known; known are if, for, set, macro, generation, break, continue and raw");
        }
    }

    private JinjaStatement If()
    {
        var branches = new List<(JinjaExpression Test, JinjaStatement Body)>();
        JinjaStatement? otherwise = null;
        for (var word = "if"; word != "endif";)
        {
            if (word == "else")
            {
                Close();
                (otherwise, word) = Statements("endif");
                continue;
            }

            var test = Expression();
            Close();
            (var body, word) = Statements("elif", "else", "endif");
            branches.Add((test, body));
        }

        Close();
        return (scope, output) =>
        {
            foreach (var (test, body) in branches)
                if (JinjaValue.IsTrue(test(scope))) return body(scope, output);
            return otherwise?.Invoke(scope, output) ?? JinjaFlow.Next;
        };
    }

    private JinjaStatement For()
    {
        var targets = Names();
        Word("in");
        var list = Or();
        var filter = TryWord("if") ? Expression() : null;
        if (TryWord("recursive")) throw Wrong("recursive loops are not known");
        Close();
        var (body, end) = Statements("else", "endfor");
        JinjaStatement? otherwise = null;
        if (end == "else")
        {
            Close();
            (otherwise, _) = Statements("endfor");
        }

        Close();
        return JinjaNodes.For(targets, list, filter, body, otherwise);
    }

    private JinjaStatement Set()
    {
        var name = Name();
        if (TrySign("."))
        {
            var entry = Name();
            Sign("=");
            var value = Tuple();
            Close();
            return (scope, _) =>
            {
                if (scope[name] is not JinjaMap { IsNamespace: true } space) throw new JinjaException(0, $"{name}.{entry} cannot be set: {name} is no namespace()");
                space[entry] = value(scope);
                return JinjaFlow.Next;
            };
        }

        var targets = new List<string> { name };
        while (TrySign(",")) targets.Add(Name());
        if (TrySign("="))
        {
            var value = Tuple();
            Close();
            return (scope, _) =>
            {
                JinjaNodes.Bind(scope, targets, value(scope));
                return JinjaFlow.Next;
            };
        }

        var filters = Filters(scope => scope[""]);
        Close();
        var (body, _) = Statements("endset");
        Close();
        return (scope, _) =>
        {
            var text = new StringBuilder();
            body(scope, text);
            var inner = new JinjaScope(scope) { [""] = text.ToString() };
            scope[name] = filters(inner);
            return JinjaFlow.Next;
        };
    }

    private JinjaStatement Macro()
    {
        var name = Name();
        var parameters = new List<(string Name, JinjaExpression? Default)>();
        Sign("(");
        while (!TrySign(")"))
        {
            if (parameters.Count > 0) Sign(",");
            var parameter = Name();
            parameters.Add((parameter, TrySign("=") ? Expression() : null));
        }

        Close();
        var (body, _) = Statements("endmacro");
        Close();
        return (defined, _) =>
        {
            defined[name] = (JinjaFunction)((args, named) =>
            {
                if (args.Count > parameters.Count) throw new JinjaException(0, $"the macro {name} takes {parameters.Count} arguments, not {args.Count}");
                var scope = new JinjaScope(defined);
                for (var i = 0; i < parameters.Count; i++)
                {
                    var (parameter, missing) = parameters[i];
                    scope[parameter] = i < args.Count ? args[i] : named.TryGet(parameter, out var v) ? v : missing is null ? new JinjaUndefined(parameter) : missing(scope);
                }

                var text = new StringBuilder();
                // Macros that call each other without end must not end the process.
                if (!System.Runtime.CompilerServices.RuntimeHelpers.TryEnsureSufficientExecutionStack()) throw new JinjaException(0, $"the macro {name} calls itself too often");
                body(scope, text);
                return text.ToString();
            });
            return JinjaFlow.Next;
        };
    }

    private List<string> Names()
    {
        var names = new List<string>();
        var bracket = TrySign("(");
        do names.Add(Name());
        while (TrySign(","));
        if (bracket) Sign(")");
        return names;
    }

    private void Close()
    {
        if (Here.Kind != JinjaKind.Close) throw Wrong($"{Shown(Here)} where the end of the block or expression was expected");
        _at++;
    }

    private string Name() => Here.Kind == JinjaKind.Name ? _tokens[_at++].Text : throw Wrong($"{Shown(Here)} where a name was expected");

    private void Word(string word)
    {
        if (!TryWord(word)) throw Wrong($"{Shown(Here)} where \"{word}\" was expected");
    }

    private bool TryWord(string word) => Try(JinjaKind.Name, word);

    private void Sign(string sign)
    {
        if (!TrySign(sign)) throw Wrong($"{Shown(Here)} where \"{sign}\" was expected");
    }

    private bool TrySign(string sign) => Try(JinjaKind.Sign, sign);

    private bool Try(JinjaKind kind, string text)
    {
        if (Here.Kind != kind || Here.Text != text) return false;
        _at++;
        return true;
    }

    private JinjaException Wrong(string problem) => new(Here.Line, problem);

    private static string Shown(JinjaToken token) => token.Kind is JinjaKind.Quoted or JinjaKind.End ? token.Text : $"\"{token.Text}\"";
}
