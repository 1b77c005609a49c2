using System.ComponentModel;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>Settings of a matching-pursuit SAE.</summary>
public sealed record MatchingPursuitConfig : SaeConfig
{
    /// <inheritdoc/>
    public override string Architecture => "matching_pursuit";

    /// <summary>Norm of the residual below which a row takes no further feature; 0: the norm does not matter.</summary>
    [Description("norm of the residual below which a row takes no further feature; 0: the norm does not matter")]
    public double ResidualThreshold { get; init; } = 1e-2;

    /// <summary>Most rounds, one feature each; null: d_in.</summary>
    [Description("most rounds, one feature each; d_in if not given")]
    public int? MaxIterations { get; init; }

    /// <summary>Whether a row takes no further feature once a round chose one that it had.</summary>
    [Description("stop a row when a round chooses a feature that it has already")]
    public bool StopOnDuplicateSupport { get; init; } = true;

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters => MatchingPursuit.Parameters(this);

    /// <inheritdoc/>
    public override void Validate()
    {
        base.Validate();
        MatchingPursuit.Check(ResidualThreshold, MaxIterations);
    }
}

/// <summary>Settings of a matching-pursuit SAE in training.</summary>
public sealed record MatchingPursuitTrainingConfig : TrainingSaeConfig
{
    /// <summary>Decoder rows have norm 1 from the start.</summary>
    public MatchingPursuitTrainingConfig() => DecoderInitNorm = 1;

    /// <inheritdoc/>
    public override string Architecture => "matching_pursuit";

    /// <summary>Norm of the residual below which a row takes no further feature; 0: the norm does not matter.</summary>
    [Description("norm of the residual below which a row takes no further feature; 0: the norm does not matter")]
    public double ResidualThreshold { get; init; } = 1e-2;

    /// <summary>Most rounds, one feature each; null: d_in.</summary>
    [Description("most rounds, one feature each; d_in if not given")]
    public int? MaxIterations { get; init; }

    /// <summary>Whether a row takes no further feature once a round chose one that it had.</summary>
    [Description("stop a row when a round chooses a feature that it has already")]
    public bool StopOnDuplicateSupport { get; init; } = true;

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters => MatchingPursuit.Parameters(this);

    /// <inheritdoc/>
    public override SaeConfig ToInference() => Shared(new MatchingPursuitConfig
    {
        ResidualThreshold = ResidualThreshold,
        MaxIterations = MaxIterations,
        StopOnDuplicateSupport = StopOnDuplicateSupport,
    });

    /// <inheritdoc/>
    public override void Validate()
    {
        base.Validate();
        MatchingPursuit.Check(ResidualThreshold, MaxIterations);
        if (DecoderInitNorm is not 1) throw new InvalidInputException($"decoder_init_norm: {(DecoderInitNorm is { } n ? n : "null")}, but architecture matching_pursuit has decoder rows of norm 1; use 1");
        if (!InitEncoderAsDecoderTranspose) throw new InvalidInputException("init_encoder_as_decoder_transpose: false, but architecture matching_pursuit has no encoder of its own; use true");
    }
}

/// <summary>
/// Matching-pursuit SAE. Encoder and decoder are one, rows w_j of norm 1. A row r = x - b_dec takes, round after round,
/// the feature with the largest r . w_j; if that is positive it is added to the feature's activation and r loses
/// (r . w_j) w_j. A row is finished when |r| &lt; <c>residual_threshold</c>, when a round brought no new feature (with
/// <c>stop_on_duplicate_support</c>), or after <c>max_iterations</c> rounds. b_dec is added back if it was subtracted. There
/// are no pre-activations to observe. Costa et al. 2025, arXiv:2506.03093; the rules for stopping are SAELens'.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("matching_pursuit")]
public sealed class MatchingPursuitSae(MatchingPursuitConfig config, Device device) : Sae(config, device)
{
    private MatchingPursuitConfig Own => (MatchingPursuitConfig)Config;

    /// <summary>The decoder's rows.</summary>
    public override Tensor WEnc => WDec;

    /// <inheritdoc/>
    public override void FoldDecoderNorm() => throw MatchingPursuit.CannotFold();

    /// <inheritdoc/>
    public override void FoldActivationScale(double factor)
    {
        MatchingPursuit.FoldScale(this, factor);
        Reconfigure(Own with { ResidualThreshold = Own.ResidualThreshold / factor, NormalizeActivations = NormalizeActivations.None });
    }

