using System.ComponentModel;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>Settings of a gated SAE: f = 1[pi > 0] ReLU(magnitude).</summary>
public sealed record GatedConfig : SaeConfig
{
    /// <inheritdoc/>
    public override string Architecture => "gated";

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters => Gated.Parameters(this);
}

/// <summary>Settings of a gated SAE in training.</summary>
public sealed record GatedTrainingConfig : TrainingSaeConfig
{
    /// <inheritdoc/>
    public override string Architecture => "gated";

    /// <summary>Weight of the sparsity penalty on the gate.</summary>
    [Description("weight of the sparsity penalty")]
    public double L1Coefficient { get; init; } = 1.0;

    /// <summary>Steps over which the weight grows from 0.</summary>
    [Description("steps over which the sparsity penalty's weight grows from 0")]
    public int L1WarmUpSteps { get; init; }

    /// <summary>
    /// Whether the decoder is a constant of the penalty and of the gate's reconstruction, as in the paper; SAELens lets the
    /// gradient into it.
    /// </summary>
    [LeftOutByDefault]
    [Description("keep the decoder constant in the gate's losses, as in the paper; SAELens trains it through them too")]
    public bool DetachGateDecoder { get; init; }

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters => Gated.Parameters(this);

    /// <inheritdoc/>
    public override SaeConfig ToInference() => Shared(new GatedConfig());

    /// <inheritdoc/>
    public override void Validate()
    {
        base.Validate();
        SettingChecks.Coefficient("l1_coefficient", L1Coefficient);
        SettingChecks.Steps("l1_warm_up_steps", L1WarmUpSteps);
    }
}

/// <summary>
/// Gated SAE: with q = (x - b_dec) W_enc the gate is pi = q + b_gate, the magnitude q exp(r_mag) + b_mag, and
/// f = 1[pi > 0] ReLU(magnitude). Both come from one product. Rajamanoharan et al. 2024, arXiv:2404.16014.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("gated")]
public sealed class GatedSae(GatedConfig config, Device device) : Sae(config, device)
{
    /// <inheritdoc/>
    protected override IReadOnlyList<string> PreActivationUnits => Gated.Units;

    /// <inheritdoc/>
    protected override SparseFeatures Select(TensorScope scope, Tensor rows) => Gated.Select(scope, this, rows);

    /// <inheritdoc/>
    protected override SparseFeatures SelectFrom(TensorScope scope, Tensor pre, Tensor rows) => Gated.SelectFrom(scope, this, pre, rows);

    /// <inheritdoc/>
    protected override Tensor PreActivations(TensorScope scope, Tensor rows) => Gated.Magnitudes(scope, this, rows);
}

/// <summary>
/// Gated SAE in training. With pi+ = ReLU(pi): l1_loss = l1 * mean over rows of sum pi+ n, n the decoder norms;
/// auxiliary_reconstruction_loss = mean over rows of ||decode(pi+) - x||^2. The gate learns through these two alone. Where inputs
/// are normalised, both see what the encoder sees, and the reconstruction is denormalised.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("gated")]
public sealed class GatedTrainingSae(GatedTrainingConfig config, Device device) : TrainingSae(config, device)
{
    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, LossCoefficient> Coefficients { get; } =
        new Dictionary<string, LossCoefficient> { ["l1"] = new(config.L1Coefficient, config.L1WarmUpSteps) };

    /// <inheritdoc/>
    protected override IReadOnlyList<string> PreActivationUnits => Gated.Units;

    /// <inheritdoc/>
    public override Sae ToInference() => CopyParametersTo(new GatedSae((GatedConfig)Config.ToInference(), Device));

    /// <inheritdoc/>
    protected override SparseFeatures Select(TensorScope scope, Tensor rows) => Gated.Select(scope, this, rows);

    /// <inheritdoc/>
    protected override SparseFeatures SelectFrom(TensorScope scope, Tensor pre, Tensor rows) => Gated.SelectFrom(scope, this, pre, rows);

    /// <inheritdoc/>
    protected override Tensor PreActivations(TensorScope scope, Tensor rows) => Gated.Magnitudes(scope, this, rows);

    /// <inheritdoc/>
    protected override SparseFeatures SelectInTraining(TensorScope scope, Tensor rows, out SparseFeatures? pre)
    {
        var q = Gated.Open(scope, this, rows);
        pre = SparseAffine.Columns(scope, q, null, Parameters["b_gate"]);
        return Gated.Magnitudes(scope, this, q);
    }

