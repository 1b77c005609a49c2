using System.Globalization;
using System.Text;

namespace IlgpuSae.Tokenizers.Jinja;

/// <summary>What a piece of a template is.</summary>
internal enum JinjaKind
{
    /// <summary>Text as it stands.</summary>
    Text,

    /// <summary>{{ and {%.</summary>
    Open,

    /// <summary>}} and %}.</summary>
    Close,

    /// <summary>A name or keyword.</summary>
    Name,

    /// <summary>A quoted text, its escapes resolved.</summary>
    Quoted,

    /// <summary>A number.</summary>
    Number,

    /// <summary>An operator or bracket.</summary>
    Sign,

    /// <summary>The end.</summary>
    End,
}

/// <summary>A piece of a template.</summary>
internal readonly record struct JinjaToken(JinjaKind Kind, string Text, int Line, object? Value = null);

/// <summary>
/// Cuts a template into pieces, white space treated as Hugging Face sets it up: trim_blocks (the newline after a block
/// or comment goes), lstrip_blocks (spaces before one at the beginning of a line go), - strips further, + less, and
/// one newline at the end of the template goes.
/// </summary>
internal sealed class JinjaLexer
{
    private static readonly string[] Signs = ["**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<", ">", "=", "(", ")", "[", "]", "{", "}", ",", ":", ".", "|"];
    private readonly string _source;
    private readonly List<JinjaToken> _tokens = [];
    private int _at;
    private int _line = 1;

    private JinjaLexer(string source) => _source = source;

    /// <summary>The pieces of a template.</summary>
    /// <exception cref="JinjaException">A bracket, quote or comment has no end, or a character belongs to nothing.</exception>
    public static List<JinjaToken> Cut(string source)
    {
        source = source.Replace("\r\n", "\n", StringComparison.Ordinal).Replace('\r', '\n');
        var lexer = new JinjaLexer(source.EndsWith('\n') ? source[..^1] : source);
        lexer.Run();
        return lexer._tokens;
    }

    private void Run()
    {
        var strip = false; // whether the block before took the white space after it
        while (_at < _source.Length)
        {
            var open = NextOpen(_at);
            var text = _source[_at..open];
            var start = _line;
            _line += text.Count('\n');
            var sign = open + 2 < _source.Length ? _source[open + 2] : '\0';
            if (strip) text = text.TrimStart();
            if (open < _source.Length && sign == '-') text = text.TrimEnd();
            else if (open < _source.Length && sign != '+' && _source[open + 1] != '{') text = WithoutIndent(text, _at == 0 || (_at > 0 && _source[_at - 1] == '\n'));
            if (text.Length > 0) _tokens.Add(new(JinjaKind.Text, text, start));
            if (open == _source.Length) break;
            _at = open;
            strip = _source[open + 1] switch
            {
                '#' => Comment(),
                '%' when RawEnd(out var body, out var after) => Raw(body, after),
                _ => Code(),
            };
        }

        _tokens.Add(new(JinjaKind.End, "the end", _line));
    }

    private int NextOpen(int from)
    {
        for (var at = from; (at = _source.IndexOf('{', at)) >= 0 && at + 1 < _source.Length; at++)
            if (_source[at + 1] is '{' or '%' or '#') return at;
        return _source.Length;
    }

    /// <summary>Spaces and tabs between the last newline and the block go, if nothing else is there.</summary>
    private static string WithoutIndent(string text, bool atLineStart)
    {
        var line = text.LastIndexOf('\n') + 1;
        return (line > 0 || atLineStart) && text.AsSpan(line).Trim(" \t").IsEmpty ? text[..line] : text;
    }

    private bool Comment()
    {
        var end = _source.IndexOf("#}", _at + 2, StringComparison.Ordinal);
        if (end < 0) throw new JinjaException(_line, "a comment {# has no end #}");
        _line += _source.AsSpan(_at, end - _at).Count('\n');
        var strip = _source[end - 1] == '-';
        _at = end + 2;
        if (!strip && _source[end - 1] != '+') TrimNewline();
        return strip;
    }

    /// <summary>Whether a block {% raw %} stands here, and where its text begins and ends.</summary>
    private bool RawEnd(out Range body, out int after)
    {
        (body, after) = (default, 0);
        var begin = System.Text.RegularExpressions.Regex.Match(_source[_at..Math.Min(_source.Length, _at + 40)], @"^\{%[-+]?\s*raw\s*[-+]?%\}\n?");
        if (!begin.Success) return false;
        var from = _at + begin.Length;
        var rest = System.Text.RegularExpressions.Regex.Match(_source[from..], @"\{%[-+]?\s*endraw\s*[-+]?%\}\n?");
        if (!rest.Success) throw new JinjaException(_line, "{% raw %} has no {% endraw %}");
        body = from..(from + rest.Index);
        after = from + rest.Index + rest.Length;
        return true;
    }

