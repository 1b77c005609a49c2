using System.ComponentModel;
using System.Text.Json.Serialization;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>Settings of a TopK SAE.</summary>
public record TopKConfig : SaeConfig
{
    /// <inheritdoc/>
    public override string Architecture => "topk";

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
        CheckK(K, DSae);
    }

    internal static void CheckK(int k, int dSae)
    {
        if (k < 1) throw new InvalidInputException($"k: {k} features a row; it must be at least 1");
        if (k > dSae) throw new InvalidInputException($"k: {k} features a row, but there are only d_sae = {dSae}; lower k or raise d_sae");
    }
}

/// <summary>Settings of a TopK SAE in training.</summary>
public record TopKTrainingConfig : TrainingSaeConfig
{
    /// <inheritdoc/>
    public override string Architecture => "topk";

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
    protected override bool TakesNoise => true;

    /// <inheritdoc/>
    public override SaeConfig ToInference() => Shared(new TopKConfig { K = K, RescaleActsByDecoderNorm = RescaleActsByDecoderNorm });

    /// <inheritdoc/>
    public override void Validate()
    {
        base.Validate();
        TopKConfig.CheckK(K, DSae);
        CheckAuxiliaryLoss(this, AuxLossCoefficient);
    }

    /// <summary>
    /// The auxiliary loss compares a reconstruction with a residual in the units of the decoder, which these modes change
    /// from row to row. A transcoder's output is not normalised.
    /// </summary>
    internal static void CheckAuxiliaryLoss(TrainingSaeConfig config, double coefficient)
    {
        if (!(coefficient >= 0 && double.IsFinite(coefficient)))
            throw new InvalidInputException($"aux_loss_coefficient: {coefficient} is not a number of at least 0");
        if (!config.IsTranscoder && config.NormalizeActivations is NormalizeActivations.ConstantNormRescale or NormalizeActivations.LayerNorm)
        {
            throw new InvalidInputException(
                $"normalize_activations: {ConfigJson.Name(config.NormalizeActivations)} cannot be trained with {config.Architecture}'s auxiliary loss; use none or expected_average_only_in");
        }
    }
}

/// <summary>
/// TopK SAE: of h = (x - b_dec) W_enc + b_enc the k largest a row are kept (ties: the lower index), then ReLU. With
/// <c>rescale_acts_by_decoder_norm</c> h is multiplied by the decoder norms before, and f divided by them in decoding.
/// Gao et al. 2024, arXiv:2406.04093.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("topk")]
public class TopKSae(TopKConfig config, Device device) : Sae(config, device)
{
    private bool Rescale => ((TopKConfig)Config).RescaleActsByDecoderNorm;

    /// <inheritdoc/>
    public override void FoldDecoderNorm()
    {
        if (!Rescale) throw TopK.CannotFold(Config, ((TopKConfig)Config).K);
        base.FoldDecoderNorm();
    }

    /// <inheritdoc/>
    protected override SparseFeatures Select(TensorScope scope, Tensor rows) =>
        TopK.Select(scope, this, rows, ((TopKConfig)Config).K, Rescale);

    /// <inheritdoc/>
    protected override SparseFeatures SelectFrom(TensorScope scope, Tensor pre, Tensor rows) =>
        TopK.SelectFrom(scope, this, pre, ((TopKConfig)Config).K, Rescale);

    /// <inheritdoc/>
    protected override Tensor DecodeRows(TensorScope scope, SparseFeatures features) =>
        base.DecodeRows(scope, TopK.Unscaled(scope, this, features, Rescale));
}

/// <summary>
/// TopK SAE in training. For the N features that are dead, auxiliary_reconstruction_loss = aux_loss_coefficient *
/// min(N / (d_in div 2), 1) * mean over rows of ||a W_dec - (x - xhat)||^2, where a holds the min(d_in div 2, N) largest
/// pre-activations among the dead (negative ones included) and the residual x - xhat is a constant. As in SAELens from
/// 6.36.2 on: without b_dec.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("topk")]
public class TopKTrainingSae(TopKTrainingConfig config, Device device) : TrainingSae(config, device)
{
    private TopKTrainingConfig Own => (TopKTrainingConfig)Config;

    /// <inheritdoc/>
    public override void FoldDecoderNorm()
    {
        if (!Own.RescaleActsByDecoderNorm) throw TopK.CannotFold(Config, Own.K);
        base.FoldDecoderNorm();
    }

    /// <inheritdoc/>
    public override Sae ToInference()
    {
        var sae = CopyParametersTo(SaeRegistry.Default.Create(Config.ToInference(), Device));
        if (Own.RescaleActsByDecoderNorm) sae.FoldDecoderNorm();
        return sae;
    }

    /// <inheritdoc/>
    protected override SparseFeatures Select(TensorScope scope, Tensor rows) =>
        TopK.Select(scope, this, rows, Own.K, Own.RescaleActsByDecoderNorm);

    /// <inheritdoc/>
    protected override SparseFeatures SelectFrom(TensorScope scope, Tensor pre, Tensor rows) =>
        TopK.SelectFrom(scope, this, pre, Own.K, Own.RescaleActsByDecoderNorm);

