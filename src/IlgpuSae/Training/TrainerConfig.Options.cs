using System.ComponentModel;
using IlgpuSae.Saes;

namespace IlgpuSae.Training;

/// <summary>What b_dec starts with.</summary>
public enum BDecInitMethod
{
    /// <summary>Zeros.</summary>
    Zeros,

    /// <summary>The mean of the first rows.</summary>
    Mean,

    /// <summary>The geometric median of the first rows: the point with the least sum of distances to them.</summary>
    GeometricMedian,
}

/// <summary>What is trained in the last <c>finetuning_tokens</c>, the encoder resting.</summary>
public enum FinetuningMethod
{
    /// <summary>One factor a feature, multiplied onto its decoder row.</summary>
    Scale,

    /// <summary>The factors, W_dec and b_dec.</summary>
    Decoder,

    /// <summary>The factors and b_dec.</summary>
    UnrotatedDecoder,
}

/// <content>Data-dependent first weights, remedies for dead features, a last phase of fine-tuning.</content>
public sealed partial record TrainerConfig
{
    /// <summary>What b_dec starts with, unless the weights are given.</summary>
    [LeftOutByDefault]
    [Description("start of b_dec: zeros, or the mean or geometric_median of the first rows")]
    public BDecInitMethod BDecInitMethod { get; init; }

    /// <summary>Rows that decide it; they are trained on all the same.</summary>
    [LeftOutByDefault]
    [Description("rows that decide b_dec's start; they are trained on all the same")]
    public int BDecInitSamples { get; init; } = 32768;

    /// <summary>Steps between two times that dead features start anew from rows the SAE does badly on; 0: never.</summary>
    [LeftOutByDefault]
    [Description("steps between two resamplings of dead features; 0: never")]
    public int ResampleEverySteps { get; init; }

    /// <summary>Last step at which they do; null: so that each has <see cref="ResampleEverySteps"/> steps left to learn.</summary>
    [LeftOutByDefault]
    [Description("last step that may resample; that interval before the end if not given")]
    public long? ResampleUntilStep { get; init; }

    /// <summary>Batches whose rows are drawn from, the step's included.</summary>
    [LeftOutByDefault]
    [Description("latest batches whose rows are drawn from in resampling")]
    public int ResampleBatches { get; init; } = 1;

    /// <summary>A row is drawn with probability proportional to its squared error to this power.</summary>
    [LeftOutByDefault]
    [Description("rows are drawn with probability (squared error)^this in resampling")]
    public double ResampleLossPower { get; init; } = 2;

    /// <summary>Norm of a new encoder row, in mean norms of those that are alive.</summary>
    [LeftOutByDefault]
    [Description("norm of a resampled encoder row, in mean norms of the living")]
    public double ResampleEncoderScale { get; init; } = 0.2;

    /// <summary>Rows after <see cref="TotalTrainingSamples"/> that only <see cref="FinetuningMethod"/> is trained on.</summary>
    [LeftOutByDefault]
    [Description("further rows (tokens) that train what finetuning_method says")]
    public long FinetuningTokens { get; init; }

    /// <summary>What is trained in them.</summary>
    [LeftOutByDefault]
    [Description("scale, decoder, unrotated_decoder, or none")]
    public FinetuningMethod? FinetuningMethod { get; init; }

    /// <summary>Rows of the whole run, fine-tuning included.</summary>
    internal long AllSamples => TotalTrainingSamples + FinetuningTokens;

    private void ValidateOptions()
    {
        AtLeast("b_dec_init_samples", BDecInitSamples, 1);
        AtLeast("resample_every_steps", ResampleEverySteps, 0);
        AtLeast("resample_until_step", ResampleUntilStep ?? 0, 0);
        AtLeast("resample_batches", ResampleBatches, 1);
        AtLeast("finetuning_tokens", FinetuningTokens, 0);
        if (!(ResampleLossPower >= 0 && double.IsFinite(ResampleLossPower)))
            throw new InvalidInputException($"resample_loss_power: {ResampleLossPower} is not a number of at least 0");
        if (!(ResampleEncoderScale > 0 && double.IsFinite(ResampleEncoderScale)))
            throw new InvalidInputException($"resample_encoder_scale: {ResampleEncoderScale} is not a positive number");
        if (ResampleEverySteps > 0 && ResampleBatches > ResampleEverySteps)
            throw new InvalidInputException($"resample_batches: {ResampleBatches} batches do not lie between resamplings every {ResampleEverySteps} steps; lower it");
        var steps = TotalTrainingSamples / TrainBatchSizeSamples;
        if (ResampleEverySteps > 0 && (ResampleUntilStep ?? steps - ResampleEverySteps) < ResampleEverySteps)
            throw new InvalidInputException($"resample_every_steps: {ResampleEverySteps} leaves no step to resample at in a run of {steps} steps; lower it, or set resample_until_step");
        if (FinetuningTokens > 0 && FinetuningMethod is null)
            throw new InvalidInputException($"finetuning_method: missing, but finetuning_tokens = {FinetuningTokens}; use scale, decoder or unrotated_decoder");
        if (FinetuningTokens == 0 && FinetuningMethod is not null)
            throw new InvalidInputException("finetuning_tokens: 0, but finetuning_method is set; say for how many rows");
    }
}
