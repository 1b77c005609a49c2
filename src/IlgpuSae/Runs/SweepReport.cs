namespace IlgpuSae.Runs;

/// <summary>What one run of a sweep left.</summary>
/// <param name="Item">The run.</param>
/// <param name="Report">What it reports; null if it failed.</param>
/// <param name="Failure">Why it failed; null if it did not.</param>
/// <param name="Seconds">Time its own training and judging took, making activations left out.</param>
public sealed record SweepRun(SweepItem Item, TrainingRunReport? Report, string? Failure, double Seconds);

/// <summary>What a sweep leaves.</summary>
/// <param name="Config">Its settings.</param>
/// <param name="Runs">Its runs, in order.</param>
/// <param name="Seconds">Time of everything.</param>
/// <param name="ActivationSeconds">Of it, the time it took to make activations to train on.</param>
/// <param name="Cancelled">Whether the user stopped it.</param>
public sealed record SweepReport(SweepConfig Config, IReadOnlyList<SweepRun> Runs, double Seconds, double ActivationSeconds, bool Cancelled);

/// <summary>Where one run of a sweep stands.</summary>
/// <param name="Run">Its number, from 0.</param>
/// <param name="Progress">Where it stands.</param>
public sealed record SweepProgress(int Run, Training.TrainingProgress Progress);
