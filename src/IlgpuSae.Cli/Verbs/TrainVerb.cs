using System.CommandLine;
using System.ComponentModel;
using System.Globalization;
using System.Reflection;
using System.Text.Json.Nodes;
using IlgpuSae.Activations;
using IlgpuSae.Plots;
using IlgpuSae.Runs;
using IlgpuSae.Saes;
using IlgpuSae.Training;

namespace IlgpuSae.Cli.Verbs;

[Verb("train", "Train a sparse autoencoder: on a model's activations, on a file of activations, or on the built-in synthetic source.", 10)]
internal sealed class TrainVerb : Verb
{
    private readonly Option<string?> _config = Options.Text("--config", "FILE", "Settings as JSON in SAELens' field names; options below win over it.");
    private readonly Option<string?> _model = Options.Text("--model", "DIR", "Folder of the model, a name such as gpt2-small, or a repository of the hub.");
    private readonly Option<string?> _architecture = Options.Text("--architecture", "NAME", $"What to train: {string.Join(", ", SaeRegistry.Default.TrainingNames)}. [topk]");
    private readonly Option<string?> _synthetic = Options.Text("--synthetic", "NAME", $"Rows whose features are known: {string.Join(", ", SyntheticPreset.Names)}. [superposition]");
    private readonly Option<string?> _initFrom = Options.Text("--init-from", "PATH", "Start from these weights: an SAE's folder, or a safetensors file under SAELens' names.");
    private readonly Option<string?> _output = Options.Text("--output-path", "DIR", "Folder for the result. [output/ARCHITECTURE-SOURCE]");
    private readonly Option<string?> _sweep = Options.Text("--sweep", "FILE", "Train several SAEs on one stream of activations: JSON with base, runs and grid; options win over its base.");
    private readonly Option<string?> _metrics = Options.Text("--metrics", "FILE", "Write every step's losses and more, one JSON object a line.");
    private readonly Option<bool> _noShuffle = Options.Switch("--no-shuffle", "Keep the order of the rows.");
    private readonly OptionTable _table = new(RunConfigReader.RunnerName);

    public TrainVerb()
    {
        _table.Add("Data", typeof(DataConfig), p => p.Name is not (nameof(DataConfig.ModelName) or nameof(DataConfig.Shuffle)));
        _table.Add("Training", typeof(TrainerConfig));
        var records = SaeRegistry.Default.TrainingNames.Select(n => (Name: n, Type: SaeRegistry.Default.ConfigType(n, training: true))).ToList();
        _table.Add("SAE", records[0].Type, p => p.DeclaringType != records[0].Type);
        // Options that the same architectures have stand together.
        var own = records.SelectMany(r => r.Type.GetProperties().Select(p => p.Name), (r, p) => (Architecture: r, Property: p)).ToLookup(o => o.Property, o => o.Architecture);
        foreach (var shared in own.GroupBy(o => string.Join(", ", o.Select(a => a.Name))))
        {
            foreach (var (_, type) in records.Where(r => shared.First().Contains(r)))
                _table.Add($"SAE: {Title(shared.First().Select(r => r.Name))}", type, p => shared.Any(o => o.Key == p.Name));
        }

        _table.Add("End to end", typeof(EndToEndConfig));
        _table.Add("Synthetic source", typeof(SyntheticConfig), p => p.GetCustomAttribute<CategoryAttribute>() is null);
        _table.Add("Synthetic source: SynthSAEBench", typeof(SyntheticConfig));
    }

    public override IEnumerable<OptionGroup> Groups =>
    [
        new("Run", _config, _sweep, _model, _architecture, _synthetic, _initFrom, _output, _metrics, _noShuffle),
        .. _table.Groups,
    ];

    public override IReadOnlyList<string> Examples =>
    [
        "ilgpusae train",
        "ilgpusae train --synthetic synthsaebench-1k --architecture topk",
        "ilgpusae train --model gpt2 --hook-name blocks.8.hook_resid_pre --text corpus.txt --architecture topk --k 32",
        "ilgpusae train --sweep sweep.json",
        "ilgpusae train --activations acts.safetensors --init-from start.safetensors --no-shuffle --config run.json",
    ];

