using IlgpuSae.Saes;

namespace IlgpuSae.Training;

/// <summary>Where a run stands, told after every step.</summary>
/// <param name="Metrics">The step's numbers.</param>
/// <param name="TotalSteps">Steps of the whole run.</param>
/// <param name="SamplesPerSecond">Rows a second over the last seconds, making the activations included.</param>
/// <param name="Elapsed">Time since the run began.</param>
/// <param name="TimeLeft">Estimate from the whole run so far.</param>
public sealed record TrainingProgress(
    StepMetrics Metrics, long TotalSteps, double SamplesPerSecond, TimeSpan Elapsed, TimeSpan TimeLeft);

/// <summary>Why a run ended.</summary>
public enum TrainingEnd
{
    /// <summary>All rows asked for were trained on.</summary>
    Completed,

    /// <summary>The source had no more rows.</summary>
    SourceEnded,

    /// <summary>The user stopped it.</summary>
    Cancelled,
}

/// <summary>What a run leaves.</summary>
/// <param name="Sae">The trained SAE, activation scale folded in; the caller's.</param>
/// <param name="End">Why it ended.</param>
/// <param name="Steps">Steps made.</param>
/// <param name="Samples">Rows trained on.</param>
/// <param name="Last">The last step's numbers; null if none was made.</param>
/// <param name="LogSparsity">log10(firing frequency + 1e-10) of each feature in the current window, [d_sae].</param>
/// <param name="DeadFeatures">Features dead after the last step.</param>
/// <param name="ActivationScale">The factor that was folded in; null if there was none.</param>
/// <param name="Elapsed">Time the run took.</param>
public sealed record TrainingReport(
    TrainingSae Sae, TrainingEnd End, long Steps, long Samples, StepMetrics? Last, float[] LogSparsity, int DeadFeatures,
    double? ActivationScale, TimeSpan Elapsed);
