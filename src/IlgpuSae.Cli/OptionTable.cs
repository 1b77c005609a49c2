using System.CommandLine;
using System.CommandLine.Parsing;
using System.ComponentModel;
using System.Globalization;
using System.Reflection;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;

namespace IlgpuSae.Cli;

/// <summary>
/// Options made from configuration records: every property becomes an option with its name in kebab-case, its
/// [Description] as help and its value in a new record as default. A hyper-parameter is one line, in its record.
/// </summary>
/// <param name="rename">The field's name for users; the record's own stays an alias.</param>
internal sealed class OptionTable(Func<string, string>? rename = null)
{
    private readonly Dictionary<string, OptionEntry> _byName = new(StringComparer.Ordinal);
    private readonly List<OptionGroup> _groups = [];

    /// <summary>The options under the headings of their records.</summary>
    public IReadOnlyList<OptionGroup> Groups => _groups;

    /// <summary>Adds a record's properties. A name that is there already means the same in both records.</summary>
    /// <param name="title">Heading in the help.</param>
    /// <param name="record">The record; a constructor without parameters gives the defaults.</param>
    /// <param name="where">Which properties; null: all.</param>
    public void Add(string title, Type record, Func<PropertyInfo, bool>? where = null)
    {
        var defaults = Activator.CreateInstance(record);
        var options = new List<Option>();
        foreach (var property in record.GetProperties(BindingFlags.Public | BindingFlags.Instance))
        {
            if (!property.CanWrite || property.GetCustomAttribute<JsonIgnoreAttribute>() is not null) continue;
            if (property.GetCustomAttribute<BrowsableAttribute>() is { Browsable: false } || where?.Invoke(property) == false) continue;
            var field = property.GetCustomAttribute<JsonPropertyNameAttribute>()?.Name ?? JsonNamingPolicy.SnakeCaseLower.ConvertName(property.Name);
            var name = Kebab(rename?.Invoke(field) ?? field);
            if (_byName.TryGetValue(name, out var there))
            {
                // A count that another architecture lets be fractional (k) is read as a number; its own record refuses fractions.
                if (there.Type == typeof(int) && property.PropertyType == typeof(double)) _byName[name] = there with { Type = typeof(double) };
                continue;
            }

            var option = Make(name, property, defaults);
            if (name != Kebab(field)) option.Aliases.Add(Kebab(field));
            _byName.Add(name, new OptionEntry(option, field, property.PropertyType));
            options.Add(option);
        }

        if (options.Count > 0) _groups.Add(new OptionGroup(title, [.. options]));
    }

    /// <summary>The fields the user gave on the command line.</summary>
    public JsonObject Given(ParseResult arguments)
    {
        var given = new JsonObject();
        foreach (var (option, field, type) in _byName.Values)
        {
            if (arguments.GetResult(option) is not { Implicit: false } result) continue;
            given[field] = Read(type, result.Tokens.Count == 0 ? "true" : result.Tokens[0].Value);
        }

        return given;
    }

    private static string Kebab(string field) => "--" + field.Replace('_', '-');

    private Option<string?> Make(string name, PropertyInfo property, object? defaults)
    {
        var type = Nullable.GetUnderlyingType(property.PropertyType) ?? property.PropertyType;
        var option = new Option<string?>(name)
        {
            HelpName = HelpName(type),
            Description = Sentence(property.GetCustomAttribute<DescriptionAttribute>()?.Description ?? ""),
            Arity = type == typeof(bool) ? ArgumentArity.ZeroOrOne : ArgumentArity.ExactlyOne,
        };
        var follows = option.Description.Contains("not given", StringComparison.Ordinal);
        if (!follows && defaults is not null && Show(property.GetValue(defaults)) is { Length: > 0 } shown) option.Description += $" [{shown}]";
        option.Validators.Add(r => Check(r, name, _byName[name].Type));
        return option;
    }

    /// <summary>With a capital and a full stop, unless it begins with a value as it is written ("none, hook_z").</summary>
    private static string Sentence(string text)
    {
        if (text.Length == 0) return text;
        var first = text.Split(' ')[0];
        var value = first.EndsWith(',') || first is "none";
        return (value ? text[..1] : text[..1].ToUpperInvariant()) + text[1..] + (text.EndsWith('.') ? "" : ".");
    }

    private static void Check(OptionResult result, string name, Type type)
    {
        if (result.Errors.Any() || result.Tokens.Count == 0) return;
        var text = result.Tokens[0].Value;
        if (text is "null" or "none" && Nullable.GetUnderlyingType(type) is not null) return;
        var plain = Nullable.GetUnderlyingType(type) ?? type;
        if (plain.IsEnum)
        {
            var known = Names(plain).ToList();
            if (!known.Contains(text)) result.AddError($"{name}: \"{text}\" is none of {string.Join(", ", known)}");
        }
        else if (Read(type, text) is null && Expected(plain) is { } expected)
        {
            result.AddError($"{name}: \"{text}\" is not {expected}");
        }
    }

    /// <summary>A value as configuration files would hold it; null if it is null or cannot be read.</summary>
    private static JsonValue? Read(Type type, string text)
    {
        if (text is "null" or "none" && Nullable.GetUnderlyingType(type) is not null) return null;
        type = Nullable.GetUnderlyingType(type) ?? type;
        if (type == typeof(bool)) return bool.TryParse(text, out var b) ? JsonValue.Create(b) : null;
        if (type == typeof(int) || type == typeof(long))
            return long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var n) && (type == typeof(long) || n is >= int.MinValue and <= int.MaxValue) ? JsonValue.Create(n) : null;
        if (type == typeof(ulong)) return ulong.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var u) ? JsonValue.Create(u) : null;
        if (type == typeof(double) || type == typeof(float))
            return double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var x) && double.IsFinite(x) ? JsonValue.Create(x) : null;
        return JsonValue.Create(text);
    }

    private static string? Expected(Type type) =>
        type == typeof(bool) ? "true or false"
        : type == typeof(int) || type == typeof(long) || type == typeof(ulong) ? "a whole number"
        : type == typeof(double) || type == typeof(float) ? "a number"
        : null;

    private static string HelpName(Type type) =>
        type == typeof(bool) ? "[true|false]"
        : type == typeof(int) || type == typeof(long) || type == typeof(ulong) ? "N"
        : type == typeof(double) || type == typeof(float) ? "X"
        : type.IsEnum ? "NAME"
        : "TEXT";

    private static IEnumerable<string> Names(Type type) => Enum.GetNames(type).Select(JsonNamingPolicy.SnakeCaseLower.ConvertName);

    private static string? Show(object? value) => value switch
    {
        null => null,
        bool b => b ? "true" : "false",
        Enum e => JsonNamingPolicy.SnakeCaseLower.ConvertName(e.ToString()),
        IFormattable f => f.ToString(null, CultureInfo.InvariantCulture),
        _ => value.ToString(),
    };

    /// <summary>An option, the field it sets, and the kind of its value.</summary>
    private sealed record OptionEntry(Option<string?> Option, string Field, Type Type);
}
