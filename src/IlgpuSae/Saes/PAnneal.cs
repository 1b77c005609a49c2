using System.ComponentModel;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>The sparsity penalty whose p falls.</summary>
public enum PAnnealSparsity
{
    /// <summary>sum u^p.</summary>
    LpPower,

    /// <summary>(sum u^p)^(1/p).</summary>
    Lp,
}

/// <summary>Settings of a standard SAE that is trained with p-annealing.</summary>
public sealed record PAnnealTrainingConfig : TrainingSaeConfig
{
    /// <inheritdoc/>
    public override string Architecture => "p_anneal";

    /// <summary>Weight of the sparsity penalty at the start; it follows p so that the penalty's size does not jump.</summary>
    [Description("weight of the sparsity penalty")]
    public double L1Coefficient { get; init; } = 1.0;

    /// <summary>Steps over which the weight grows from 0.</summary>
    [Description("steps over which the sparsity penalty's weight grows from 0")]
    public int L1WarmUpSteps { get; init; }

    /// <summary>The penalty.</summary>
    [Description("the sum of u^p (lp_power) or its p-th root (lp)")]
    public PAnnealSparsity SparsityFunction { get; init; }

    /// <summary>p until annealing begins.</summary>
    [Description("the penalty's p until annealing begins")]
    public double PStart { get; init; } = 1.0;

    /// <summary>p after the last change.</summary>
    [Description("the penalty's p in the end")]
    public double PEnd { get; init; } = 0.2;

    /// <summary>Step of the first change; null: a third of the run.</summary>
    [Description("step at which p begins to fall; a third of the run if not given")]
    public long? AnnealStart { get; init; }

    /// <summary>Step of the last change; null: the run's end.</summary>
    [Description("step at which p reaches its end; the end of the run if not given")]
    public long? AnnealEnd { get; init; }

    /// <summary>In how many steps p falls.</summary>
    [Description("in how many steps p falls")]
    public int NSparsityUpdates { get; init; } = 10;

    /// <summary>Training steps whose penalties decide how the weight follows p.</summary>
    [Description("training steps whose penalties decide how the weight follows p")]
    public int SparsityQueueLength { get; init; } = 10;

    /// <inheritdoc/>
    public override SaeConfig ToInference() => Shared(new StandardConfig());

    /// <inheritdoc/>
    public override void Validate()
    {
        base.Validate();
        SettingChecks.Coefficient("l1_coefficient", L1Coefficient);
        SettingChecks.Steps("l1_warm_up_steps", L1WarmUpSteps);
        SettingChecks.Positive("p_start", PStart);
        SettingChecks.Positive("p_end", PEnd);
        if (PEnd > PStart) throw new InvalidInputException($"p_end: {PEnd} is above p_start = {PStart}; p falls");
        SettingChecks.Steps("anneal_start", AnnealStart ?? 0);
        SettingChecks.Steps("anneal_end", AnnealEnd ?? 0);
        if (AnnealEnd < AnnealStart) throw new InvalidInputException($"anneal_end: step {AnnealEnd} lies before anneal_start = {AnnealStart}");
        if (NSparsityUpdates < 1) throw new InvalidInputException($"n_sparsity_updates: {NSparsityUpdates}; it must be at least 1");
        if (SparsityQueueLength < 1) throw new InvalidInputException($"sparsity_queue_length: {SparsityQueueLength}; it must be at least 1");
    }
}

/// <summary>
/// Standard SAE, f = ReLU((x - b_dec) W_enc + b_enc), trained with a penalty whose p falls from p_start to p_end in equal
/// steps: l1_loss = l1 a mean over rows of sum u^p (or its p-th root), u = f n with the decoder norms n. At each change the factor a is
/// multiplied by the ratio of the penalties under the old and the new p over the last steps, so the loss does not jump.
/// Karvonen et al. 2024, arXiv:2408.00113; schedule and adaptation as dictionary_learning's PAnnealTrainer, with SAELens'
/// squared error and norms in the penalty instead of unit decoder rows.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("p_anneal")]
public sealed class PAnnealTrainingSae(PAnnealTrainingConfig config, Device device) : TrainingSae(config, device)
{
    private const string StateName = "p_anneal_state";
    private readonly Queue<(double Now, double Next)> _recent = new();
    private double _p = config.PStart;
    private double? _next;
    private double _factor = 1;
    private int _changes;

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, LossCoefficient> Coefficients { get; } =
        new Dictionary<string, LossCoefficient> { ["l1"] = new(config.L1Coefficient, config.L1WarmUpSteps) };

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, double> Metrics =>
        new Dictionary<string, double> { ["p"] = _p, ["sparsity_coefficient"] = Own.L1Coefficient * _factor };

