using System.ComponentModel;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>Settings of a standard SAE: f = ReLU(x W_enc + b_enc).</summary>
public record StandardConfig : SaeConfig
{
    /// <inheritdoc/>
    public override string Architecture => "standard";
}

/// <summary>Settings of a standard SAE in training: mse + l1_coefficient * ||f . norms||_p.</summary>
public record StandardTrainingConfig : TrainingSaeConfig
{
    /// <inheritdoc/>
    public override string Architecture => "standard";

    /// <summary>Weight of the sparsity penalty.</summary>
    [Description("weight of the sparsity penalty")]
    public double L1Coefficient { get; init; } = 1.0;

    /// <summary>p of the penalty's norm over features; 1 is the usual sum.</summary>
    [Description("p of the sparsity penalty's norm over features")]
    public double LpNorm { get; init; } = 1.0;

    /// <summary>Steps over which the weight grows from 0.</summary>
    [Description("steps over which the sparsity penalty's weight grows from 0")]
    public int L1WarmUpSteps { get; init; }

    /// <summary>Whether the penalty multiplies each activation by the norm of its decoder row.</summary>
    [LeftOutByDefault]
    [Description("multiply activations by decoder norms in the sparsity penalty")]
    public bool ScaleSparsityPenaltyByDecoderNorm { get; init; } = true;

    /// <summary>Whether dead features are revived by ghost gradients.</summary>
    [LeftOutByDefault]
    [Description("revive dead features by ghost gradients")]
    public bool UseGhostGrads { get; init; }

    /// <inheritdoc/>
    protected override bool TakesNoise => true;

    /// <inheritdoc/>
    public override SaeConfig ToInference() => Shared(new StandardConfig());

    /// <inheritdoc/>
    public override void Validate()
    {
        base.Validate();
        StandardTrainingSae.Check(L1Coefficient, LpNorm, L1WarmUpSteps);
        if (UseGhostGrads && !IsTranscoder && NormalizeActivations is NormalizeActivations.ConstantNormRescale or NormalizeActivations.LayerNorm)
        {
            throw new InvalidInputException(
                $"use_ghost_grads: with normalize_activations = {ConfigJson.Name(NormalizeActivations)} the residual is in other units than the decoder; use none or expected_average_only_in");
        }
    }
}

/// <summary>Standard SAE: f = ReLU((x - b_dec) W_enc + b_enc), reconstruction f W_dec + b_dec.</summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("standard")]
public class StandardSae(StandardConfig config, Device device) : Sae(config, device)
{
    /// <inheritdoc/>
    protected override SparseFeatures Select(TensorScope scope, Tensor rows) => Relu(scope, this, rows);

    /// <inheritdoc/>
    protected override SparseFeatures SelectFrom(TensorScope scope, Tensor pre, Tensor rows) => Relu(scope, pre);

    internal static SparseFeatures Relu(TensorScope scope, Sae sae, Tensor rows) =>
        EncodeSelect.Relu(scope, rows, sae.WEnc, sae.Parameters["b_enc"], sae.Center);

    internal static SparseFeatures Relu(TensorScope scope, Tensor pre) =>
        SparseFromDense.Of(scope, Activate.Forward(scope, pre, ActivationKind.Relu));
}

/// <summary>
/// Standard SAE in training. l1_loss = l1 * mean over rows of ||f . n||_p with n the norms of the decoder's rows,
/// through which it also reaches W_dec, or 1 without <c>scale_sparsity_penalty_by_decoder_norm</c>. With
/// <c>use_ghost_grads</c> ghost_grad_loss is added.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("standard")]
public class StandardTrainingSae(StandardTrainingConfig config, Device device) : TrainingSae(config, device)
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
        var own = (StandardTrainingConfig)Config;
        yield return L1(scope, own.ScaleSparsityPenaltyByDecoderNorm ? WDec : null, context, own.LpNorm);
        if (own.UseGhostGrads) yield return ("ghost_grad_loss", GhostGradients.Loss(scope, this, context));
    }

    /// <summary>l1 * mean over rows of ||f . n||_p, n the norms of the decoder's rows; without a decoder n is 1.</summary>
    internal static (string Name, Tensor Value) L1(TensorScope scope, Tensor? decoder, TrainingContext context, double p)
    {
        var penalty = SparsePenalty.Lp(scope, context.Features, decoder is null ? null : RowNorm.L2(scope, decoder), (float)p);
        return ("l1_loss", Scale.By(scope, penalty, (float)context.Step.Coefficients["l1"]));
    }

    /// <summary>Refuses coefficients, norms and warm-ups of the penalty that cannot be.</summary>
    internal static void Check(double coefficient, double p, int warmUpSteps)
    {
        if (!(coefficient >= 0 && double.IsFinite(coefficient)))
            throw new InvalidInputException($"l1_coefficient: {coefficient} is not a number of at least 0");
        if (!(p > 0 && double.IsFinite(p))) throw new InvalidInputException($"lp_norm: {p} is not a positive number");
        if (warmUpSteps < 0) throw new InvalidInputException($"l1_warm_up_steps: {warmUpSteps} is negative");
    }
}
