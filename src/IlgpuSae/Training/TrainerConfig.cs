using System.ComponentModel;

namespace IlgpuSae.Training;

/// <summary>Settings of a training run in SAELens' fields. Rows are samples: one token's activations each.</summary>
public sealed partial record TrainerConfig
{
    /// <summary>Rows to train on.</summary>
    [Description("rows (tokens) to train on")]
    public long TotalTrainingSamples { get; init; } = 2_000_000;

    /// <summary>Rows a step.</summary>
    [Description("rows (tokens) a step")]
    public int TrainBatchSizeSamples { get; init; } = 4096;

    /// <summary>Learning rate after warm-up.</summary>
    [Description("learning rate after warm-up")]
    public double Lr { get; init; } = 3e-4;

    /// <summary>Learning rate where the cosine schedules end; null: a tenth of <see cref="Lr"/>.</summary>
    [Description("learning rate where the cosine schedules end; a tenth of lr if not given")]
    public double? LrEnd { get; init; }

    /// <summary><c>constant</c>, <c>cosineannealing</c> or <c>cosineannealingwarmrestarts</c>, whatever the case.</summary>
    [Description("constant, cosineannealing or cosineannealingwarmrestarts")]
    public string LrSchedulerName { get; init; } = "constant";

    /// <summary>Steps over which the learning rate grows; the first has lr / steps.</summary>
    [Description("steps over which the learning rate grows")]
    public int LrWarmUpSteps { get; init; }

    /// <summary>Last steps, over which the learning rate falls to 0.</summary>
    [Description("last steps, over which the learning rate falls to 0")]
    public int LrDecaySteps { get; init; }

    /// <summary>Periods of <c>cosineannealingwarmrestarts</c>.</summary>
    [Description("periods of cosineannealingwarmrestarts")]
    public int NRestartCycles { get; init; } = 1;

    /// <summary>Adam's decay of the first moment.</summary>
    [Description("Adam's decay of the first moment")]
    public double AdamBeta1 { get; init; } = 0.9;

    /// <summary>Adam's decay of the second moment.</summary>
    [Description("Adam's decay of the second moment")]
    public double AdamBeta2 { get; init; } = 0.999;

    /// <summary>Adam's epsilon, added to the root.</summary>
    [Description("Adam's epsilon")]
    public double AdamEps { get; init; } = 1e-8;

    /// <summary>Largest norm of all gradients together; larger ones are scaled to it.</summary>
    [Description("largest norm of all gradients together")]
    public double ClipGradNorm { get; init; } = 1.0;

    /// <summary>Steps without firing after which a feature counts as dead.</summary>
    [Description("steps without firing after which a feature counts as dead")]
    public int DeadFeatureWindow { get; init; } = 1000;

    /// <summary>Steps over which firing frequencies are counted before they start again.</summary>
    [Description("steps over which firing frequencies are counted")]
    public int FeatureSamplingWindow { get; init; } = 2000;

    /// <summary>Seed of the initial weights and of everything else that is drawn.</summary>
    [Description("seed of everything that is drawn")]
    public ulong Seed { get; init; } = 42;

    /// <summary>Where the cosine schedules end.</summary>
    internal double EndLr => LrEnd ?? Lr / 10;

    /// <summary>Whole batches of the run: what the schedules are laid out over.</summary>
    internal long TotalSteps => AllSamples / TrainBatchSizeSamples;

    /// <summary>Checks every setting.</summary>
    /// <exception cref="InvalidInputException">A setting is out of range; the message names it in files' spelling.</exception>
    public void Validate()
    {
        AtLeast("total_training_samples", TotalTrainingSamples, 1);
        AtLeast("train_batch_size_samples", TrainBatchSizeSamples, 1);
        AtLeast("lr_warm_up_steps", LrWarmUpSteps, 0);
        AtLeast("lr_decay_steps", LrDecaySteps, 0);
        AtLeast("n_restart_cycles", NRestartCycles, 1);
        AtLeast("dead_feature_window", DeadFeatureWindow, 0);
        AtLeast("feature_sampling_window", FeatureSamplingWindow, 1);
        if (!(Lr > 0 && double.IsFinite(Lr))) throw new InvalidInputException($"lr: {Lr} is not a positive number");
        if (!(EndLr >= 0 && EndLr <= Lr)) throw new InvalidInputException($"lr_end: {EndLr} is not between 0 and lr = {Lr}");
        if (!(AdamBeta1 is >= 0 and < 1)) throw new InvalidInputException($"adam_beta1: {AdamBeta1} is not in [0, 1)");
        if (!(AdamBeta2 is >= 0 and < 1)) throw new InvalidInputException($"adam_beta2: {AdamBeta2} is not in [0, 1)");
        if (!(AdamEps > 0 && double.IsFinite(AdamEps))) throw new InvalidInputException($"adam_eps: {AdamEps} is not a positive number");
        if (!(ClipGradNorm > 0)) throw new InvalidInputException($"clip_grad_norm: {ClipGradNorm} is not a positive number");
        ValidateOptions();
        if (TotalSteps < 1)
        {
            throw new InvalidInputException(
                $"total_training_samples: {TotalTrainingSamples} is less than one batch of train_batch_size_samples = {TrainBatchSizeSamples}");
        }

        if ((long)LrWarmUpSteps + LrDecaySteps > TotalSteps)
        {
            throw new InvalidInputException(
                $"lr_warm_up_steps {LrWarmUpSteps} + lr_decay_steps {LrDecaySteps} are more than the {TotalSteps} steps of the run; lower them or raise total_training_samples");
        }

        _ = new LearningRateSchedule(this);
    }

    private static void AtLeast(string name, long value, long least)
    {
        if (value < least) throw new InvalidInputException($"{name}: {value} is less than {least}");
    }
}