    /// <inheritdoc/>
    protected override SparseFeatures Select(TensorScope scope, Tensor rows) =>
        MatchingPursuit.Encode(scope, Centred(scope, rows), WDec, Own.ResidualThreshold, Own.MaxIterations ?? Own.DIn, Own.StopOnDuplicateSupport);

    /// <inheritdoc/>
    protected override Tensor PreActivations(TensorScope scope, Tensor rows) => throw MatchingPursuit.NoPreActivations();

    /// <inheritdoc/>
    protected override SparseFeatures SelectFrom(TensorScope scope, Tensor pre, Tensor rows) => throw MatchingPursuit.NoPreActivations();

    /// <inheritdoc/>
    protected override Tensor DecodeRows(TensorScope scope, SparseFeatures features) => SparseDecode.Forward(scope, features, WDec, Center);
}

/// <summary>
/// Matching-pursuit SAE in training. The loss is mse_loss alone. Which feature a round takes is a constant, its value is
/// not: gradients go through every round's value and residual. After each step decoder rows are scaled to norm 1.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("matching_pursuit")]
public sealed class MatchingPursuitTrainingSae(MatchingPursuitTrainingConfig config, Device device) : TrainingSae(config, device)
{
    private MatchingPursuitTrainingConfig Own => (MatchingPursuitTrainingConfig)Config;

    /// <summary>The decoder's rows.</summary>
    public override Tensor WEnc => WDec;

    /// <inheritdoc/>
    public override void FoldDecoderNorm() => throw MatchingPursuit.CannotFold();

    /// <inheritdoc/>
    public override void FoldActivationScale(double factor)
    {
        MatchingPursuit.FoldScale(this, factor);
        Reconfigure(Own with { ResidualThreshold = Own.ResidualThreshold / factor, NormalizeActivations = NormalizeActivations.None });
    }

    /// <inheritdoc/>
    public override void AfterStep(TensorScope scope, TrainingPass pass) =>
        WDec.CopyFrom(RowAffine.Undo(scope, WDec, RowNorm.L2(scope, WDec), shift: null, epsilon: 0));

    /// <inheritdoc/>
    public override Sae ToInference() => CopyParametersTo(new MatchingPursuitSae((MatchingPursuitConfig)Config.ToInference(), Device));

    /// <inheritdoc/>
    protected override SparseFeatures Select(TensorScope scope, Tensor rows) =>
        MatchingPursuit.Encode(scope, Centred(scope, rows), WDec, Own.ResidualThreshold, Own.MaxIterations ?? Own.DIn, Own.StopOnDuplicateSupport);

    /// <inheritdoc/>
    protected override Tensor PreActivations(TensorScope scope, Tensor rows) => throw MatchingPursuit.NoPreActivations();

    /// <inheritdoc/>
    protected override SparseFeatures SelectFrom(TensorScope scope, Tensor pre, Tensor rows) => throw MatchingPursuit.NoPreActivations();

    /// <inheritdoc/>
    protected override Tensor DecodeRows(TensorScope scope, SparseFeatures features) => SparseDecode.Forward(scope, features, WDec, Center);

    /// <inheritdoc/>
    protected override IEnumerable<(string Name, Tensor Value)> Losses(TensorScope scope, TrainingContext context) => [];
}

/// <summary>The pursuit itself, and what its two forms share.</summary>
internal static class MatchingPursuit
{
    /// <summary>Features of a batch, round after round; rows that are finished leave the batch.</summary>
    /// <param name="scope">Owns the results.</param>
    /// <param name="rows">F32 [n, d_in], centred.</param>
    /// <param name="dictionary">F32 [d_sae, d_in], rows of norm 1.</param>
    /// <param name="threshold">Norm of the residual below which a row is finished; 0: none.</param>
    /// <param name="rounds">Most rounds.</param>
    /// <param name="stopOnDuplicate">Whether a round without a new feature finishes a row.</param>
    /// <returns>[n, d_sae]; differentiable in the rows and the dictionary.</returns>
    internal static SparseFeatures Encode(TensorScope scope, Tensor rows, Tensor dictionary, double threshold, int rounds, bool stopOnDuplicate)
    {
        var taken = new List<(int Feature, int Entry)>[rows.Shape[0]];
        for (var r = 0; r < taken.Length; r++) taken[r] = [];
        var bias = scope.Zeros([dictionary.Shape[0]]);
        int[] active = [.. Enumerable.Range(0, taken.Length)];
        var residual = rows;
        var values = new List<Tensor>();
        var entries = 0;
        for (var round = 0; round < rounds && active.Length > 0; round++)
        {
            var f = EncodeSelect.TopK(scope, residual, dictionary, bias, k: 1);
            residual = Sae.Residual(scope, residual, SparseDecode.Forward(scope, f, dictionary));
            int[] offsets = f.RowOffsets.ToArray<int>(), features = f.Indices.ToArray<int>();
            var norms = threshold > 0 ? Norms(scope, residual) : null;
            var open = new List<int>(active.Length);
            for (var i = 0; i < active.Length; i++)
            {
                var row = taken[active[i]];
                var isNew = false;
                if (offsets[i + 1] > offsets[i])
                {
                    var feature = features[offsets[i]];
                    isNew = !row.Exists(t => t.Feature == feature);
                    row.Add((feature, entries + offsets[i]));
                }

                if ((isNew || !stopOnDuplicate) && !(norms is not null && norms[i] < threshold)) open.Add(i);
            }

            values.Add(f.Values);
            entries += f.EntryCount;
            if (open.Count == active.Length) continue;
            residual = GatherRows.Forward(scope, residual, scope.From<int>(open.ToArray(), [open.Count]));
            active = [.. open.Select(i => active[i])];
        }

        return Join(scope, taken, values, entries, dictionary.Shape[0]);
    }

