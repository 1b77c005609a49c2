using IlgpuSae.Activations;
using IlgpuSae.Evaluation;
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
    /// <summary>Rows that an SAE trained without a model is judged on.</summary>
    private const int JudgedRows = 32768;

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
        using var source = RunSource.Open(config, device);
        var weights = ReadWeights(config.InitFrom);
        var completed = Complete(source, weights);
        if (config.OutputPath is { } output) OutputFolder.Check(output);
        using var sae = NewSae(completed, weights);
        // Given weights have a b_dec already.
        var settings = weights is null ? completed.Trainer : completed.Trainer with { BDecInitMethod = BDecInitMethod.Zeros };
        using var trainer = new SaeTrainer(sae, source.Rows(settings), settings) { Progress = Progress };
        using var sink = MetricsPath is null ? null : new JsonLinesSink(MetricsPath);
        if (sink is not null) trainer.Sinks.Add(sink);
        var told = source.Notes;
        foreach (var note in told.Concat(completed.Sae.Notes)) Note?.Invoke(note);
        Note?.Invoke(source.Describe(completed));
        var training = trainer.Train(cancellation);
        using var inference = sae.ToInference();
        if (config.OutputPath is { } folder && training.Steps > 0)
            SaeLensFolder.Save(folder, inference, training.LogSparsity, completed.ToJson(), sae);
        var (evaluation, on) = training.End == TrainingEnd.Cancelled ? (null, "") : source.Judge(completed, inference, JudgedRows, cancellation);
        // What is found out only while reading: malformed rows.
        foreach (var note in source.Notes.Except(told)) Note?.Invoke(note);
        var recovery = training.Steps > 0 ? source.Synthetic?.Recovery(inference.WDec) : null;
        var truth = recovery is null || evaluation is null ? null : GroundTruthEvaluator.Run(inference, source.Synthetic!, JudgedRows, cancellation: cancellation);
        return new TrainingRunReport(completed, training, evaluation, on, recovery, truth, source.Wraps);
    }

    private static IReadOnlyList<NamedValues>? ReadWeights(string? path)
    {
        if (path is null) return null;
        return SaeLensFolder.ReadWeights(Directory.Exists(path) ? Path.Combine(RunConfigReader.TrainingFolder(path), SaeLensFolder.WeightsFile) : path);
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