    public override void Run(ParseResult arguments, Session session)
    {
        if (arguments.GetValue(_sweep) is { } sweep)
        {
            Sweep(arguments, session, sweep);
            return;
        }

        var config = RunConfigReader.Load(arguments.GetValue(_config), Given(arguments));
        using var device = session.OpenDevice();
        var run = new TrainingRun(config, device)
        {
            Hub = session.Hub,
            MetricsPath = arguments.GetValue(_metrics),
            Note = session.Note,
            Progress = p => session.Progress(Line(p), p.Metrics.Step + 1 == p.TotalSteps),
        };
        if (config.Ignored.Count > 0) session.Note($"passed over, as nothing here depends on them: {string.Join(", ", config.Ignored)}");
        var report = run.Execute(session.Interrupt);
        session.EndProgress();
        TrainReport.Write(session, report);
        if (report.Training.End != TrainingEnd.Cancelled) return;
        session.WriteJson();
        throw new InterruptedException(report.Training.Steps == 0
            ? "nothing was trained yet, nothing is saved"
            : string.Create(CultureInfo.InvariantCulture, $"stopped after {report.Training.Steps} steps; go on with --init-from {config.OutputPath}"));
    }

    private void Sweep(ParseResult arguments, Session session, string file)
    {
        if (arguments.GetValue(_config) is not null) throw new InvalidInputException("--config and --sweep: the sweep's file holds the settings under base; give only one of them");
        var config = SweepConfig.Load(file, Given(arguments));
        using var device = session.OpenDevice();
        var sweep = new TrainingSweep(config, device)
        {
            Hub = session.Hub,
            MetricsPath = arguments.GetValue(_metrics),
            Note = session.Note,
            Progress = p => session.Progress($"[{config.Items[p.Run].Name}]  " + Line(p.Progress), force: false),
        };
        var report = sweep.Execute(session.Interrupt);
        session.EndProgress();
        var plots = ParetoPlot.Save(report);
        SweepTable.Write(session, report, plots);
        if (report.Cancelled) session.WriteJson();
        if (report.Cancelled) throw new InterruptedException($"stopped; what was trained until then is in {config.OutputPath}");
        var failed = report.Runs.Where(r => r.Failure is not null).ToList();
        if (failed.Count == 0) return;
        session.WriteJson();
        throw new TrainingFailedException($"{failed.Count} of {report.Runs.Count} runs failed, the others are complete; {failed[0].Item.Name}: {failed[0].Failure}");
    }

    /// <summary>Transcoders have the options of what they are named after, and their own width.</summary>
    private static string Title(IEnumerable<string> architectures)
    {
        var named = architectures.Where(a => !a.EndsWith("transcoder", StringComparison.Ordinal)).ToList();
        return named.Count == 0 ? "transcoders" : string.Join(", ", named);
    }

    private static string Line(TrainingProgress p) => string.Create(CultureInfo.InvariantCulture,
        $"step {p.Metrics.Step + 1}/{p.TotalSteps}  loss {Report.Number(p.Metrics.Loss)}  L0 {p.Metrics.L0:0.0}  EV {p.Metrics.ExplainedVariance:0.000}  "
        + $"dead {p.Metrics.NDead}  {Rate(p.SamplesPerSecond)} tok/s  {p.TimeLeft:m\\:ss} left");

    private static string Rate(double perSecond) => perSecond >= 1e6
        ? (perSecond / 1e6).ToString("0.0M", CultureInfo.InvariantCulture)
        : perSecond >= 1e3 ? (perSecond / 1e3).ToString("0.0k", CultureInfo.InvariantCulture) : perSecond.ToString("0", CultureInfo.InvariantCulture);

    private JsonObject Given(ParseResult arguments)
    {
        var given = _table.Given(arguments);
        foreach (var (field, value) in new[]
        {
            ("model_name", arguments.GetValue(_model)), ("architecture", arguments.GetValue(_architecture)),
            ("synthetic", arguments.GetValue(_synthetic)), ("init_from", arguments.GetValue(_initFrom)), ("output_path", arguments.GetValue(_output)),
        })
        {
            if (value is not null) given[field] = value;
        }

        if (arguments.GetValue(_noShuffle)) given["shuffle"] = false;
        return given;
    }
}