    private bool Raw(Range body, int after)
    {
        if (_source[body] is { Length: > 0 } text) _tokens.Add(new(JinjaKind.Text, text, _line));
        _line += _source.AsSpan(_at, after - _at).Count('\n');
        _at = after;
        return false;
    }

    private bool Code()
    {
        var block = _source[_at + 1] == '%';
        var (close, opened) = (block ? "%}" : "}}", _line);
        _tokens.Add(new(JinjaKind.Open, block ? "{%" : "{{", _line));
        _at += 2;
        if (_at < _source.Length && _source[_at] is '-' or '+') _at++;
        var depth = 0;
        while (true)
        {
            while (_at < _source.Length && char.IsWhiteSpace(_source[_at]))
                if (_source[_at++] == '\n') _line++;
            if (_at >= _source.Length) throw new JinjaException(opened, $"{(block ? "{%" : "{{")} has no end {close}");
            var rest = _source.AsSpan(_at);
            var strip = rest[0] == '-' && rest[1..].StartsWith(close, StringComparison.Ordinal);
            var keep = rest[0] == '+' && block && rest[1..].StartsWith(close, StringComparison.Ordinal);
            if (depth == 0 && (strip || keep || rest.StartsWith(close, StringComparison.Ordinal)))
            {
                _tokens.Add(new(JinjaKind.Close, close, _line));
                _at += strip || keep ? 3 : 2;
                if (block && !strip && !keep) TrimNewline();
                return strip;
            }

            if (rest[0] is '(' or '[' or '{') depth++;
            if (rest[0] is ')' or ']' or '}') depth--;
            Piece(rest[0]);
        }
    }

    private void TrimNewline()
    {
        if (_at >= _source.Length || _source[_at] != '\n') return;
        _at++;
        _line++;
    }

    private void Piece(char c)
    {
        var start = _at;
        if (c is '\'' or '"')
        {
            _tokens.Add(new(JinjaKind.Quoted, "a text", _line, Quoted(c)));
            return;
        }

        if (char.IsAsciiDigit(c))
        {
            while (_at < _source.Length && (char.IsAsciiDigit(_source[_at]) || _source[_at] == '_')) _at++;
            var isFloat = _at + 1 < _source.Length && _source[_at] == '.' && char.IsAsciiDigit(_source[_at + 1]);
            if (isFloat) for (_at++; _at < _source.Length && char.IsAsciiDigit(_source[_at]);) _at++;
            var text = _source[start.._at].Replace("_", "", StringComparison.Ordinal);
            object value = isFloat ? (object)double.Parse(text, CultureInfo.InvariantCulture)
                : long.TryParse(text, CultureInfo.InvariantCulture, out var n) ? n : throw new JinjaException(_line, $"the number {text} is too large");
            _tokens.Add(new(JinjaKind.Number, text, _line, value));
            return;
        }

        if (char.IsLetter(c) || c == '_')
        {
            while (_at < _source.Length && (char.IsLetterOrDigit(_source[_at]) || _source[_at] == '_')) _at++;
            _tokens.Add(new(JinjaKind.Name, _source[start.._at], _line));
            return;
        }

        foreach (var sign in Signs)
        {
            if (!_source.AsSpan(_at).StartsWith(sign, StringComparison.Ordinal)) continue;
            _tokens.Add(new(JinjaKind.Sign, sign, _line));
            _at += sign.Length;
            return;
        }

        throw new JinjaException(_line, $"{Files.Say.Quote(c.ToString())} belongs to no expression");
    }

    private string Quoted(char quote)
    {
        var (s, opened) = (new StringBuilder(), _line);
        for (_at++; _at < _source.Length; _at++)
        {
            var c = _source[_at];
            if (c == quote)
            {
                _at++;
                return s.ToString();
            }

            if (c == '\n') _line++;
            if (c != '\\' || _at + 1 >= _source.Length)
            {
                s.Append(c);
                continue;
            }

            c = _source[++_at];
            var digits = c switch { 'x' => 2, 'u' => 4, 'U' => 8, _ => 0 };
            if (digits > 0 && _at + digits < _source.Length && int.TryParse(_source.AsSpan(_at + 1, digits), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var code) && Rune.IsValid(code))
            {
                s.Append(new Rune(code).ToString());
                _at += digits;
                continue;
            }

            // Python leaves an escape that it does not know as it stands.
            s.Append(c switch { 'n' => "\n", 't' => "\t", 'r' => "\r", '\\' => "\\", '\'' => "'", '"' => "\"", '0' => "\0", 'a' => "\a", 'b' => "\b", 'f' => "\f", 'v' => "\v", '\n' => "", _ => "\\" + c });
        }

        throw new JinjaException(opened, "a quoted text has no end");
    }
}

/// <summary>What is wrong with a template, or what it says is wrong with the messages.</summary>
internal sealed class JinjaException(int line, string problem) : Exception(problem)
{
    /// <summary>Where in the template; 0: nowhere in particular.</summary>
    public int Line { get; } = line;
}
