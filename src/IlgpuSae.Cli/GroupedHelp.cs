using System.CommandLine;
using System.CommandLine.Invocation;
using System.Text;

namespace IlgpuSae.Cli;

/// <summary>Help with options under headings, each with its default.</summary>
internal sealed class GroupedHelp(RootCommand root, IReadOnlyDictionary<Command, Verb> verbs, CommonOptions common) : SynchronousCommandLineAction
{
    private const int Column = 34;
    private const int Width = 110;

    public override int Invoke(ParseResult parseResult)
    {
        var command = parseResult.CommandResult.Command;
        var text = new StringBuilder();
        if (verbs.TryGetValue(command, out var verb)) WriteVerb(text, command, verb);
        else WriteVerbs(text, command);
        parseResult.InvocationConfiguration.Output.Write(text);
        return CommandLine.Success;
    }

    private void WriteVerb(StringBuilder text, Command command, Verb verb)
    {
        text.AppendLine(command.Description).AppendLine().AppendLine($"usage: {Words(command)} [options]");
        foreach (var group in verb.Groups.Concat(common.Groups))
        {
            text.AppendLine().AppendLine($"{group.Title}:");
            foreach (var option in group.Options) WriteOption(text, option);
        }

        if (verb.Examples.Count == 0) return;
        text.AppendLine().AppendLine("Examples:");
        foreach (var example in verb.Examples) text.AppendLine($"  {example}");
    }

    private static string Words(Command command)
    {
        var parent = command.Parents.OfType<Command>().FirstOrDefault();
        return parent is null ? "ilgpusae" : $"{Words(parent)} {command.Name}";
    }

    private static void WriteOption(StringBuilder text, Option option)
    {
        var left = option.Name + string.Concat(option.Aliases.Order(StringComparer.Ordinal).Select(a => ", " + a))
            + (option.HelpName is { } help ? " " + help : "");
        var about = option.Description ?? "";
        if (option.HasDefaultValue && option.ValueType != typeof(bool) && option.GetDefaultValue() is { } value && value.ToString() is { Length: > 0 } shown)
            about += $" [{shown}]";
        WriteEntry(text, left, about);
    }

    private static void WriteEntry(StringBuilder text, string left, string right)
    {
        var line = new StringBuilder("  " + left);
        if (line.Length >= Column - 1)
        {
            text.AppendLine(line.ToString());
            line.Clear();
        }

        line.Append(' ', Math.Max(0, Column - line.Length));
        foreach (var word in right.Split(' ', StringSplitOptions.RemoveEmptyEntries))
        {
            if (line.Length + word.Length > Width && line.Length > Column)
            {
                text.AppendLine(line.ToString().TrimEnd());
                line.Clear().Append(' ', Column);
            }

            line.Append(word).Append(' ');
        }

        text.AppendLine(line.ToString().TrimEnd());
    }

    private void WriteVerbs(StringBuilder text, Command command)
    {
        text.AppendLine(command.Description).AppendLine().AppendLine($"usage: {Words(command)} VERB [options]").AppendLine().AppendLine("Verbs:");
        foreach (var (leaf, _) in verbs.Where(v => IsBelow(v.Key, command)))
            WriteEntry(text, Words(leaf)["ilgpusae ".Length..], leaf.Description ?? "");
        text.AppendLine();
        if (ReferenceEquals(command, root))
        {
            WriteEntry(text, "--version", "Print the version.");
            text.AppendLine();
        }

        text.AppendLine($"{Words(command)} VERB --help lists a verb's options.");
    }

    private static bool IsBelow(Command leaf, Command ancestor) =>
        ReferenceEquals(leaf, ancestor) || leaf.Parents.OfType<Command>().Any(p => IsBelow(p, ancestor));
}
