using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;
using IlgpuSae.Tokenizers.Jinja;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// A chat template: how a model's makers put a conversation into one text. The language is Jinja as Hugging Face's
/// tokenizers use it, with its variables, functions and white-space rules; what it does not know it refuses by name.
/// </summary>
/// <remarks>
/// Rendered by a small interpreter of our own: the template engines for .NET speak Liquid, which is another language,
/// and Hugging Face's own JavaScript one takes a second to start and five milliseconds a conversation inside .NET.
/// </remarks>
public sealed class ChatTemplate
{
    private readonly JinjaStatement _template;
    private readonly string _name;
    private readonly IReadOnlyDictionary<string, string> _tokens;

    private ChatTemplate(JinjaStatement template, string name, IReadOnlyDictionary<string, string> tokens) => (_template, _name, _tokens) = (template, name, tokens);

    /// <summary>Reads a template.</summary>
    /// <param name="source">Jinja.</param>
    /// <param name="tokens">Special tokens by role, such as <c>bos_token</c>; null: none.</param>
    /// <param name="name">What it is called in messages.</param>
    /// <exception cref="InvalidInputException">No template, or one that uses what is not known.</exception>
    public static ChatTemplate Parse(string source, IReadOnlyDictionary<string, string>? tokens = null, string name = "the chat template")
    {
        ArgumentNullException.ThrowIfNull(source);
        try
        {
            return new ChatTemplate(JinjaParser.Parse(source), name, tokens ?? new Dictionary<string, string>());
        }
        catch (JinjaException e)
        {
            throw new InvalidInputException($"{name}: line {e.Line}: {e.Message}", e);
        }
    }

    /// <summary>The text of a conversation.</summary>
    /// <param name="messages">Objects with "role", "content" and what else the template reads.</param>
    /// <param name="addGenerationPrompt">Whether the beginning of the model's next answer follows.</param>
    /// <param name="variables">More variables, such as "tools" or "enable_thinking"; null: none.</param>
    /// <param name="now">What strftime_now tells; null: the clock.</param>
    /// <exception cref="InvalidInputException">The template refuses the conversation (roles out of order), or fails on it.</exception>
    public string Render(JsonArray messages, bool addGenerationPrompt = false, IReadOnlyDictionary<string, JsonNode?>? variables = null, DateTime? now = null)
    {
        ArgumentNullException.ThrowIfNull(messages);
        var scope = new JinjaScope(null);
        foreach (var (role, token) in _tokens) scope[role] = token;
        scope["messages"] = JinjaValue.From(messages);
        scope["add_generation_prompt"] = addGenerationPrompt;
        scope["tools"] = null;
        scope["documents"] = null;
        scope["raise_exception"] = (JinjaFunction)((args, _) => throw new JinjaException(0, args.Count > 0 ? JinjaValue.Text(args[0]) : "the template refuses the conversation"));
        scope["strftime_now"] = (JinjaFunction)((args, _) => Time(now ?? DateTime.Now, args.Count > 0 ? JinjaValue.Text(args[0]) : ""));
        scope["namespace"] = (JinjaFunction)((args, named) => Namespace(args, named, isNamespace: true));
        scope["dict"] = (JinjaFunction)((args, named) => Namespace(args, named, isNamespace: false));
        scope["range"] = (JinjaFunction)Range;
        foreach (var (key, value) in variables ?? new Dictionary<string, JsonNode?>()) scope[key] = JinjaValue.From(value);
        var output = new StringBuilder();
        try
        {
            _template(scope, output);
        }
        catch (JinjaException e)
        {
            throw new InvalidInputException($"{_name}: line {e.Line}: {Files.AtomicFile.OneLine(e.Message)}", e);
        }

        return output.ToString();
    }

    private static JinjaMap Namespace(IReadOnlyList<object?> args, JinjaMap named, bool isNamespace)
    {
        var map = new JinjaMap { IsNamespace = isNamespace };
        if (args.Count > 0 && args[0] is JinjaMap first)
            foreach (var key in first.Keys) map[key] = first[key];
        foreach (var key in named.Keys) map[key] = named[key];
        return map;
    }

    private static List<object?> Range(IReadOnlyList<object?> args, JinjaMap named)
    {
        var n = args.Select(a => a as long? ?? throw new JinjaException(0, $"range of {JinjaValue.Kind(a)}")).ToList();
        if (n.Count is 0 or > 3) throw new JinjaException(0, $"range takes one to three numbers, not {n.Count}");
        var (start, stop, step) = (n.Count > 1 ? n[0] : 0, n.Count > 1 ? n[1] : n[0], n.Count > 2 ? n[2] : 1);
        if (step == 0) throw new JinjaException(0, "range's step is 0");
        if (Math.Abs(stop - start) / Math.Abs(step) > 100_000) throw new JinjaException(0, $"range of more than 100000 numbers");
        var list = new List<object?>();
        for (var i = start; step > 0 ? i < stop : i > stop; i += step) list.Add(i);
        return list;
    }

    private static string Time(DateTime now, string format)
    {
        var s = new StringBuilder();
        for (var i = 0; i < format.Length; i++)
        {
            if (format[i] != '%' || i + 1 == format.Length)
            {
                s.Append(format[i]);
                continue;
            }

            s.Append(format[++i] switch
            {
                'd' => Show("dd"),
                'm' => Show("MM"),
                'Y' => Show("yyyy"),
                'y' => Show("yy"),
                'b' => Show("MMM"),
                'B' => Show("MMMM"),
                'a' => Show("ddd"),
                'A' => Show("dddd"),
                'H' => Show("HH"),
                'I' => Show("hh"),
                'M' => Show("mm"),
                'S' => Show("ss"),
                'p' => now.Hour < 12 ? "AM" : "PM",
                'j' => now.DayOfYear.ToString("D3", CultureInfo.InvariantCulture),
                '%' => "%",
                var c => throw new JinjaException(0, $"strftime_now does not know %{c}"),
            });
        }

        return s.ToString();

        string Show(string f) => now.ToString(f, CultureInfo.InvariantCulture);
    }
}
