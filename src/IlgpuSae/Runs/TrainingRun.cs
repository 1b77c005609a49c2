using IlgpuSae.Activations;
using IlgpuSae.Evaluation;
using IlgpuSae.Hub;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;
using IlgpuSae.Training;

namespace IlgpuSae.Runs;

/// <summary>What a training run leaves.</summary>
/// <param name="Config">The run's settings, with what followed from the source filled in.</param>
/// <param name="Training">What the trainer reports. Its SAE is disposed of.</param>
/// <param name="Evaluation">How good the SAE is; null if it was not judged.</param>
/// <param name="EvaluatedOn">What it was judged on, in words.</param>
/// <param name="Recovery">True features found; null where they are not known.</param>
/// <param name="GroundTruth">How well features agree with the true ones; null where those are not known.</param>
/// <param name="Wraps">How often the data began again.</param>
public sealed record TrainingRunReport(
    RunConfig Config, TrainingReport Training, EvaluationResult? Evaluation, string EvaluatedOn, FeatureRecovery? Recovery,
    GroundTruthResult? GroundTruth, int Wraps);

/// <summary>
/// A whole training run: opens the source, makes or loads the SAE, trains it, writes the folder, judges it. Bad input
/// is found before the first step; a run that fails leaves nothing.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where to compute.</param>
public sealed class TrainingRun(RunConfig config, Device device)
{
    /// <summary>Opens the hub, should models or SAEs be named that are not on the disk; null: as the environment says.</summary>
    public Func<HubClient>? Hub { get; init; }

    /// <summary>Told after every step.</summary>
    public Action<TrainingProgress>? Progress { get; init; }

    /// <summary>Told what the run does now, and what the user ought to know.</summary>
    public Action<string>? Note { get; init; }

    /// <summary>File for every step's numbers, one JSON object a line; null: none.</summary>
    public string? MetricsPath { get; init; }

    /// <summary>Runs it.</summary>
    /// <param name="cancellation">Stops after the current step; what was trained until then is saved and judged.</param>
    /// <exception cref="IlgpuSaeException">Bad input, or the run failed.</exception>
    public TrainingRunReport Execute(CancellationToken cancellation = default)
    {
        using var source = RunSource.Open(config, device, Hub, cancellation);
        using var prepared = Prepare(source, source.Rows);
        var told = source.Notes;
        foreach (var note in config.Notes.Concat(told).Concat(prepared.Completed.Sae.Notes)) Note?.Invoke(note);
        Note?.Invoke(source.Describe(prepared.Completed));
        var report = prepared.Execute(() => { }, cancellation);
        // What is found out only while reading: malformed rows.
        foreach (var note in source.Notes.Except(told)) Note?.Invoke(note);
        return report;
    }

    /// <summary>Makes everything that training needs; what is wrong with the settings comes out here.</summary>
    /// <param name="source">The opened source; it stays the caller's.</param>
    /// <param name="rows">The rows to train on.</param>
    internal PreparedRun Prepare(RunSource source, Func<TrainerConfig, IActivationSource> rows)
    {
        var weights = ReadWeights(config.InitFrom);
        var completed = Complete(source, weights);
        if (config.OutputPath is { } output) OutputFolder.Check(output);
        var sae = NewSae(completed, weights);
        SaeTrainer? trainer = null;
        try
        {
            // Given weights have a b_dec already.
            var settings = source.Fitted(weights is null ? completed.Trainer : completed.Trainer with { BDecInitMethod = BDecInitMethod.Zeros });
            trainer = new SaeTrainer(sae, rows(settings), settings) { Progress = Progress };
            if (source.Extension is { } extension) trainer.Extensions.Add(extension);
            var sink = MetricsPath is null ? null : new JsonLinesSink(MetricsPath);
            if (sink is not null) trainer.Sinks.Add(sink);
            return new PreparedRun(source, completed, sae, trainer, sink);
        }
        catch
        {
            trainer?.Dispose();
            sae.Dispose();
            throw;
        }
    }

    private static IReadOnlyList<NamedValues>? ReadWeights(string? path)
    {
        if (path is null) return null;
        if (!Directory.Exists(path)) return SaeLensFolder.ReadWeights(path);
        var folder = RunConfigReader.TrainingFolder(path);
        return File.Exists(Path.Combine(folder, SaeLensFolder.ConfigFile))
            ? SaeLensFolder.ReadState(folder)
            : SaeLensFolder.ReadWeights(Path.Combine(folder, SaeLensFolder.WeightsFile));
    }

    /// <summary>Widths that the source or the weights decide, and where the SAE comes from.</summary>
    private RunConfig Complete(RunSource source, IReadOnlyList<NamedValues>? weights)
    {
        var sae = config.Sae;
        if (sae.DIn == 0) sae = sae with { DIn = source.Width };
        if (sae is { IsTranscoder: true, OutputWidth: 0 }) sae = (TrainingSaeConfig)sae.WithOutputWidth(source.TargetWidth);
        if (sae.DSae == 0)
        {
            var decoder = weights?.FirstOrDefault(w => w.Name == "W_dec");
            sae = sae with { DSae = decoder is { Shape.Rank: 2 } ? decoder.Shape[0] : 8 * sae.DIn };
        }

        foreach (var (name, value) in source.Metadata) sae = sae with { Metadata = sae.Metadata.With(name, value) };
        return config with { Sae = sae };
    }

    private TrainingSae NewSae(RunConfig completed, IReadOnlyList<NamedValues>? weights)
    {
        var sae = SaeRegistry.Default.CreateForTraining(completed.Sae, device, completed.Trainer.Seed);
        try
        {
            if (weights is not null) sae.ImportState(weights, config.InitFrom!);
            return sae;
        }
        catch
        {
            sae.Dispose();
            throw;
        }
    }
}
