using System.ComponentModel;
using System.Text.Json.Serialization;

namespace IlgpuSae.Saes;

/// <summary>How the decoder's first weights are drawn.</summary>
public enum DecoderInitMethod
{
    /// <summary>Uniform in +-sqrt(6 / d_in): Kaiming's, as SAELens has it.</summary>
    KaimingUniform,

    /// <summary>Standard normal: every direction equally likely. SAELens' "heuristic" draw before version 6.</summary>
    Normal,

    /// <summary>Orthonormal columns (rows where d_sae is below d_in): SAELens' <c>decoder_orthogonal_init</c>.</summary>
    Orthogonal,

    /// <summary>
    /// The first rows that are trained on, their mean taken out: features begin where the data is. Kaiming's where nothing
    /// is trained, for features beyond the number of rows, and where <see cref="TrainingSaeConfig.DecoderInitNorm"/> is null.
    /// </summary>
    Data,
}

/// <summary>What mse_loss is divided by.</summary>
public enum MseLossNormalization
{
    /// <summary>Each row's squared error by the row's distance from the batch's mean, + 1e-6.</summary>
    DenseBatch,
}

/// <content>Options of training that every architecture shares; those of SAELens before version 6 among them.</content>
public abstract partial record TrainingSaeConfig
{
    /// <summary>How W_dec is drawn, before <see cref="DecoderInitNorm"/> scales its rows.</summary>
    [JsonPropertyOrder(-11)]
    [LeftOutByDefault]
    [Description("start of W_dec: drawn as kaiming_uniform, normal or orthogonal, or data: the first rows trained on, centred")]
    public DecoderInitMethod DecoderInitMethod { get; init; }

    /// <summary>Whether W_enc starts as the rows of W_dec; false: a draw of its own, uniform in +-sqrt(6 / d_sae).</summary>
    [JsonPropertyOrder(-10)]
    [LeftOutByDefault]
    [Description("start W_enc as W_dec's transpose; false: its own uniform draw")]
    public bool InitEncoderAsDecoderTranspose { get; init; } = true;

    /// <summary>Whether decoder rows keep norm 1, the gradient along them being taken out before every step.</summary>
    [JsonPropertyOrder(-9)]
    [LeftOutByDefault]
    [Description("keep decoder rows at norm 1; gradients along them are taken out")]
    public bool NormalizeSaeDecoder { get; init; }

    /// <summary>Standard deviation of normal noise on the pre-activations, in training alone; 0: none.</summary>
    [JsonPropertyOrder(-8)]
    [LeftOutByDefault]
    [Description("standard deviation of noise on pre-activations in training; costs a dense [batch, d_sae]")]
    public double NoiseScale { get; init; }

    /// <summary>What mse_loss is divided by; null: nothing.</summary>
    [JsonPropertyOrder(-7)]
    [LeftOutByDefault]
    [Description("divide mse_loss: dense_batch, or none")]
    public MseLossNormalization? MseLossNormalization { get; init; }

    /// <summary>Whether the architecture's losses are right with noise on its pre-activations.</summary>
    [JsonIgnore]
    protected virtual bool TakesNoise => false;

    private void ValidateOptions()
    {
        if (!(NoiseScale >= 0 && double.IsFinite(NoiseScale)))
            throw new InvalidInputException($"noise_scale: {NoiseScale} is not a number of at least 0");
        if (NoiseScale > 0 && !TakesNoise)
            throw new InvalidInputException($"noise_scale: architecture {Architecture} has no noise; use 0");
        if (DecoderInitMethod == DecoderInitMethod.Orthogonal && DecoderInitNorm is not null)
            throw new InvalidInputException($"decoder_init_norm: {DecoderInitNorm} would undo decoder_init_method = orthogonal; use null");
    }
}
