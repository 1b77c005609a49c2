using System.ComponentModel;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>Settings of a BatchTopK transcoder in training.</summary>
public record BatchTopKTranscoderTrainingConfig : BatchTopKTrainingConfig
{
    /// <summary>A transcoder subtracts no bias: b_dec belongs to the output.</summary>
    public BatchTopKTranscoderTrainingConfig() => ApplyBDecToInput = false;

    /// <inheritdoc/>
    public override string Architecture => "batchtopk_transcoder";

    /// <summary>Width of the output; 0 follows the target.</summary>
    [Description(Transcoder.Width)]
    public int DOut { get; init; }

    /// <inheritdoc/>
    public override int OutputWidth => DOut;

    /// <inheritdoc/>
    public override bool IsTranscoder => true;

    /// <inheritdoc/>
    public override SaeConfig WithOutputWidth(int width) => this with { DOut = width };

    /// <inheritdoc/>
    public override SaeConfig ToInference() => Shared(new JumpReLUTranscoderConfig { DOut = DOut });
}

/// <summary>Settings of a BatchTopK skip transcoder in training.</summary>
public sealed record BatchTopKSkipTranscoderTrainingConfig : BatchTopKTranscoderTrainingConfig
{
    /// <inheritdoc/>
    public override string Architecture => "batchtopk_skip_transcoder";

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters => [.. base.Parameters, Transcoder.Skip(this)];

    /// <inheritdoc/>
    public override SaeConfig ToInference() => Shared(new JumpReLUSkipTranscoderConfig { DOut = DOut });
}

/// <summary>
/// BatchTopK transcoder in training: a BatchTopK SAE whose losses are taken against the target, d_out in place of d_in. What it
/// yields is a <see cref="JumpReLUTranscoderSae"/>, which SAELens reads.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("batchtopk_transcoder")]
public sealed class BatchTopKTranscoderTrainingSae(BatchTopKTranscoderTrainingConfig config, Device device) : BatchTopKTrainingSae(config, device);

/// <summary>BatchTopK skip transcoder in training; it yields a <see cref="JumpReLUSkipTranscoderSae"/>. W_skip begins at zero.</summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("batchtopk_skip_transcoder")]
public sealed class BatchTopKSkipTranscoderTrainingSae(BatchTopKSkipTranscoderTrainingConfig config, Device device) : BatchTopKTrainingSae(config, device);
