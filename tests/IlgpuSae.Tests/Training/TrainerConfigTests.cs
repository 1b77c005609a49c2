using IlgpuSae.Training;
using Xunit;

namespace IlgpuSae.Tests.Training;

/// <summary>Schedules against the values SAELens 6.18 gives, and the messages about settings that cannot be.</summary>
public sealed class TrainerConfigTests
{
    private static readonly TrainerConfig Sound = new() { TotalTrainingSamples = 100, TrainBatchSizeSamples = 10, Lr = 0.1 };

    [Theory]
    [InlineData("constant", 6, 2, 4, null, new[] { .05, .1, .1, .075, .05, .025, 0 })]
    [InlineData("constant", 10, 4, 3, null, new[] { .025, .05, .075, .1, .1, .1, .1, .1, .0666667, .0333333, 0 })]
    [InlineData("CosineAnnealing", 8, 2, 2, .01, new[] { .05, .1, .1, .0868198, .055, .0231802, .01, .005, 0 })]
    [InlineData("constant", 3, 1, 0, null, new[] { .1, .1, .1, .1 })]
    [InlineData("cosineannealingwarmrestarts", 6, 0, 0, 0.0, new[] { .1, .075, .025, .1, .075, .025, .1 })]
    public void Learning_rates_are_those_of_SAELens(string name, int steps, int warmUp, int decay, double? end, double[] expected)
    {
        var config = Sound with
        {
            TotalTrainingSamples = (steps * 10) + 3,
            LrSchedulerName = name,
            LrWarmUpSteps = warmUp,
            LrDecaySteps = decay,
            LrEnd = end,
            NRestartCycles = 2,
        };
        config.Validate();
        var schedule = new LearningRateSchedule(config);
        for (var t = 0; t < expected.Length; t++) Assert.Equal(expected[t], schedule.At(t), 1e-7);
    }

    [Fact]
    public void Settings_that_cannot_be_are_refused_by_name()
    {
        Refused("lr: -0.1 is not a positive number", c => c with { Lr = -0.1 });
        Refused("lr: NaN is not a positive number", c => c with { Lr = double.NaN });
        Refused("lr_warm_up_steps 4 + lr_decay_steps 7 are more than the 10 steps of the run", c => c with { LrWarmUpSteps = 4, LrDecaySteps = 7 });
        Refused("lr_decay_steps: -1 is less than 0", c => c with { LrDecaySteps = -1 });
        Refused("lr_scheduler_name: \"cosine\" is not known; known: constant,", c => c with { LrSchedulerName = "cosine" });
        Refused("lr_end: 0 leaves nothing", c => c with { LrSchedulerName = "cosineannealing", LrEnd = 0, LrDecaySteps = 2 });
        Refused("n_restart_cycles: 11 periods do not fit into the 10 steps", c => c with { LrSchedulerName = "cosineannealingwarmrestarts", NRestartCycles = 11 });
        Refused("total_training_samples: 5 is less than one batch of train_batch_size_samples = 10", c => c with { TotalTrainingSamples = 5 });
        Refused("train_batch_size_samples: 0 is less than 1", c => c with { TrainBatchSizeSamples = 0 });
        Refused("adam_beta1: 1 is not in [0, 1)", c => c with { AdamBeta1 = 1 });
        Refused("dead_feature_window: -1 is less than 0", c => c with { DeadFeatureWindow = -1 });
        Refused("clip_grad_norm: 0 is not a positive number", c => c with { ClipGradNorm = 0 });
    }

    private static void Refused(string message, Func<TrainerConfig, TrainerConfig> change) =>
        Assert.StartsWith(message, Assert.Throws<InvalidInputException>(change(Sound).Validate).Message, StringComparison.Ordinal);
}
