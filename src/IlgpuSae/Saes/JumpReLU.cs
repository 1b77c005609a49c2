using System.ComponentModel;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>Settings of a JumpReLU SAE: f = ReLU(h) 1[h > threshold].</summary>
public record JumpReLUConfig : SaeConfig
{
    /// <inheritdoc/>
    public override string Architecture => "jumprelu";

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters => [.. base.Parameters, new("threshold", [DSae])];
}

/// <summary>What JumpReLU's sparsity loss counts.</summary>
public enum JumpReLUSparsityLoss
{
    /// <summary>The number of active features (arXiv:2407.14435).</summary>
    Step,

    /// <summary>sum tanh(c f n), n the decoder norms (Anthropic, January 2025 update).</summary>
    Tanh,

    /// <summary>(number of active features / <c>target_l0</c> - 1)^2 (arXiv:2407.14435, appendix; Gemma Scope 2).</summary>
    Quadratic,
}

/// <summary>Settings of a JumpReLU SAE in training.</summary>
public record JumpReLUTrainingConfig : TrainingSaeConfig
{
    /// <inheritdoc/>
    public override string Architecture => "jumprelu";

    /// <summary>Threshold every feature starts with, in the units of the pre-activations.</summary>
    [Description("threshold every feature starts with")]
    public double JumpreluInitThreshold { get; init; } = 0.01;

    /// <summary>Width of the window around a threshold within which pre-activations move it.</summary>
    [Description("width of the window around a threshold within which pre-activations move it")]
    public double JumpreluBandwidth { get; init; } = 0.05;

    /// <summary>What the sparsity loss counts.</summary>
    [Description("what the sparsity loss counts: active features (step), their saturating sum (tanh), or the squared relative distance from target_l0 (quadratic)")]
    public JumpReLUSparsityLoss JumpreluSparsityLossMode { get; init; }

    /// <summary>Weight of the sparsity loss.</summary>
    [Description("weight of the sparsity loss")]
    public double L0Coefficient { get; init; } = 1.0;

    /// <summary>Steps over which the weight grows from 0.</summary>
    [Description("steps over which the sparsity loss' weight grows from 0")]
    public int L0WarmUpSteps { get; init; }

    /// <summary>Weight of the loss that pulls dead features' pre-activations towards their thresholds; null: none.</summary>
    [Description("weight of the loss that pulls dead features towards their thresholds; without it there is none")]
    public double? PreActLossCoefficient { get; init; }

    /// <summary>c of tanh(c f n).</summary>
    [Description("scale c of tanh(c f n); above its inverse activations cost about the same")]
    public double JumpreluTanhScale { get; init; } = 4.0;

    /// <summary>Active features a row that <c>quadratic</c> aims at.</summary>
    [LeftOutByDefault]
    [Description("active features a row that jumprelu_sparsity_loss_mode = quadratic aims at")]
    public double? TargetL0 { get; init; }

    /// <summary>
    /// Whether the logarithm of the threshold is the trained parameter, as in SAELens before 6.48, which is what a file without
    /// this field means. Adam then moves a threshold by about lr times itself a step, so from small values it hardly
    /// travels in short runs; false trains the threshold itself, as SAELens does from 6.48 on.
    /// </summary>
    [LeftOutByDefault]
    [Description("train the threshold's logarithm (SAELens before 6.48); false trains the threshold itself, which travels faster in short runs")]
    public bool TrainLogThreshold { get; init; } = true;

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters =>
        [.. base.Parameters, new(TrainLogThreshold ? JumpReLUTrainingSae.LogThreshold : JumpReLUTrainingSae.Threshold, [DSae])];

    /// <inheritdoc/>
    protected override bool TakesNoise => true;

    /// <inheritdoc/>
    public override SaeConfig ToInference() => Shared(new JumpReLUConfig());

    /// <inheritdoc/>
    public override void Validate()
    {
        base.Validate();
        SettingChecks.Positive("jumprelu_init_threshold", JumpreluInitThreshold);
        SettingChecks.Positive("jumprelu_bandwidth", JumpreluBandwidth);
        SettingChecks.Coefficient("l0_coefficient", L0Coefficient);
        SettingChecks.Steps("l0_warm_up_steps", L0WarmUpSteps);
        SettingChecks.Positive("jumprelu_tanh_scale", JumpreluTanhScale);
        if (PreActLossCoefficient is { } c) SettingChecks.Coefficient("pre_act_loss_coefficient", c);
        var quadratic = JumpreluSparsityLossMode == JumpReLUSparsityLoss.Quadratic;
        if (quadratic && TargetL0 is null)
            throw new InvalidInputException("target_l0: missing; jumprelu_sparsity_loss_mode = quadratic needs the number of active features to aim at");
        if (!quadratic && TargetL0 is not null)
            throw new InvalidInputException($"target_l0: {TargetL0} has no meaning with jumprelu_sparsity_loss_mode = {ConfigJson.Name(JumpreluSparsityLossMode)}; use quadratic, or leave it out");
        if (TargetL0 is { } target && !(target > 0 && target <= DSae))
            throw new InvalidInputException($"target_l0: {target} active features are not between 0 and d_sae = {DSae}");
    }
}

