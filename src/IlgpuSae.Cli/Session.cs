using System.CommandLine;
using System.Text.Json;
using System.Text.Json.Nodes;
using IlgpuSae.Files;
using IlgpuSae.Hub;
using IlgpuSae.Tensors;

namespace IlgpuSae.Cli;

/// <summary>One run of a verb: where it writes, what it computes on, and when it has to stop.</summary>
internal sealed class Session(CommonOptions common, ParseResult parsed, TextWriter output, TextWriter error, Func<string, string?>? variable, CancellationToken interrupt) : IDisposable
{
    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true };
    private readonly ProgressLine _progress = new(error, parsed.GetValue(common.Quiet));
    private JsonObject? _result;
    private HubClient? _hub;

    public bool Quiet { get; } = parsed.GetValue(common.Quiet);

    public bool Verbose { get; } = parsed.GetValue(common.Verbose);

    public CancellationToken Interrupt { get; } = interrupt;

    /// <summary>Where reports go.</summary>
    public TextWriter Output { get; } = output;

    /// <summary>The value of an option that must be given.</summary>
    public string Required(Option<string?> option) => parsed.GetValue(option) is { Length: > 0 } value
        ? value
        : throw new InvalidInputException($"{option.Name} {option.HelpName}: missing; {char.ToLowerInvariant(option.Description![0])}{option.Description[1..].TrimEnd('.')}");

    /// <summary>Opens the device the user chose.</summary>
    public Device OpenDevice() => Device.Open(parsed.GetValue(common.Device)!, parsed.GetValue(common.Threads),
        Enum.Parse<MatmulPrecision>(parsed.GetValue(common.Precision)!, ignoreCase: true));

    /// <summary>The hub, with bars for what it transfers; opened when it is first needed.</summary>
    public HubClient Hub() => _hub ??= new HubClient(HubOptions.FromEnvironment(variable) with
    {
        Note = Note,
        Progress = p =>
        {
            Progress(TransferBar.Line(p), p.Done);
            if (p.Done) EndProgress();
        },
    });

    public void Dispose() => _hub?.Dispose();

    /// <summary>A line of advice or information on the error stream; silent with --quiet.</summary>
    public void Note(string line)
    {
        if (Quiet) return;
        EndProgress();
        error.WriteLine(line);
    }

    /// <summary>Replaces the progress line.</summary>
    public void Progress(string line, bool force = false) => _progress.Show(line, force);

    public void EndProgress() => _progress.End();

    /// <summary>What --json writes.</summary>
    public void Result(JsonObject result) => _result = result;

    public void WriteJson()
    {
        EndProgress();
        if (parsed.GetValue(common.Json) is not { } path || _result is null) return;
        AtomicFile.WriteText(path, _result.ToJsonString(Indented) + "\n");
    }
}
