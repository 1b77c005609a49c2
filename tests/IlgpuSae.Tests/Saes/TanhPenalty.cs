using System.ComponentModel;
using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Tests.Saes;

/// <summary>Settings of an SAE whose sparsity penalty saturates: large activations cost no more than medium ones.</summary>
public sealed record TanhTrainingConfig : TrainingSaeConfig
{
    /// <inheritdoc/>
    public override string Architecture => "tanh";

    /// <summary>Weight of the penalty.</summary>
    [Description("weight of the sparsity penalty")]
    public double L1Coefficient { get; init; } = 1;

    /// <summary>c of tanh(c f).</summary>
    [Description("activations above its inverse cost about the same")]
    public double TanhScale { get; init; } = 4;

    /// <inheritdoc/>
    public override SaeConfig ToInference() => Shared(new StandardConfig());
}

/// <summary>
/// f = ReLU((x - b_dec) W_enc + b_enc); l1_loss = l1 * mean over rows of sum tanh(c f n), n the decoder norms, which
/// are constants of the penalty. What training yields is a standard SAE.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("tanh")]
public sealed class TanhTrainingSae(TanhTrainingConfig config, Device device) : TrainingSae(config, device)
{
    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, LossCoefficient> Coefficients { get; } =
        new Dictionary<string, LossCoefficient> { ["l1"] = new(config.L1Coefficient, WarmUpSteps: 0) };

    /// <inheritdoc/>
    public override Sae ToInference() => CopyParametersTo(new StandardSae((StandardConfig)Config.ToInference(), Device));

    /// <inheritdoc/>
    protected override SparseFeatures Select(TensorScope scope, Tensor rows) =>
        EncodeSelect.Relu(scope, rows, WEnc, Parameters["b_enc"], Center);

    /// <inheritdoc/>
    protected override SparseFeatures SelectFrom(TensorScope scope, Tensor pre, Tensor rows) =>
        SparseFromDense.Of(scope, Activate.Forward(scope, pre, ActivationKind.Relu));

    /// <inheritdoc/>
    protected override IEnumerable<(string Name, Tensor Value)> Losses(TensorScope scope, TrainingContext context)
    {
        var scaled = SparseScale.Columns(scope, context.Features, RowNorm.L2(scope, WDec));
        var bent = Activate.Forward(scope, Scale.By(scope, scaled.Values, (float)config.TanhScale), ActivationKind.Tanh);
        var penalty = SparsePenalty.Lp(scope, scaled.With(bent), norms: null, p: 1);
        yield return ("l1_loss", Scale.By(scope, penalty, (float)context.Step.Coefficients["l1"]));
    }
}
