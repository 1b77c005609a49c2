using System.ComponentModel;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>Settings of a transcoder: from d_in numbers of one hook to d_out numbers of another.</summary>
public record TranscoderConfig : SaeConfig
{
    /// <summary>A transcoder subtracts no bias: b_dec belongs to the output.</summary>
    public TranscoderConfig() => ApplyBDecToInput = false;

    /// <inheritdoc/>
    public override string Architecture => "transcoder";

    /// <summary>Width of the output.</summary>
    [Description("width of the output")]
    public int DOut { get; init; } = 768;

    /// <inheritdoc/>
    public override int OutputWidth => DOut;

    /// <inheritdoc/>
    public override bool IsTranscoder => true;

    /// <inheritdoc/>
    public override void Validate()
    {
        base.Validate();
        Transcoder.Check(this);
    }
}

/// <summary>Settings of a transcoder whose output also has a linear part of the input.</summary>
public record SkipTranscoderConfig : TranscoderConfig
{
    /// <inheritdoc/>
    public override string Architecture => "skip_transcoder";

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters => [.. base.Parameters, Transcoder.Skip(this)];
}

/// <summary>Settings of every transcoder in training.</summary>
public abstract record TranscoderTrainingConfigBase : TrainingSaeConfig
{
    /// <summary>A transcoder subtracts no bias: b_dec belongs to the output.</summary>
    protected TranscoderTrainingConfigBase() => ApplyBDecToInput = false;

    /// <summary>Width of the output; 0 follows the target.</summary>
    [Description("width of a transcoder's output; follows hook_name_out if not given")]
    public int DOut { get; init; }

    /// <inheritdoc/>
    public override int OutputWidth => DOut;

    /// <inheritdoc/>
    public override bool IsTranscoder => true;

    /// <inheritdoc/>
    public override void Validate()
    {
        base.Validate();
        Transcoder.Check(this);
    }
}

/// <summary>Settings of a transcoder in training: mse + l1_coefficient * ||f . norms||_p.</summary>
public record TranscoderTrainingConfig : TranscoderTrainingConfigBase
{
    /// <inheritdoc/>
    public override string Architecture => "transcoder";

    /// <summary>Weight of the sparsity penalty.</summary>
    [Description("weight of the sparsity penalty")]
    public double L1Coefficient { get; init; } = 1.0;

    /// <summary>p of the penalty's norm over features; 1 is the usual sum.</summary>
    [Description("p of the sparsity penalty's norm over features")]
    public double LpNorm { get; init; } = 1.0;

    /// <summary>Steps over which the weight grows from 0.</summary>
    [Description("steps over which the sparsity penalty's weight grows from 0")]
    public int L1WarmUpSteps { get; init; }

    /// <inheritdoc/>
    public override SaeConfig ToInference() => Shared(new TranscoderConfig { DOut = DOut });

    /// <inheritdoc/>
    public override void Validate()
    {
        base.Validate();
        StandardTrainingSae.Check(L1Coefficient, LpNorm, L1WarmUpSteps);
    }
}

/// <summary>Settings of a skip transcoder in training.</summary>
public record SkipTranscoderTrainingConfig : TranscoderTrainingConfig
{
    /// <inheritdoc/>
    public override string Architecture => "skip_transcoder";

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters => [.. base.Parameters, Transcoder.Skip(this)];

    /// <inheritdoc/>
    public override SaeConfig ToInference() => Shared(new SkipTranscoderConfig { DOut = DOut });
}

/// <summary>
/// Transcoder: f = ReLU(x W_enc + b_enc), output f W_dec + b_dec, which stands for another hook's activations; usually
/// from what an MLP reads to what it writes. Normalisation of the input is not undone on the output. Dunefsky et al.
/// 2024, arXiv:2406.11944.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("transcoder")]
public class TranscoderSae(TranscoderConfig config, Device device) : Sae(config, device)
{
    /// <inheritdoc/>
    protected override SparseFeatures Select(TensorScope scope, Tensor rows) => StandardSae.Relu(scope, this, rows);

    /// <inheritdoc/>
    protected override SparseFeatures SelectFrom(TensorScope scope, Tensor pre, Tensor rows) => StandardSae.Relu(scope, pre);
}

/// <summary>
/// Transcoder with a linear part: x W_skip^T is added to the output, x as given and not normalised. Decoding features
/// without the input's frame leaves it out. Paulo et al. 2025, arXiv:2501.18823.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("skip_transcoder")]
public sealed class SkipTranscoderSae(SkipTranscoderConfig config, Device device) : TranscoderSae(config, device);

/// <summary>
/// Transcoder in training: mse_loss is taken against the target, l1_loss as in <see cref="StandardTrainingSae"/>.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("transcoder")]
public class TranscoderTrainingSae(TranscoderTrainingConfig config, Device device) : TrainingSae(config, device)
{
    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, LossCoefficient> Coefficients { get; } =
        new Dictionary<string, LossCoefficient> { ["l1"] = new(config.L1Coefficient, config.L1WarmUpSteps) };

    /// <inheritdoc/>
    public override Sae ToInference() => CopyParametersTo(SaeRegistry.Default.Create(Config.ToInference(), Device));

    /// <inheritdoc/>
    protected override SparseFeatures Select(TensorScope scope, Tensor rows) => StandardSae.Relu(scope, this, rows);

    /// <inheritdoc/>
    protected override SparseFeatures SelectFrom(TensorScope scope, Tensor pre, Tensor rows) => StandardSae.Relu(scope, pre);

    /// <inheritdoc/>
    protected override IEnumerable<(string Name, Tensor Value)> Losses(TensorScope scope, TrainingContext context)
    {
        yield return StandardTrainingSae.L1(scope, WDec, context, ((TranscoderTrainingConfig)Config).LpNorm);
    }
}

/// <summary>Skip transcoder in training. W_skip begins at zero.</summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("skip_transcoder")]
public sealed class SkipTranscoderTrainingSae(SkipTranscoderTrainingConfig config, Device device) : TranscoderTrainingSae(config, device);

/// <summary>What every transcoder's settings share.</summary>
internal static class Transcoder
{
    internal static ParameterSpec Skip(SaeConfig config) => new("W_skip", [config.OutputWidth, config.DIn]);

    internal static void Check(SaeConfig config)
    {
        if (config.OutputWidth < 1) throw new InvalidInputException($"d_out: {config.OutputWidth} is not a width; it must be at least 1");
        if (config.ApplyBDecToInput)
            throw new InvalidInputException($"apply_b_dec_to_input: architecture {config.Architecture} cannot subtract b_dec, which belongs to its output, from its input; use false");
        if (config.ReshapeActivations != ReshapeActivations.None)
            throw new InvalidInputException($"reshape_activations: architecture {config.Architecture} takes [..., d_in]; use none");
    }
}
