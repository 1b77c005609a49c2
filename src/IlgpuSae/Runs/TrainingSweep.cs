using System.Diagnostics;
using System.Runtime.ExceptionServices;
using IlgpuSae.Hub;
using IlgpuSae.Tensors;
using IlgpuSae.Training;

namespace IlgpuSae.Runs;

/// <summary>
/// Trains several SAEs on one stream of activations: the model runs once, however many there are. Each ends with the
/// bytes it would have if it were trained alone with the same settings. All settings are checked before the first step;
/// a run that fails does not stop the others.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where to compute.</param>
public sealed class TrainingSweep(SweepConfig config, Device device)
{
    /// <summary>Opens the hub, should models or SAEs be named that are not on the disk; null: as the environment says.</summary>
    public Func<HubClient>? Hub { get; init; }

    /// <summary>Told after every step of every run.</summary>
    public Action<SweepProgress>? Progress { get; init; }

    /// <summary>Told what the sweep does now, and what the user ought to know.</summary>
    public Action<string>? Note { get; init; }

    /// <summary>File for every step's numbers; each run's own has its name before the extension; null: none.</summary>
    public string? MetricsPath { get; init; }

    /// <summary>Runs it; every SAE's folder is written when it is trained, the tables when all are judged.</summary>
    /// <param name="cancellation">Stops every run after its current step; what was trained until then is saved.</param>
    /// <exception cref="IlgpuSaeException">Bad input, or all runs failed.</exception>
    public SweepReport Execute(CancellationToken cancellation = default)
    {
        var clock = Stopwatch.StartNew();
        var items = config.Items;
        SweepResults.CheckFolder(config.OutputPath);
        using var source = RunSource.Open([.. items.Select(i => i.Config)], device, Hub, cancellation);
        var turns = new Turns(items.Count);
        using var stream = new SharedStream(source.Rows(items[0].Config.Trainer), turns);
        var prepared = new List<PreparedRun>();
        try
        {
            foreach (var (item, i) in items.Select((item, i) => (item, i)))
            {
                var own = source.For(item.Config);
                var run = new TrainingRun(item.Config, device)
                {
                    MetricsPath = MetricsPath is null ? null : Named(MetricsPath, item.Name),
                    Progress = p => Progress?.Invoke(new SweepProgress(i, p)),
                };
                prepared.Add(run.Prepare(own, _ => new BlockView(stream.View(i), own.Blocks)));
            }

            foreach (var note in items.SelectMany(i => i.Config.Notes).Concat(source.Notes).Concat(prepared.SelectMany(r => r.Completed.Sae.Notes)).Distinct()) Note?.Invoke(note);
            foreach (var run in prepared) Note?.Invoke(source.For(run.Completed).Describe(run.Completed));
            var reports = new TrainingRunReport?[items.Count];
            var failures = turns.Run(device, i => reports[i] = prepared[i].Execute(() => turns.Gate(i), cancellation));
            if (reports.All(r => r is null)) ExceptionDispatchInfo.Throw(failures[0]!);
            var runs = items.Select((item, i) => new SweepRun(item, reports[i], failures[i]?.Message, (turns.Active(i) - stream.MadeBy(i)).TotalSeconds)).ToList();
            var cancelled = reports.Any(r => r?.Training.End == TrainingEnd.Cancelled);
            var report = new SweepReport(config, runs, clock.Elapsed.TotalSeconds, stream.Elapsed.TotalSeconds, cancelled);
            SweepResults.Write(report);
            return report;
        }
        finally
        {
            foreach (var run in prepared) run.Dispose();
        }
    }

    private static string Named(string path, string name) =>
        Path.Combine(Path.GetDirectoryName(path) ?? "", $"{Path.GetFileNameWithoutExtension(path)}-{name}{Path.GetExtension(path)}");
}