    /// <inheritdoc/>
    protected override Tensor DecodeRows(TensorScope scope, SparseFeatures features) =>
        base.DecodeRows(scope, TopK.Unscaled(scope, this, features, Own.RescaleActsByDecoderNorm));

    /// <inheritdoc/>
    protected override IEnumerable<(string Name, Tensor Value)> Losses(TensorScope scope, TrainingContext context)
    {
        yield return ("auxiliary_reconstruction_loss",
            TopK.AuxiliaryLoss(scope, this, context, context.Step.Dead, context.Reconstruction, Own.AuxLossCoefficient, Own.RescaleActsByDecoderNorm));
    }
}

/// <summary>What the inference and the training form, and the architectures that select otherwise, share.</summary>
internal static class TopK
{
    internal static SparseFeatures Select(TensorScope scope, Sae sae, Tensor rows, int k, bool rescale) =>
        EncodeSelect.TopK(scope, rows, sae.WEnc, sae.Parameters["b_enc"], k, rescale ? Norms(scope, sae) : null, sae.Center);

    internal static SparseFeatures SelectFrom(TensorScope scope, Sae sae, Tensor pre, int k, bool rescale) =>
        TopKSelect.Rows(scope, rescale ? MultiplyRow.Forward(scope, pre, Norms(scope, sae)) : pre, k, relu: true);

    /// <summary>Activations in the units of W_dec: divided by the norms that selection multiplied them by.</summary>
    internal static SparseFeatures Unscaled(TensorScope scope, Sae sae, SparseFeatures features, bool rescale) =>
        rescale ? SparseScale.Columns(scope, features, Norms(scope, sae), divide: true) : features;

    /// <summary>
    /// coefficient * min(N / (d_out div 2), 1) * mean over rows of ||a W_dec - (target - reconstruction)||^2 over N dead features;
    /// of an SAE d_out is d_in and the target x.
    /// </summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="sae">The SAE.</param>
    /// <param name="context">The forward pass.</param>
    /// <param name="dead">The dead features that may help, ascending.</param>
    /// <param name="reconstruction">F32 [n, d_out]: what they help; a constant.</param>
    /// <param name="coefficient">Weight.</param>
    /// <param name="rescale">Whether they compete by pre-activation times decoder norm.</param>
    /// <param name="magnitudes">Whether they compete by magnitude.</param>
    /// <returns>F32 [].</returns>
    internal static Tensor AuxiliaryLoss(
        TensorScope scope, Sae sae, TrainingContext context, ReadOnlyMemory<int> dead, Tensor reconstruction, double coefficient, bool rescale,
        bool magnitudes = false)
    {
        if (dead.Length == 0 || coefficient == 0) return scope.Zeros([]);
        var half = Math.Max(1, sae.Config.OutputWidth / 2);
        var share = Math.Min((double)dead.Length / half, 1);
        var ids = scope.From<int>(dead.Span, [dead.Length]);
        var bias = sae.Parameters["b_enc"];
        var deadBias = GatherRows.Forward(scope, Reshape.As(scope, bias, [(int)bias.Count, 1]), ids);
        var pre = Gemm.Multiply(scope, sae.Centred(scope, context.Rows), GatherRows.Forward(scope, sae.WEnc, ids),
            Reshape.As(scope, deadBias, [dead.Length]), transposeB: true);
        if (sae.Config is TrainingSaeConfig training) pre = PreActivationNoise.AddTo(scope, training, context.Step, pre, dead.Span);
        var decoder = GatherRows.Forward(scope, sae.WDec, ids);
        Tensor? norms = null;
        if (rescale)
        {
            using (new NoGradient(scope)) norms = RowNorm.L2(scope, decoder);
            pre = MultiplyRow.Forward(scope, pre, norms);
        }

        var k = Math.Min(half, dead.Length);
        var chosen = magnitudes ? TopKSelect.RowsByMagnitude(scope, pre, k) : TopKSelect.Rows(scope, pre, k, relu: false);
        if (norms is not null) chosen = SparseScale.Columns(scope, chosen, norms, divide: true);
        Tensor residual;
        using (new NoGradient(scope)) residual = Sae.Residual(scope, context.Target, reconstruction);
        var error = SquaredError.MeanOfRowSums(scope, SparseDecode.Forward(scope, chosen, decoder), residual);
        return Scale.By(scope, error, (float)(coefficient * share));
    }

    internal static InvalidInputException CannotFold(SaeConfig config, double k) => new(
        $"fold: architecture {config.Architecture} without rescale_acts_by_decoder_norm compares raw pre-activations, so scaling by decoder norms would change which {k} features win");

    /// <summary>
    /// Decoder norms as constants: through selection and decoding they cancel, so their gradient is zero.
    /// </summary>
    internal static Tensor Norms(TensorScope scope, Sae sae)
    {
        using (new NoGradient(scope)) return RowNorm.L2(scope, sae.WDec);
    }
}
