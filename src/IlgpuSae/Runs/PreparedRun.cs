using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Training;

namespace IlgpuSae.Runs;

/// <summary>A run with everything made that it needs: SAE and trainer. It trains, writes the folder and judges.</summary>
/// <param name="source">Where it is judged; it stays the caller's.</param>
/// <param name="completed">The settings, with what followed from the source filled in.</param>
/// <param name="sae">The SAE.</param>
/// <param name="trainer">Its trainer.</param>
/// <param name="sink">Where every step's numbers go; may be null.</param>
internal sealed class PreparedRun(RunSource source, RunConfig completed, TrainingSae sae, SaeTrainer trainer, IMetricSink? sink) : IDisposable
{
    /// <summary>Rows that an SAE trained without a model is judged on.</summary>
    private const int JudgedRows = 32768;

    /// <summary>The settings, with what followed from the source filled in.</summary>
    public RunConfig Completed => completed;

    /// <summary>Does the work.</summary>
    /// <param name="trained">Called between training and judging.</param>
    /// <param name="cancellation">Stops after the current step; what was trained until then is saved.</param>
    public TrainingRunReport Execute(Action trained, CancellationToken cancellation)
    {
        var training = trainer.Train(cancellation);
        using var inference = sae.ToInference();
        if (completed.OutputPath is { } folder && training.Steps > 0)
            SaeLensFolder.Save(folder, inference, training.LogSparsity, completed.ToJson(), sae);
        trained();
        var (evaluation, on) = training.End == TrainingEnd.Cancelled ? (null, "") : source.Judge(completed, inference, JudgedRows, cancellation);
        var recovery = training.Steps > 0 ? source.Synthetic?.Recovery(inference.WDec) : null;
        var truth = recovery is null || evaluation is null ? null : source.JudgeFeatures(inference, JudgedRows, cancellation);
        return new TrainingRunReport(completed, training, evaluation, on, recovery, truth, source.Wraps);
    }

    /// <summary>Gives memory back; numbers of a run that did not end are removed.</summary>
    public void Dispose()
    {
        sink?.Dispose();
        trainer.Dispose();
        sae.Dispose();
    }
}
