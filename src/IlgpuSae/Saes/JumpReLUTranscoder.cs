using System.ComponentModel;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>Settings of a JumpReLU transcoder.</summary>
public record JumpReLUTranscoderConfig : JumpReLUConfig
{
    /// <summary>A transcoder subtracts no bias: b_dec belongs to the output.</summary>
    public JumpReLUTranscoderConfig() => ApplyBDecToInput = false;

    /// <inheritdoc/>
    public override string Architecture => "jumprelu_transcoder";

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

/// <summary>Settings of a JumpReLU transcoder whose output also has a linear part of the input.</summary>
public sealed record JumpReLUSkipTranscoderConfig : JumpReLUTranscoderConfig
{
    /// <inheritdoc/>
    public override string Architecture => "jumprelu_skip_transcoder";

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters => [.. base.Parameters, Transcoder.Skip(this)];
}

/// <summary>Settings of a JumpReLU transcoder in training.</summary>
public record JumpReLUTranscoderTrainingConfig : JumpReLUTrainingConfig
{
    /// <summary>A transcoder subtracts no bias: b_dec belongs to the output.</summary>
    public JumpReLUTranscoderTrainingConfig() => ApplyBDecToInput = false;

    /// <inheritdoc/>
    public override string Architecture => "jumprelu_transcoder";

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

/// <summary>Settings of a JumpReLU skip transcoder in training.</summary>
public sealed record JumpReLUSkipTranscoderTrainingConfig : JumpReLUTranscoderTrainingConfig
{
    /// <inheritdoc/>
    public override string Architecture => "jumprelu_skip_transcoder";

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters => [.. base.Parameters, Transcoder.Skip(this)];

    /// <inheritdoc/>
    public override SaeConfig ToInference() => Shared(new JumpReLUSkipTranscoderConfig { DOut = DOut });
}

/// <summary>Transcoder with a threshold a feature, as in <see cref="JumpReLUSae"/>: what Gemma Scope's transcoders are.</summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("jumprelu_transcoder")]
public sealed class JumpReLUTranscoderSae(JumpReLUTranscoderConfig config, Device device) : JumpReLUSae(config, device);

/// <summary>
/// JumpReLU transcoder with a linear part, as in <see cref="SkipTranscoderSae"/>: Gemma Scope 2's "affine" transcoders. SAELens has it
/// in releases after 6.18.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("jumprelu_skip_transcoder")]
public sealed class JumpReLUSkipTranscoderSae(JumpReLUSkipTranscoderConfig config, Device device) : JumpReLUSae(config, device);

/// <summary>JumpReLU transcoder in training: a JumpReLU SAE whose mse_loss is taken against the target.</summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("jumprelu_transcoder")]
public sealed class JumpReLUTranscoderTrainingSae(JumpReLUTranscoderTrainingConfig config, Device device) : JumpReLUTrainingSae(config, device);

/// <summary>JumpReLU skip transcoder in training. W_skip begins at zero.</summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("jumprelu_skip_transcoder")]
public sealed class JumpReLUSkipTranscoderTrainingSae(JumpReLUSkipTranscoderTrainingConfig config, Device device) : JumpReLUTrainingSae(config, device);