    internal static IReadOnlyList<ParameterSpec> Parameters(SaeConfig config) => [new("b_dec", [config.DIn]), new("W_dec", [config.DSae, config.DIn])];

    internal static void Check(double threshold, int? rounds)
    {
        if (!(threshold >= 0 && double.IsFinite(threshold))) throw new InvalidInputException($"residual_threshold: {threshold} is not a number of at least 0");
        if (rounds is < 1) throw new InvalidInputException($"max_iterations: {rounds} rounds; it must be at least 1");
    }

    /// <summary>Activations scale with their input, so only b_dec and the threshold have units: f(x) = f_before(s x) / s.</summary>
    internal static void FoldScale(Sae sae, double factor)
    {
        if (!(factor > 0 && double.IsFinite(factor))) throw new InvalidInputException($"activation scale: {factor} is not a positive number");
        sae.BDec.CopyFrom<float>(Array.ConvertAll(sae.BDec.ToArray<float>(), v => (float)(v / factor)));
    }

    internal static InvalidInputException CannotFold() =>
        new("fold: architecture matching_pursuit compares residuals with its decoder's rows, whose norm is 1 already");

    internal static InvalidInputException NoPreActivations() =>
        new($"hook {SaeHooks.ActsPre}: architecture matching_pursuit chooses feature after feature and has no pre-activations; use {SaeHooks.ActsPost}");

    /// <summary>
    /// All rounds' entries as one pattern, features ascending within a row. A feature that was taken twice has the sum, which a
    /// matrix of ones makes of the rounds' values.
    /// </summary>
    private static SparseFeatures Join(TensorScope scope, List<(int Feature, int Entry)>[] taken, List<Tensor> values, int entries, int features)
    {
        var offsets = new int[taken.Length + 1];
        List<int> indices = new(entries), sumOffsets = new(entries + 1) { 0 }, sources = new(entries);
        for (var r = 0; r < taken.Length; r++)
        {
            foreach (var (feature, entry) in taken[r].OrderBy(t => t.Feature).ThenBy(t => t.Entry))
            {
                if (indices.Count > offsets[r] && indices[^1] == feature)
                {
                    sumOffsets[^1]++;
                }
                else
                {
                    indices.Add(feature);
                    sumOffsets.Add(sources.Count + 1);
                }

                sources.Add(entry);
            }

            offsets[r + 1] = indices.Count;
        }

        Tensor Ints(IReadOnlyCollection<int> list) => scope.From<int>(list.ToArray(), [list.Count]);
        var pattern = Ints(offsets);
        if (entries == 0) return new SparseFeatures(features, pattern, Ints(indices), scope.New([0]));
        var all = Reshape.As(scope, Columns.Join(scope, [.. values.Select(v => Reshape.As(scope, v, [1, (int)v.Count]))]), [entries, 1]);
        var ones = new float[entries];
        Array.Fill(ones, 1);
        var sums = new SparseFeatures(entries, Ints(sumOffsets), Ints(sources), scope.From<float>(ones, [entries]));
        return new SparseFeatures(features, pattern, Ints(indices), Reshape.As(scope, SparseDecode.Forward(scope, sums, all), [indices.Count]));
    }

    private static float[] Norms(TensorScope scope, Tensor rows)
    {
        using (new NoGradient(scope)) return RowNorm.L2(scope, rows).ToArray<float>();
    }
}
