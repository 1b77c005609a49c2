using System.CommandLine;
using System.CommandLine.Help;
using System.Reflection;

namespace IlgpuSae.Cli;

/// <summary>Builds the commands from the verbs, runs one, and turns failures into one line and an exit code.</summary>
internal static class CommandLine
{
    public const int Success = 0;
    public const int Failure = 1;
    public const int WrongInput = 2;
    public const int Interrupted = 130;

    /// <summary>Runs one command line.</summary>
    /// <param name="args">The words after the program's name.</param>
    /// <param name="output">Reports.</param>
    /// <param name="error">Progress, warnings and errors.</param>
    /// <param name="interrupt">Cancelled when the user presses Ctrl-C.</param>
    /// <returns>0 done, 1 failed at work, 2 wrong usage or input, 130 interrupted.</returns>
    public static int Run(string[] args, TextWriter output, TextWriter error, CancellationToken interrupt) => Run(args, output, error, null, interrupt);

    /// <summary>Runs one command line in another environment.</summary>
    /// <param name="args">The words after the program's name.</param>
    /// <param name="output">Reports.</param>
    /// <param name="error">Progress, warnings and errors.</param>
    /// <param name="variable">Gives variables of the environment; null: those of the process.</param>
    /// <param name="interrupt">Cancelled when the user presses Ctrl-C.</param>
    /// <returns>As <see cref="Run(string[], TextWriter, TextWriter, CancellationToken)"/>.</returns>
    public static int Run(string[] args, TextWriter output, TextWriter error, Func<string, string?>? variable, CancellationToken interrupt)
    {
        var common = new CommonOptions();
        var root = Build(common, out var verbs);
        var parsed = root.Parse(args.Length == 0 ? ["--help"] : args);
        if (UsageErrors.First(parsed) is { } wrong)
        {
            error.WriteLine(wrong);
            return WrongInput;
        }

        if (!verbs.TryGetValue(parsed.CommandResult.Command, out var verb) || parsed.Action is HelpAction or GroupedHelp)
        {
            return parsed.Invoke(new InvocationConfiguration
            {
                Output = output,
                Error = error,
                EnableDefaultExceptionHandler = false,
                ProcessTerminationTimeout = null,
            });
        }

        using var session = new Session(common, parsed, output, error, variable, interrupt);
        try
        {
            verb.Run(parsed, session);
            session.WriteJson();
            return Success;
        }
        catch (Exception e) when (Describe(e, session) is { } failure)
        {
            session.EndProgress();
            error.WriteLine(failure.Line);
            if (session.Verbose) error.WriteLine(e);
            return failure.Code;
        }
    }

    internal static IEnumerable<(VerbAttribute About, Type Type)> Verbs() =>
        from type in typeof(CommandLine).Assembly.GetTypes()
        let about = type.GetCustomAttribute<VerbAttribute>()
        where about is not null
        orderby about.Order
        select (about, type);

    private static (string Line, int Code)? Describe(Exception e, Session session) => e switch
    {
        OperationCanceledException => ("interrupted" + (e is InterruptedException i ? ": " + OneLine(i.Message) : ""), Interrupted),
        InvalidInputException => ("error: " + OneLine(e.Message), WrongInput),
        IlgpuSaeException => ("error: " + OneLine(e.Message), Failure),
        IOException or UnauthorizedAccessException => ("error: " + OneLine(e.Message), Failure),
        _ => ($"error: {e.GetType().Name}: {OneLine(e.Message)} (a defect of the program; "
            + (session.Verbose ? "please report the lines below)" : "run again with --verbose and report it)"), Failure),
    };

    private static string OneLine(string text) => text.ReplaceLineEndings(" ");

    private static RootCommand Build(CommonOptions common, out Dictionary<Command, Verb> verbs)
    {
        verbs = [];
        var root = new RootCommand("Find out what a language model has learned: train sparse autoencoders on its activations and use what they find.");
        foreach (var (about, type) in Verbs())
        {
            var words = about.Words.Split(' ');
            Command parent = root;
            foreach (var word in words[..^1])
            {
                var below = parent.Subcommands.FirstOrDefault(c => c.Name == word);
                if (below is null) parent.Subcommands.Add(below = new Command(word, $"Verbs about one {word}."));
                parent = below;
            }

            var verb = (Verb)Activator.CreateInstance(type)!;
            var command = new Command(words[^1], about.Summary) { TreatUnmatchedTokensAsErrors = true };
            foreach (var option in verb.Groups.Concat(common.Groups).SelectMany(g => g.Options)) command.Options.Add(option);
            command.SetAction((ParseResult _) => Success);
            parent.Subcommands.Add(command);
            verbs.Add(command, verb);
        }

        foreach (var option in root.Options)
        {
            if (option is HelpOption help) help.Action = new GroupedHelp(root, verbs, common);
        }

        return root;
    }
}

/// <summary>The user's Ctrl-C, with how to go on.</summary>
internal sealed class InterruptedException(string message) : OperationCanceledException(message);