/// <summary>JumpReLU SAE: f = ReLU(h) 1[h > threshold], h = (x - b_dec) W_enc + b_enc. arXiv:2407.14435.</summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("jumprelu")]
public class JumpReLUSae(JumpReLUConfig config, Device device) : Sae(config, device)
{
    /// <inheritdoc/>
    protected override IReadOnlyList<string> PreActivationUnits => ["b_enc", "threshold"];

    /// <inheritdoc/>
    protected override SparseFeatures Select(TensorScope scope, Tensor rows) =>
        EncodeSelect.Above(scope, rows, WEnc, Parameters["b_enc"], Limits(scope), Center);

    /// <inheritdoc/>
    protected override SparseFeatures SelectFrom(TensorScope scope, Tensor pre, Tensor rows) => SelectAbove.Of(scope, pre, Limits(scope));

    /// <summary>A threshold below 0 is none: ReLU cuts there.</summary>
    private Tensor Limits(TensorScope scope)
    {
        using (new NoGradient(scope)) return Activate.Forward(scope, Parameters["threshold"], ActivationKind.Relu);
    }
}

/// <summary>
/// JumpReLU SAE in training. l0_loss is l0 times the mean over rows of what <c>jumprelu_sparsity_loss_mode</c> counts.
/// pre_act_loss = pre_act_loss_coefficient * mean over rows of the sum over dead features of max(0, theta - h) n. Thresholds move by
/// straight-through gradients within <c>jumprelu_bandwidth</c> of themselves (<see cref="JumpRelu"/>, <see cref="StepPenalty"/>);
/// pre-activations in that window are selected together with the active ones. Files hold the threshold itself.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("jumprelu")]
public class JumpReLUTrainingSae(JumpReLUTrainingConfig config, Device device) : TrainingSae(config, device)
{
    internal const string Threshold = "threshold";
    internal const string LogThreshold = "log_threshold";

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, LossCoefficient> Coefficients { get; } =
        new Dictionary<string, LossCoefficient> { ["l0"] = new(config.L0Coefficient, config.L0WarmUpSteps) };

    /// <inheritdoc/>
    protected override IReadOnlyList<string> PreActivationUnits => Own.TrainLogThreshold ? ["b_enc"] : ["b_enc", Threshold];

    private JumpReLUTrainingConfig Own => (JumpReLUTrainingConfig)Config;

    private float Bandwidth => (float)Own.JumpreluBandwidth;

    /// <inheritdoc/>
    public override void Initialize(ulong seed)
    {
        base.Initialize(seed);
        var start = new float[Config.DSae];
        Array.Fill(start, FreshValue(Own.TrainLogThreshold ? LogThreshold : Threshold));
        Trained.CopyFrom<float>(start);
    }

    /// <inheritdoc/>
    protected internal override float FreshValue(string parameter) => parameter switch
    {
        LogThreshold => (float)Math.Log(Own.JumpreluInitThreshold),
        Threshold => (float)Own.JumpreluInitThreshold,
        _ => 0,
    };

    /// <inheritdoc/>
    public override void FoldDecoderNorm()
    {
        float[] norms;
        using (var scope = new TensorScope(Device)) norms = RowNorm.L2(scope, WDec).ToArray<float>();
        base.FoldDecoderNorm();
        if (Own.TrainLogThreshold)
            Trained.CopyFrom<float>([.. Trained.ToArray<float>().Zip(norms, (t, n) => (float)(t + Math.Log(Math.Max(n, 1e-8))))]);
    }

    /// <inheritdoc/>
    public override Sae ToInference()
    {
        var sae = CopyParametersTo(SaeRegistry.Default.Create(Config.ToInference(), Device));
        sae.Parameters[Threshold].CopyFrom<float>(Thresholds());
        return sae;
    }

    /// <inheritdoc/>
    public override IReadOnlyList<NamedValues> ExportState() =>
        [.. base.ExportState().Select(s => s.Name == LogThreshold ? s with { Name = Threshold, Values = Thresholds() } : s)];

    /// <inheritdoc/>
    public override void ImportState(IReadOnlyList<NamedValues> state, string where) =>
        base.ImportState([.. state.Select(s => s.Name switch
        {
            Threshold when Own.TrainLogThreshold => s with { Name = LogThreshold, Values = [.. s.Values.Select((v, j) => Logarithm(v, j, where))] },
            LogThreshold when !Own.TrainLogThreshold => s with { Name = Threshold, Values = Array.ConvertAll(s.Values, v => (float)Math.Exp(v)) },
            _ => s,
        })], where);