    private PAnnealTrainingConfig Own => (PAnnealTrainingConfig)Config;

    /// <inheritdoc/>
    public override Sae ToInference() => CopyParametersTo(new StandardSae((StandardConfig)Config.ToInference(), Device));

    /// <inheritdoc/>
    public override void AfterStep(TensorScope scope, TrainingPass pass)
    {
        if (_next is { } next)
        {
            var norms = RowNorm.L2(scope, WDec);
            _recent.Enqueue((Penalty(scope, pass.Features, norms, _p).Scalar(), Penalty(scope, pass.Features, norms, next).Scalar()));
            if (_recent.Count > Own.SparsityQueueLength) _recent.Dequeue();
        }

        if (_changes >= Own.NSparsityUpdates || pass.Step.Index < StepOfChange(_changes, pass.Step.TotalSteps)) return;
        var after = _recent.Count == 0 ? 0 : _recent.Average(r => r.Next);
        if (after > 0) _factor *= _recent.Average(r => r.Now) / after;
        _p = PAfter(_changes);
        _next = PAfter(Math.Min(_changes + 1, Own.NSparsityUpdates - 1));
        _changes++;
    }

    /// <inheritdoc/>
    public override IReadOnlyList<NamedValues> ExportState()
    {
        double[] state = [_p, _next ?? -1, _factor, _changes, .. _recent.SelectMany(r => new[] { r.Now, r.Next })];
        return [.. base.ExportState(), new NamedValues(StateName, [state.Length], Array.ConvertAll(state, v => (float)v)) { Doubles = state }];
    }

    /// <inheritdoc/>
    public override void ImportState(IReadOnlyList<NamedValues> state, string where)
    {
        var own = state.FirstOrDefault(s => s.Name == StateName);
        base.ImportState([.. state.Where(s => s != own)], where);
        if (own is null) return;
        var values = own.Doubles ?? Array.ConvertAll(own.Values, v => (double)v);
        if (values.Length < 4 || values.Length % 2 != 0) throw new InvalidInputException($"{where}: tensor \"{StateName}\" is {own.Shape}, not [4 + 2 n]");
        (_p, _next, _factor, _changes) = (values[0], values[1] < 0 ? null : values[1], values[2], (int)values[3]);
        _recent.Clear();
        for (var i = 4; i < values.Length; i += 2) _recent.Enqueue((values[i], values[i + 1]));
    }

    /// <inheritdoc/>
    protected override SparseFeatures Select(TensorScope scope, Tensor rows) => StandardSae.Relu(scope, this, rows);

    /// <inheritdoc/>
    protected override SparseFeatures SelectFrom(TensorScope scope, Tensor pre, Tensor rows) => StandardSae.Relu(scope, pre);

    /// <inheritdoc/>
    protected override IEnumerable<(string Name, Tensor Value)> Losses(TensorScope scope, TrainingContext context)
    {
        var penalty = Penalty(scope, context.Features, RowNorm.L2(scope, WDec), _p);
        yield return ("l1_loss", Scale.By(scope, penalty, (float)(context.Step.Coefficients["l1"] * _factor)));
    }

    private Tensor Penalty(TensorScope scope, SparseFeatures features, Tensor norms, double p) => Own.SparsityFunction == PAnnealSparsity.Lp
        ? SparsePenalty.Lp(scope, features, norms, (float)p)
        : SparsePenalty.LpPower(scope, features, norms, (float)p);

    /// <summary>p after a change (from 0): evenly from p_start to p_end.</summary>
    private double PAfter(int change) => Own.NSparsityUpdates == 1 ? Own.PEnd
        : Own.PStart + ((Own.PEnd - Own.PStart) * change / (Own.NSparsityUpdates - 1));

    /// <summary>The step of a change: evenly from anneal_start to anneal_end.</summary>
    private long StepOfChange(int change, long totalSteps)
    {
        if (totalSteps == 0 && Own.AnnealEnd is null)
            throw new InvalidInputException("anneal_end: missing; the length of the run is not known here, so it cannot follow from it");
        var end = Own.AnnealEnd ?? totalSteps;
        var start = Own.AnnealStart ?? end / 3;
        return Own.NSparsityUpdates == 1 ? start : start + ((end - start) * change / (Own.NSparsityUpdates - 1));
    }
}
