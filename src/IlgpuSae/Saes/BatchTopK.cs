using System.ComponentModel;
using System.Text.Json.Serialization;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>Settings of a BatchTopK SAE in training.</summary>
public record BatchTopKTrainingConfig : TrainingSaeConfig
{
    /// <inheritdoc/>
    public override string Architecture => "batchtopk";

    /// <summary>Features a row on average; need not be whole.</summary>
    [JsonPropertyName("k")]
    [Description("features a row; on average over the batch, and not necessarily whole, with batchtopk and matryoshka_batchtopk")]
    public double K { get; init; } = 100;

    /// <summary>Kept for SAELens: activations are always sparse here.</summary>
    [Browsable(false)]
    public bool UseSparseActivations { get; init; }

    /// <summary>Weight of the loss that revives dead features.</summary>
    [Description("weight of the loss that revives dead features")]
    public double AuxLossCoefficient { get; init; } = 1.0;

    /// <summary>Whether features compete and are reported as activation times norm of their decoder row.</summary>
    [Description("compare features by activation times decoder norm")]
    public bool RescaleActsByDecoderNorm { get; init; } = true;

    /// <summary>Share of each step's smallest kept activation in the threshold that the saved SAE uses.</summary>
    [Description("share of each step in the moving average that becomes the saved SAE's threshold")]
    public double TopkThresholdLr { get; init; } = 0.01;

    /// <inheritdoc/>
    public override SaeConfig ToInference() => Shared(new JumpReLUConfig());

    /// <inheritdoc/>
    public override void Validate()
    {
        base.Validate();
        SettingChecks.Positive("k", K);
        if (K > DSae) throw new InvalidInputException($"k: {K} features a row, but there are only d_sae = {DSae}; lower k or raise d_sae");
        if (!(TopkThresholdLr > 0 && TopkThresholdLr <= 1)) throw new InvalidInputException($"topk_threshold_lr: {TopkThresholdLr} is not between 0 and 1");
        TopKTrainingConfig.CheckAuxiliaryLoss(this, AuxLossCoefficient);
    }
}

/// <summary>
/// BatchTopK SAE in training: of ReLU(h) of a whole batch of n rows the floor(k n) largest are kept, wherever they are (ties: the
/// lower row, then the lower feature). With <c>rescale_acts_by_decoder_norm</c> h is multiplied by the decoder norms before, and f
/// divided by them in decoding. Losses are TopK's. A moving average of the smallest kept activation,
/// t = (1 - lr) t + lr min f, becomes the threshold of the JumpReLU SAE that training yields; folding an activation scale s
/// into the weights divides it by s where activations are in the decoder's units. Bussmann et al. 2024, arXiv:2412.06410.
/// </summary>
[SaeArchitecture("batchtopk")]
public class BatchTopKTrainingSae : TrainingSae
{
    private const string ThresholdName = "topk_threshold";
    private double _threshold;

    /// <summary>Creates an SAE whose parameters are zero.</summary>
    /// <param name="config">Settings.</param>
    /// <param name="device">Where the parameters live.</param>
    public BatchTopKTrainingSae(BatchTopKTrainingConfig config, Device device) : base(config, device)
    {
    }

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, double> Metrics => new Dictionary<string, double> { [ThresholdName] = _threshold };

    private protected BatchTopKTrainingConfig Own => (BatchTopKTrainingConfig)Config;

    /// <inheritdoc/>
    public override void Initialize(ulong seed)
    {
        base.Initialize(seed);
        _threshold = 0;
    }

    /// <inheritdoc/>
    public override void FoldDecoderNorm()
    {
        if (!Own.RescaleActsByDecoderNorm) throw TopK.CannotFold(Config, Own.K);
        base.FoldDecoderNorm();
    }

    /// <inheritdoc/>
    public override void FoldActivationScale(double factor)
    {
        base.FoldActivationScale(factor);
        // Pre-activations stay as they are; multiplied by decoder norms, which shrink by s, they do not.
        if (Own.RescaleActsByDecoderNorm) _threshold /= factor;
    }

    /// <inheritdoc/>
    public override void ScaleOutput(double factor)
    {
        base.ScaleOutput(factor);
        if (Own.RescaleActsByDecoderNorm) _threshold *= factor;
    }

    /// <inheritdoc/>
    public override void AfterStep(TensorScope scope, TrainingPass pass)
    {
        var least = SmallestPositive.Of(scope, pass.Features.Values).Scalar();
        if (float.IsFinite(least)) _threshold = ((1 - Own.TopkThresholdLr) * _threshold) + (Own.TopkThresholdLr * least);
    }

    /// <inheritdoc/>
    public override Sae ToInference()
    {
        var sae = CopyParametersTo(SaeRegistry.Default.Create(Config.ToInference(), Device));
        if (Own.RescaleActsByDecoderNorm) sae.FoldDecoderNorm();
        var thresholds = new float[Config.DSae];
        Array.Fill(thresholds, (float)_threshold);
        sae.Parameters["threshold"].CopyFrom<float>(thresholds);
        return sae;
    }

    /// <inheritdoc/>
    public override IReadOnlyList<NamedValues> ExportState() =>
        [.. base.ExportState(), new NamedValues(ThresholdName, [], [(float)_threshold]) { Doubles = [_threshold] }];

    /// <inheritdoc/>
    public override void ImportState(IReadOnlyList<NamedValues> state, string where)
    {
        var threshold = state.FirstOrDefault(s => s.Name == ThresholdName);
        if (threshold is not null && threshold.Shape.Count != 1)
            throw new InvalidInputException($"{where}: tensor \"{ThresholdName}\" is {threshold.Shape}, not one number");
        base.ImportState([.. state.Where(s => s != threshold)], where);
        // Weights from elsewhere have none: it starts at 0, as in a new SAE.
        _threshold = threshold is null ? 0 : threshold.Doubles?[0] ?? threshold.Values[0];
    }

    /// <inheritdoc/>
    protected override SparseFeatures Select(TensorScope scope, Tensor rows) =>
        EncodeSelect.BatchTopK(scope, rows, WEnc, Parameters["b_enc"], Count(rows), Own.RescaleActsByDecoderNorm ? TopK.Norms(scope, this) : null, Center);

    /// <inheritdoc/>
    protected override SparseFeatures SelectFrom(TensorScope scope, Tensor pre, Tensor rows)
    {
        var scaled = Own.RescaleActsByDecoderNorm ? MultiplyRow.Forward(scope, pre, TopK.Norms(scope, this)) : pre;
        return LargestOfBatch.Of(scope, SparseFromDense.Of(scope, Activate.Forward(scope, scaled, ActivationKind.Relu)), Count(rows));
    }

    /// <inheritdoc/>
    protected override Tensor DecodeRows(TensorScope scope, SparseFeatures features) =>
        base.DecodeRows(scope, TopK.Unscaled(scope, this, features, Own.RescaleActsByDecoderNorm));

    /// <inheritdoc/>
    protected override IEnumerable<(string Name, Tensor Value)> Losses(TensorScope scope, TrainingContext context)
    {
        yield return ("auxiliary_reconstruction_loss", AuxiliaryLoss(scope, context));
    }

    /// <summary>TopK's loss for dead features.</summary>
    private protected virtual Tensor AuxiliaryLoss(TensorScope scope, TrainingContext context) =>
        TopK.AuxiliaryLoss(scope, this, context, context.Step.Dead, context.Reconstruction, Own.AuxLossCoefficient, Own.RescaleActsByDecoderNorm);

    private long Count(Tensor rows) => (long)Math.Floor(Own.K * rows.Shape[0]);
}