    /// <inheritdoc/>
    protected override SparseFeatures Select(TensorScope scope, Tensor rows) =>
        EncodeSelect.Above(scope, rows, WEnc, Parameters["b_enc"], Constant(scope), Center);

    /// <inheritdoc/>
    protected override SparseFeatures SelectFrom(TensorScope scope, Tensor pre, Tensor rows) => SelectAbove.Of(scope, pre, Constant(scope));

    /// <inheritdoc/>
    protected override SparseFeatures SelectInTraining(TensorScope scope, Tensor rows, out SparseFeatures? pre)
    {
        var theta = Theta(scope);
        pre = EncodeSelect.Above(scope, rows, WEnc, Parameters["b_enc"], WindowLimits(scope, theta), Center);
        return JumpRelu.Forward(scope, pre, theta, Bandwidth);
    }

    /// <inheritdoc/>
    protected override SparseFeatures SelectFromInTraining(TensorScope scope, Tensor dense, Tensor rows, out SparseFeatures? pre)
    {
        var theta = Theta(scope);
        pre = SelectAbove.Of(scope, dense, WindowLimits(scope, theta));
        return JumpRelu.Forward(scope, pre, theta, Bandwidth);
    }

    /// <summary>Pre-activations above these are active or within half a bandwidth of their threshold. Constants.</summary>
    private Tensor WindowLimits(TensorScope scope, Tensor theta)
    {
        using (new NoGradient(scope))
        {
            // A little more than half a bandwidth: what lies exactly at the window's edge is for the kernels to judge.
            var below = new float[Config.DSae];
            Array.Fill(below, Bandwidth * -0.50001f);
            return Add.Sum(scope, Scale.By(scope, theta, 0.999999f), scope.From<float>(below, theta.Shape));
        }
    }

    /// <inheritdoc/>
    protected override IEnumerable<(string Name, Tensor Value)> Losses(TensorScope scope, TrainingContext context)
    {
        var theta = Theta(scope);
        var penalty = Own.JumpreluSparsityLossMode switch
        {
            JumpReLUSparsityLoss.Tanh => TanhPenalty.Mean(scope, context.Features, RowNorm.L2(scope, WDec), (float)Own.JumpreluTanhScale),
            var mode => StepPenalty.Mean(scope, context.Pre!, theta, Bandwidth, mode == JumpReLUSparsityLoss.Quadratic ? (float)Own.TargetL0!.Value : null),
        };
        yield return ("l0_loss", Scale.By(scope, penalty, (float)context.Step.Coefficients["l0"]));
        if (Own.PreActLossCoefficient is { } coefficient) yield return ("pre_act_loss", PreActLoss(scope, context, theta, coefficient));
    }

    /// <summary>coefficient * mean over rows of the sum over dead features of max(0, theta - h) n; of those features alone is h computed.</summary>
    private Tensor PreActLoss(TensorScope scope, TrainingContext context, Tensor theta, double coefficient)
    {
        var dead = context.Step.Dead;
        if (dead.Length == 0 || coefficient == 0) return scope.Zeros([]);
        var ids = scope.From<int>(dead.Span, [dead.Length]);
        var pre = Gemm.Multiply(scope, Centred(scope, context.Rows), GatherRows.Forward(scope, WEnc, ids),
            GatherRows.Forward(scope, Parameters["b_enc"], ids), transposeB: true);
        pre = PreActivationNoise.AddTo(scope, Config, context.Step, pre, dead.Span);
        var missing = AddRow.Forward(scope, Scale.By(scope, pre, -1), GatherRows.Forward(scope, theta, ids));
        var features = SparseFromDense.Of(scope, Activate.Forward(scope, missing, ActivationKind.Relu));
        var norms = RowNorm.L2(scope, GatherRows.Forward(scope, WDec, ids));
        return Scale.By(scope, SparsePenalty.Lp(scope, features, norms, p: 1), (float)coefficient);
    }

    private Tensor Trained => Parameters[Own.TrainLogThreshold ? LogThreshold : Threshold];

    /// <summary>The thresholds as the encoder compares with them: a trained one below 0 counts as 0, and gets no gradient.</summary>
    private Tensor Theta(TensorScope scope) =>
        Own.TrainLogThreshold ? Exponential.Of(scope, Trained) : Activate.Forward(scope, Trained, ActivationKind.Relu);

    private Tensor Constant(TensorScope scope)
    {
        using (new NoGradient(scope)) return Theta(scope);
    }

    private float[] Thresholds()
    {
        if (!Own.TrainLogThreshold) return Trained.ToArray<float>();
        using var scope = new TensorScope(Device);
        return Theta(scope).ToArray<float>();
    }

    private static float Logarithm(float threshold, int feature, string where) => threshold > 0
        ? (float)Math.Log(threshold)
        : throw new InvalidInputException($"{where}: threshold of feature {feature} is {threshold}, which has no logarithm to train; use train_log_threshold = false");
}
