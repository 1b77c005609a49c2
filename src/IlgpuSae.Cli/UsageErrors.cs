using System.CommandLine;
using System.CommandLine.Parsing;
using IlgpuSae.Runs;

namespace IlgpuSae.Cli;

/// <summary>One line about the first thing wrong with a command line, with the nearest right word.</summary>
internal static class UsageErrors
{
    public static string? First(ParseResult parsed)
    {
        var command = parsed.CommandResult.Command;
        var name = Path(parsed.CommandResult);
        // An unknown word first: what else is reported often follows from it.
        if (parsed.UnmatchedTokens.Count > 0) return Unknown(parsed.UnmatchedTokens[0], command, name);
        if (parsed.Errors.Count > 0) return $"error: {name}: {parsed.Errors[0].Message.ReplaceLineEndings(" ")}";
        return null;
    }

    private static string Unknown(string token, Command command, string name)
    {
        var isOption = token.StartsWith('-');
        var known = isOption
            ? command.Options.Select(o => o.Name)
            : command.Subcommands.Select(c => c.Name);
        var near = NearNames.Find(token.Split('=')[0], known);
        var what = isOption ? "unknown option" : command.Subcommands.Count > 0 ? "unknown verb" : "unexpected word";
        var advice = near is not null
            ? $"did you mean {near}?"
            : command.Subcommands.Count > 0 && !isOption
                ? $"the verbs are {string.Join(", ", command.Subcommands.Select(c => c.Name))}"
                : $"see {name} --help";
        return $"error: {name}: {what} {token}; {advice}";
    }

    private static string Path(CommandResult command)
    {
        var words = new List<string>();
        for (SymbolResult? r = command; r is not null; r = r.Parent)
        {
            if (r is CommandResult c) words.Insert(0, c.Command is RootCommand ? "ilgpusae" : c.Command.Name);
        }

        return string.Join(' ', words);
    }
}
