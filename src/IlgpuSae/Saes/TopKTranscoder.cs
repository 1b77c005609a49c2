using System.ComponentModel;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>Settings of a TopK transcoder.</summary>
public record TopKTranscoderConfig : TopKConfig
{
    /// <summary>A transcoder subtracts no bias: b_dec belongs to the output.</summary>
    public TopKTranscoderConfig() => ApplyBDecToInput = false;

    /// <inheritdoc/>
    public override string Architecture => "topk_transcoder";

    /// <summary>Width of the output.</summary>
    [Description(Transcoder.Width)]
    public int DOut { get; init; } = Transcoder.DefaultWidth;

    /// <inheritdoc/>
    public override int OutputWidth => DOut;

    /// <inheritdoc/>
    public override bool IsTranscoder => true;

    /// <inheritdoc/>
    public override SaeConfig WithOutputWidth(int width) => this with { DOut = width };
}

/// <summary>Settings of a TopK transcoder whose output also has a linear part of the input.</summary>
public sealed record TopKSkipTranscoderConfig : TopKTranscoderConfig
{
    /// <inheritdoc/>
    public override string Architecture => "topk_skip_transcoder";

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters => [.. base.Parameters, Transcoder.Skip(this)];
}

/// <summary>Settings of a TopK transcoder in training.</summary>
public record TopKTranscoderTrainingConfig : TopKTrainingConfig
{
    /// <summary>A transcoder subtracts no bias: b_dec belongs to the output.</summary>
    public TopKTranscoderTrainingConfig() => ApplyBDecToInput = false;

    /// <inheritdoc/>
    public override string Architecture => "topk_transcoder";

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
    public override SaeConfig ToInference() => Shared(new TopKTranscoderConfig { DOut = DOut, K = K, RescaleActsByDecoderNorm = RescaleActsByDecoderNorm });
}

/// <summary>Settings of a TopK skip transcoder in training.</summary>
public sealed record TopKSkipTranscoderTrainingConfig : TopKTranscoderTrainingConfig
{
    /// <inheritdoc/>
    public override string Architecture => "topk_skip_transcoder";

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters => [.. base.Parameters, Transcoder.Skip(this)];

    /// <inheritdoc/>
    public override SaeConfig ToInference() => Shared(new TopKSkipTranscoderConfig { DOut = DOut, K = K, RescaleActsByDecoderNorm = RescaleActsByDecoderNorm });
}

/// <summary>
/// Transcoder that keeps the k largest pre-activations a row, as <see cref="TopKSae"/> does. SAELens has none, so it
/// cannot read what is saved. Paulo et al. 2025, arXiv:2501.18823.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("topk_transcoder")]
public sealed class TopKTranscoderSae(TopKTranscoderConfig config, Device device) : TopKSae(config, device);

/// <summary>TopK transcoder with a linear part, as in <see cref="SkipTranscoderSae"/>.</summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("topk_skip_transcoder")]
public sealed class TopKSkipTranscoderSae(TopKSkipTranscoderConfig config, Device device) : TopKSae(config, device);

/// <summary>TopK transcoder in training: a TopK SAE whose losses are taken against the target, d_out in place of d_in.</summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("topk_transcoder")]
public sealed class TopKTranscoderTrainingSae(TopKTranscoderTrainingConfig config, Device device) : TopKTrainingSae(config, device);

/// <summary>TopK skip transcoder in training. W_skip begins at zero.</summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("topk_skip_transcoder")]
public sealed class TopKSkipTranscoderTrainingSae(TopKSkipTranscoderTrainingConfig config, Device device) : TopKTrainingSae(config, device);