    /// <inheritdoc/>
    protected override IEnumerable<(string Name, Tensor Value)> Losses(TensorScope scope, TrainingContext context)
    {
        var gate = context.Pre!;
        var detached = ((GatedTrainingConfig)Config).DetachGateDecoder;
        // Another view of the same memory is not watched.
        Tensor Seen(Tensor parameter) => detached ? scope.Own(parameter.Reshape(parameter.Shape)) : parameter;
        Tensor decoder = Seen(WDec), bias = Seen(BDec);
        var penalty = SparsePenalty.Lp(scope, gate, RowNorm.L2(scope, decoder), p: 1);
        yield return ("l1_loss", Scale.By(scope, penalty, (float)context.Step.Coefficients["l1"]));
        var y = SparseDecode.Forward(scope, gate, decoder, bias);
        if (context.Frame.Scale is not null) y = RowAffine.Apply(scope, y, context.Frame.Scale, context.Frame.Shift);
        if (y.Shape != context.Target.Shape) y = Reshape.As(scope, y, context.Target.Shape);
        yield return ("auxiliary_reconstruction_loss", SquaredError.MeanOfRowSums(scope, y, context.Target));
    }
}

/// <summary>What the inference and the training form share.</summary>
internal static class Gated
{
    internal static IReadOnlyList<string> Units { get; } = ["b_gate", "b_mag"];

    internal static IReadOnlyList<ParameterSpec> Parameters(SaeConfig config) =>
    [
        new("b_dec", [config.OutputWidth]),
        new("b_gate", [config.DSae]),
        new("b_mag", [config.DSae]),
        new("r_mag", [config.DSae]),
        new("W_dec", [config.DSae, config.OutputWidth]),
        new("W_enc", [config.DSae, config.DIn], TransposedInFile: true),
    ];

    /// <summary>q of the open gates: q > -b_gate says the same as q + b_gate > 0.</summary>
    internal static SparseFeatures Open(TensorScope scope, Sae sae, Tensor rows)
    {
        Tensor limits;
        using (new NoGradient(scope)) limits = Scale.By(scope, sae.Parameters["b_gate"], -1);
        return EncodeSelect.Above(scope, rows, sae.WEnc, null, limits, sae.Center);
    }

    /// <summary>ReLU(magnitude) of the open gates; 0 is stored where it is not positive.</summary>
    internal static SparseFeatures Magnitudes(TensorScope scope, Sae sae, SparseFeatures q)
    {
        var magnitude = SparseAffine.Columns(scope, q, sae.Parameters["r_mag"], sae.Parameters["b_mag"]);
        return magnitude.With(Activate.Forward(scope, magnitude.Values, ActivationKind.Relu));
    }

    internal static SparseFeatures Select(TensorScope scope, Sae sae, Tensor rows) =>
        LargestOfBatch.Positive(scope, Magnitudes(scope, sae, Open(scope, sae, rows)));

    /// <summary>Dense magnitudes; r_mag is a constant here.</summary>
    internal static Tensor Magnitudes(TensorScope scope, Sae sae, Tensor rows)
    {
        Tensor scale;
        using (new NoGradient(scope)) scale = Exponential.Of(scope, sae.Parameters["r_mag"]);
        var q = Gemm.Multiply(scope, sae.Centred(scope, rows), sae.WEnc, transposeB: true);
        return AddRow.Forward(scope, MultiplyRow.Forward(scope, q, scale), sae.Parameters["b_mag"]);
    }

    /// <summary>From magnitudes that a hook may have replaced; the gate is that of the rows.</summary>
    internal static SparseFeatures SelectFrom(TensorScope scope, Sae sae, Tensor pre, Tensor rows)
    {
        Tensor gate;
        using (new NoGradient(scope))
        {
            var open = Open(scope, sae, rows);
            var ones = new float[open.EntryCount];
            Array.Fill(ones, 1);
            gate = DenseFeatures.Of(scope, open.With(scope.From<float>(ones, [ones.Length])));
        }

        return SparseFromDense.Of(scope, Multiply.Elementwise(scope, Activate.Forward(scope, pre, ActivationKind.Relu), gate));
    }
}
