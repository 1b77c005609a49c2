using System.ComponentModel;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>Settings of a transcoder: from d_in numbers of one hook to d_out numbers of another.</summary>
public record TranscoderConfig : StandardConfig
{
    /// <summary>A transcoder subtracts no bias: b_dec belongs to the output.</summary>
    public TranscoderConfig() => ApplyBDecToInput = false;

    /// <inheritdoc/>
    public override string Architecture => "transcoder";

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

/// <summary>Settings of a transcoder whose output also has a linear part of the input.</summary>
public sealed record SkipTranscoderConfig : TranscoderConfig
{
    /// <inheritdoc/>
    public override string Architecture => "skip_transcoder";

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters => [.. base.Parameters, Transcoder.Skip(this)];
}

/// <summary>Settings of a transcoder in training: mse + l1_coefficient * ||f . norms||_p.</summary>
public record TranscoderTrainingConfig : StandardTrainingConfig
{
    /// <summary>A transcoder subtracts no bias: b_dec belongs to the output.</summary>
    public TranscoderTrainingConfig() => ApplyBDecToInput = false;

    /// <inheritdoc/>
    public override string Architecture => "transcoder";

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
    public override SaeConfig ToInference() => Shared(new TranscoderConfig { DOut = DOut });
}

/// <summary>Settings of a skip transcoder in training.</summary>
public sealed record SkipTranscoderTrainingConfig : TranscoderTrainingConfig
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
public sealed class TranscoderSae(TranscoderConfig config, Device device) : StandardSae(config, device);

/// <summary>
/// Transcoder with a linear part: x W_skip^T is added to the output, x as given and not normalised. Decoding features
/// without the input's frame leaves it out. Paulo et al. 2025, arXiv:2501.18823.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("skip_transcoder")]
public sealed class SkipTranscoderSae(SkipTranscoderConfig config, Device device) : StandardSae(config, device);

/// <summary>Transcoder in training: a standard SAE whose mse_loss is taken against the target.</summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("transcoder")]
public sealed class TranscoderTrainingSae(TranscoderTrainingConfig config, Device device) : StandardTrainingSae(config, device);

/// <summary>Skip transcoder in training. W_skip begins at zero.</summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("skip_transcoder")]
public sealed class SkipTranscoderTrainingSae(SkipTranscoderTrainingConfig config, Device device) : StandardTrainingSae(config, device);

/// <summary>
/// What transcoders share. Each is an SAE's architecture whose settings have a width of the output of their own, and
/// W_skip if there is a linear part; <see cref="Sae"/> does the rest.
/// </summary>
internal static class Transcoder
{
    /// <summary>Description of d_out.</summary>
    internal const string Width = "width of a transcoder's output; follows hook_name_out if not given";

    /// <summary>d_out of a file that does not say it, as SAELens reads it.</summary>
    internal const int DefaultWidth = 768;

    /// <summary>The linear part's parameter.</summary>
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
