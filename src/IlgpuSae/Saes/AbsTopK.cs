using System.ComponentModel;
using System.Text.Json.Serialization;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>Settings of an AbsTopK SAE.</summary>
public sealed record AbsTopKConfig : SaeConfig
{
    /// <inheritdoc/>
    public override string Architecture => "abstopk";

    /// <summary>Largest number of features a row.</summary>
    [JsonPropertyName("k")]
    [Description("features a row")]
    public int K { get; init; } = 100;

    /// <summary>Whether features compete and are reported as activation times norm of their decoder row.</summary>
    [Description("compare features by activation times decoder norm")]
    public bool RescaleActsByDecoderNorm { get; init; }

    /// <inheritdoc/>
    public override void Validate()
    {
        base.Validate();
        TopKConfig.CheckK(K, DSae);
    }
}

/// <summary>Settings of an AbsTopK SAE in training.</summary>
public sealed record AbsTopKTrainingConfig : TrainingSaeConfig
{
    /// <inheritdoc/>
    public override string Architecture => "abstopk";

    /// <summary>Largest number of features a row.</summary>
    [JsonPropertyName("k")]
    [Description("features a row")]
    public int K { get; init; } = 100;

    /// <summary>Kept for SAELens: activations are always sparse here.</summary>
    [Browsable(false)]
    public bool UseSparseActivations { get; init; }

    /// <summary>Weight of the loss that revives dead features.</summary>
    [Description("weight of the loss that revives dead features")]
    public double AuxLossCoefficient { get; init; } = 1.0;

    /// <summary>Whether features compete and are reported as activation times norm of their decoder row.</summary>
    [Description("compare features by activation times decoder norm")]
    public bool RescaleActsByDecoderNorm { get; init; } = true;

    /// <inheritdoc/>
    public override SaeConfig ToInference() => Shared(new AbsTopKConfig { K = K, RescaleActsByDecoderNorm = RescaleActsByDecoderNorm });

    /// <inheritdoc/>
    public override void Validate()
    {
        base.Validate();
        TopKConfig.CheckK(K, DSae);
        TopKTrainingConfig.CheckAuxiliaryLoss(this, AuxLossCoefficient);
    }
}

/// <summary>
/// AbsTopK SAE: of h = (x - b_dec) W_enc + b_enc the k of largest magnitude a row are kept with their signs (ties: the lower
/// index), so a feature stands for a direction and its opposite. Otherwise as TopK. arXiv:2510.00404.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("abstopk")]
public sealed class AbsTopKSae(AbsTopKConfig config, Device device) : Sae(config, device)
{
    private AbsTopKConfig Own => (AbsTopKConfig)Config;

    /// <inheritdoc/>
    public override void FoldDecoderNorm()
    {
        if (!Own.RescaleActsByDecoderNorm) throw TopK.CannotFold(Config, Own.K);
        base.FoldDecoderNorm();
    }

    /// <inheritdoc/>
    protected override SparseFeatures Select(TensorScope scope, Tensor rows) => AbsTopK.Select(scope, this, rows, Own.K, Own.RescaleActsByDecoderNorm);

    /// <inheritdoc/>
    protected override SparseFeatures SelectFrom(TensorScope scope, Tensor pre, Tensor rows) =>
        AbsTopK.SelectFrom(scope, this, pre, Own.K, Own.RescaleActsByDecoderNorm);

    /// <inheritdoc/>
    protected override Tensor DecodeRows(TensorScope scope, SparseFeatures features) =>
        base.DecodeRows(scope, TopK.Unscaled(scope, this, features, Own.RescaleActsByDecoderNorm));
}

/// <summary>AbsTopK SAE in training: TopK's losses, dead features competing by magnitude too.</summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("abstopk")]
public sealed class AbsTopKTrainingSae(AbsTopKTrainingConfig config, Device device) : TrainingSae(config, device)
{
    private AbsTopKTrainingConfig Own => (AbsTopKTrainingConfig)Config;

    /// <inheritdoc/>
    public override void FoldDecoderNorm()
    {
        if (!Own.RescaleActsByDecoderNorm) throw TopK.CannotFold(Config, Own.K);
        base.FoldDecoderNorm();
    }

    /// <inheritdoc/>
    public override Sae ToInference()
    {
        var sae = CopyParametersTo(new AbsTopKSae((AbsTopKConfig)Config.ToInference(), Device));
        if (Own.RescaleActsByDecoderNorm) sae.FoldDecoderNorm();
        return sae;
    }

    /// <inheritdoc/>
    protected override SparseFeatures Select(TensorScope scope, Tensor rows) => AbsTopK.Select(scope, this, rows, Own.K, Own.RescaleActsByDecoderNorm);

    /// <inheritdoc/>
    protected override SparseFeatures SelectFrom(TensorScope scope, Tensor pre, Tensor rows) =>
        AbsTopK.SelectFrom(scope, this, pre, Own.K, Own.RescaleActsByDecoderNorm);

    /// <inheritdoc/>
    protected override Tensor DecodeRows(TensorScope scope, SparseFeatures features) =>
        base.DecodeRows(scope, TopK.Unscaled(scope, this, features, Own.RescaleActsByDecoderNorm));

    /// <inheritdoc/>
    protected override IEnumerable<(string Name, Tensor Value)> Losses(TensorScope scope, TrainingContext context)
    {
        yield return ("auxiliary_reconstruction_loss", TopK.AuxiliaryLoss(
            scope, this, context, context.Step.Dead, context.Reconstruction, Own.AuxLossCoefficient, Own.RescaleActsByDecoderNorm, magnitudes: true));
    }
}

/// <summary>What the inference and the training form share.</summary>
internal static class AbsTopK
{
    internal static SparseFeatures Select(TensorScope scope, Sae sae, Tensor rows, int k, bool rescale) =>
        EncodeSelect.AbsTopK(scope, rows, sae.WEnc, sae.Parameters["b_enc"], k, rescale ? TopK.Norms(scope, sae) : null, sae.Center);

    internal static SparseFeatures SelectFrom(TensorScope scope, Sae sae, Tensor pre, int k, bool rescale) =>
        TopKSelect.RowsByMagnitude(scope, rescale ? MultiplyRow.Forward(scope, pre, TopK.Norms(scope, sae)) : pre, k);
}
