using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;

namespace IlgpuSae.Cli;

/// <summary>Options of the usual kinds; what cannot be read is refused in words a user understands.</summary>
internal static class Options
{
    /// <summary>A text, null if not given.</summary>
    public static Option<string?> Text(string name, string help, string description) =>
        new(name) { HelpName = help, Description = description };

    /// <summary>A text with a default.</summary>
    public static Option<string> Text(string name, string help, string description, string otherwise) =>
        new(name) { HelpName = help, Description = description, DefaultValueFactory = _ => otherwise };

    /// <summary>A whole number with a default.</summary>
    public static Option<int> Integer(string name, string description, int otherwise, int least = 0) => new(name)
    {
        HelpName = "N",
        Description = description,
        DefaultValueFactory = _ => otherwise,
        CustomParser = r => Integer(r, name, least) ?? otherwise,
    };

    /// <summary>A whole number, null if not given.</summary>
    public static Option<int?> OptionalInteger(string name, string description, int least = 0) => new(name)
    {
        HelpName = "N",
        Description = description,
        CustomParser = r => Integer(r, name, least),
    };

    /// <summary>A number with a default.</summary>
    public static Option<double> Number(string name, string description, double otherwise) => new(name)
    {
        HelpName = "X",
        Description = description,
        DefaultValueFactory = _ => otherwise,
        CustomParser = r =>
        {
            var text = r.Tokens[0].Value;
            if (double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var x) && double.IsFinite(x)) return x;
            r.AddError($"{name}: \"{text}\" is not a number");
            return otherwise;
        },
    };

    /// <summary>A switch.</summary>
    public static Option<bool> Switch(string name, string description) => new(name) { Description = description };

    private static int? Integer(ArgumentResult r, string name, int least)
    {
        var text = r.Tokens[0].Value;
        if (!int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var n)) r.AddError($"{name}: \"{text}\" is not a whole number");
        else if (n < least) r.AddError($"{name}: {n} is below {least}");
        else return n;
        return null;
    }
}
