using IlgpuSae.Activations;
using IlgpuSae.Kernels;
using IlgpuSae.Models;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Evaluation;

/// <summary>
/// Judges an SAE: how well it reconstructs a hook's activations, how sparse its features are, and what its
/// reconstructions do to the model's predictions. A transcoder reads one hook and is judged on, and put in place of,
/// another. Definitions are SAELens' (<c>run_evals</c>), with explained variance
/// and MSE as corrected there later; sums are in double. Positions of excluded tokens do not count and keep their own
/// activations, whatever the hook.
/// </summary>
public sealed class SaeEvaluator
{
    private readonly HookedTransformer _model;
    private readonly Sae _sae;
    private readonly string _hook;
    private readonly string _target;
    private readonly int? _targetHead;
    private readonly EvaluationOptions _options;
    private readonly HashSet<int> _excluded;
    private readonly FeatureStatistics _features;
    private readonly ReconstructionStatistics _reconstruction;
    private double _ceClean, _ceSae, _ceAblated, _klSae, _klAblated;
    private long _ceTokens, _klTokens, _modelTokens, _statisticTokens;
    private int _prompts;

    /// <summary>Creates an evaluator at zero.</summary>
    /// <param name="model">The model the SAE belongs to.</param>
    /// <param name="sae">The SAE, on the model's device.</param>
    /// <param name="hookName">Full name of the hook.</param>
    /// <param name="options">What to measure.</param>
    /// <exception cref="InvalidInputException">No such hook or head, a width does not fit, or an option is out of range.</exception>
    public SaeEvaluator(HookedTransformer model, Sae sae, string hookName, EvaluationOptions? options = null)
    {
        _options = options ?? new EvaluationOptions();
        _options.Validate();
        var rows = new HookRows(model.Hooks[hookName].ShapeFor(1, 1), _options.HookHeadIndex);
        if (rows.Width != sae.Config.DIn)
        {
            throw new ShapeException($"eval: {model.Hooks[hookName]} gives {rows.Width} numbers a token but the SAE has d_in = {sae.Config.DIn}"
                + (sae.Config.Metadata.Get<string>("hook_name") is { } trained ? $" and was trained on {trained}" : ""));
        }

        (_model, _sae, _hook) = (model, sae, hookName);
        (_target, _targetHead) = (hookName, _options.HookHeadIndex);
        if (sae.Config.IsTranscoder)
        {
            _target = _options.HookNameOut ?? sae.Config.Metadata.Get<string>("hook_name_out")
                ?? throw new InvalidInputException("hook_name_out: missing; say whose activations the transcoder gives, such as blocks.0.hook_mlp_out");
            _targetHead = _options.HookHeadIndexOut;
            var width = new HookRows(model.Hooks[_target].ShapeFor(1, 1), _targetHead).Width;
            if (width != sae.Config.OutputWidth) throw new ShapeException($"eval: {model.Hooks[_target]} gives {width} numbers a token but the transcoder has d_out = {sae.Config.OutputWidth}");
        }

        _excluded = [.. _options.ExcludedTokens];
        _features = new FeatureStatistics(sae.Config.DSae);
        _reconstruction = new ReconstructionStatistics(sae.Config.OutputWidth);
    }

    /// <summary>Measures on tokens.</summary>
    /// <param name="tokens">Contexts, from where the source stands.</param>
    /// <param name="progress">Told batches done and, if known, how many there are.</param>
    /// <param name="cancellation">Stops between two batches.</param>
    /// <exception cref="InvalidInputException">No tokens, tokens out of range, or all of them are excluded.</exception>
    /// <exception cref="OperationCanceledException">The user stopped it.</exception>
    public EvaluationResult Run(TokenSource tokens, Action<int, int?>? progress = null, CancellationToken cancellation = default)
    {
        int? modelBatches = _options.NEvalReconstructionBatches, statisticBatches = _options.NEvalSparsityVarianceBatches;
        var untilEnd = modelBatches is null || statisticBatches is null;
        int? total = untilEnd ? null : Math.Max(modelBatches!.Value, statisticBatches!.Value);
        for (var batch = 0; total is null || batch < total; batch++)
        {
            cancellation.ThrowIfCancellationRequested();
            // A given number of batches is measured even on a short corpus, which then repeats.
            var ids = tokens.NextBatch(_options.BatchSizePrompts, wrap: !untilEnd);
            if (ids.Length == 0) break;
            Batch(ids, tokens.ContextSize, modelBatches is null || batch < modelBatches, statisticBatches is null || batch < statisticBatches);
            progress?.Invoke(batch + 1, total);
        }

        return Result();
    }

    private void Batch(int[] ids, int contextSize, bool measureModel, bool measureStatistics)
    {
        using var scope = new TensorScope(_model.Device);
        var prompts = ids.Length / contextSize;
        var tokens = scope.From<int>(ids, [prompts, contextSize]);
        var kept = Kept(ids);
        Tensor? logits = null;
        ActivationCache cache;
        var hooks = $"{_hook},{_target}";
        if (measureModel) (logits, cache) = _model.RunWithCache(scope, tokens, hooks);
        else cache = _model.Activations(scope, tokens, hooks);

        // Who reads contexts must see excluded tokens too; they are left out afterwards.
        var seen = _sae.Config.ReadsContext ? null : kept;
        var x = new HookRows(cache[_hook].Shape, _options.HookHeadIndex).Read(scope, cache[_hook], seen);
        var rows = new HookRows(cache[_target].Shape, _targetHead);
        var target = _sae.Config.IsTranscoder ? rows.Read(scope, cache[_target], seen) : x;
        var (features, reconstruction) = Reconstruct(scope, x, contextSize);
        if (seen is null && kept is not null) (target, features, reconstruction) = Keep(scope, kept, target, features, reconstruction);
        if (measureStatistics) AddStatistics(target, features, reconstruction, kept, ids.Length, contextSize);
        if (measureModel) AddPredictions(scope, tokens, logits!, rows.Write(scope, cache[_target], reconstruction, kept), kept);
        _prompts += prompts;
    }

    /// <summary>Tokens that count, ascending; null if all do.</summary>
    private int[]? Kept(int[] ids)
    {
        if (_excluded.Count == 0 || !Array.Exists(ids, _excluded.Contains)) return null;
        return [.. Enumerable.Range(0, ids.Length).Where(i => !_excluded.Contains(ids[i]))];
    }

    private (SparseFeatures Features, Tensor Reconstruction) Reconstruct(TensorScope scope, Tensor x, int contextSize)
    {
        var scaled = _options.ActivationScale is { } s ? Scale.By(scope, x, (float)s) : x;
        // An SAE that merges heads itself sees one head as wide as the row.
        var input = _sae.Config.ReshapeActivations == ReshapeActivations.HookZ ? Reshape.As(scope, scaled, [x.Shape[0], 1, x.Shape[1]])
            : _sae.Config.ReadsContext ? Reshape.As(scope, scaled, [x.Shape[0] / contextSize, contextSize, x.Shape[1]]) : scaled;
        var features = _sae.Encode(scope, input, out var frame);
        var y = Reshape.As(scope, _sae.Decode(scope, features, frame), [x.Shape[0], _sae.Config.OutputWidth]);
        return (features, _options.ActivationScale is { } factor ? Scale.By(scope, y, (float)(1 / factor)) : y);
    }

    /// <summary>The rows of the tokens that count.</summary>
    private static (Tensor Target, SparseFeatures Features, Tensor Reconstruction) Keep(
        TensorScope scope, int[] kept, Tensor target, SparseFeatures features, Tensor reconstruction)
    {
        var rows = scope.From<int>(kept, [kept.Length]);
        int[] offsets = features.RowOffsets.ToArray<int>(), keptOffsets = new int[kept.Length + 1];
        for (var i = 0; i < kept.Length; i++) keptOffsets[i + 1] = keptOffsets[i] + offsets[kept[i] + 1] - offsets[kept[i]];
        int[] entries = [.. kept.SelectMany(t => Enumerable.Range(offsets[t], offsets[t + 1] - offsets[t]))], indices = features.Indices.ToArray<int>();
        var values = GatherRows.Forward(scope, features.Values, scope.From<int>(entries, [entries.Length]));
        var some = new SparseFeatures(features.Columns, scope.From<int>(keptOffsets, [keptOffsets.Length]),
            scope.From<int>(Array.ConvertAll(entries, e => indices[e]), [entries.Length]), values);
        return (GatherRows.Forward(scope, target, rows), some, GatherRows.Forward(scope, reconstruction, rows));
    }

    private void AddStatistics(Tensor target, SparseFeatures features, Tensor reconstruction, int[]? kept, int tokens, int contextSize)
    {
        var promptOfRow = new int[target.Shape[0]];
        for (var r = 0; r < promptOfRow.Length; r++) promptOfRow[r] = _prompts + ((kept is null ? r : kept[r]) / contextSize);
        _features.Add(features.RowOffsets.ToArray<int>(), features.Indices.ToArray<int>(), features.Values.ToArray<float>(), promptOfRow);
        _reconstruction.Add(target.ToArray<float>(), reconstruction.ToArray<float>());
        _statisticTokens += tokens;
    }

    private void AddPredictions(TensorScope scope, Tensor tokens, Tensor clean, Tensor replaced, int[]? kept)
    {
        _ceClean += SumOfKept(CrossEntropy.PerToken(scope, clean, tokens), tokens.Shape[1], kept, out var predicted);
        _ceTokens += predicted;
        (var ce, var kl, predicted) = With(scope, tokens, clean, replaced, kept);
        (_ceSae, _klSae, _klTokens) = (_ceSae + ce, _klSae + kl, _klTokens + predicted);
        (ce, kl, _) = With(scope, tokens, clean, Ablated(scope, replaced), kept);
        (_ceAblated, _klAblated) = (_ceAblated + ce, _klAblated + kl);
        _modelTokens += tokens.Count;
    }

    /// <summary>Everything at the hook set to zero, or the one head that the SAE is for.</summary>
    private Tensor Ablated(TensorScope scope, Tensor activation)
    {
        if (_targetHead is null) return scope.Zeros(activation.Shape);
        var rows = new HookRows(activation.Shape, _targetHead);
        return rows.Write(scope, activation, scope.Zeros([rows.Tokens, rows.Width]), null);
    }

    /// <summary>Sums over kept tokens of cross-entropy and KL with another activation at the hook.</summary>
    private (double Ce, double Kl, long KlTokens) With(TensorScope outer, Tensor tokens, Tensor clean, Tensor activation, int[]? kept)
    {
        using var scope = new TensorScope(outer.Device);
        var logits = _model.Forward(scope, tokens, new ForwardOptions { Hooks = [Hook.On(_target, (_, _) => activation)] });
        var ce = SumOfKept(CrossEntropy.PerToken(scope, logits, tokens), tokens.Shape[1], kept, out _);
        var kl = SumOfKept(KlDivergence.PerToken(scope, clean, logits), tokens.Shape[1], kept, out var n);
        return (ce, kl, n);
    }

    /// <summary>Sum over tokens that count of [batch, pos] or, for next-token losses, [batch, pos - 1] numbers.</summary>
    private static double SumOfKept(Tensor perToken, int contextSize, int[]? kept, out long count)
    {
        var values = perToken.ToArray<float>();
        var width = perToken.Shape[1];
        double sum = 0;
        count = 0;
        if (kept is null)
        {
            foreach (var v in values) sum += v;
            count = values.Length;
            return sum;
        }

        foreach (var token in kept)
        {
            var (prompt, position) = (token / contextSize, token % contextSize);
            if (position >= width) continue;
            sum += values[(prompt * width) + position];
            count++;
        }

        return sum;
    }

    private EvaluationResult Result()
    {
        var statistics = _reconstruction.Rows > 0;
        var model = _modelTokens > 0;
        if (_klTokens == 0 && model || _statisticTokens > 0 && !statistics)
            throw new InvalidInputException("eval: every token is excluded; exclude fewer");
        if (!model && !statistics) throw new InvalidInputException("eval: nothing was measured; ask for at least one batch");
        var (quality, shrinkage) = statistics ? _reconstruction.Results() : default;
        return new EvaluationResult
        {
            ModelBehaviorPreservation = model ? Behavior() : null,
            ModelPerformancePreservation = model ? Performance() : null,
            ReconstructionQuality = quality,
            Shrinkage = shrinkage,
            Sparsity = statistics ? _features.Results(_options.DenseAbove) : null,
            TokenStats = new TokenStats
            {
                TotalTokensEvalReconstruction = _modelTokens,
                TotalTokensEvalSparsityVariance = _statisticTokens,
                KeptTokens = Math.Max(_reconstruction.Rows, _klTokens),
            },
            FeatureMetrics = statistics ? FeatureMetricsOf.Sae(_sae, _features.Density(), _features.ConsistentActivation()) : null,
        };
    }

    private ModelBehaviorPreservation Behavior()
    {
        double sae = _klSae / _klTokens, ablated = _klAblated / _klTokens;
        return new ModelBehaviorPreservation { KlDivScore = (ablated - sae) / ablated, KlDivWithAblation = ablated, KlDivWithSae = sae };
    }

    private ModelPerformancePreservation Performance()
    {
        double clean = _ceClean / _ceTokens, sae = _ceSae / _ceTokens, ablated = _ceAblated / _ceTokens;
        return new ModelPerformancePreservation
        {
            CeLossScore = (ablated - sae) / (ablated - clean),
            CeLossWithAblation = ablated,
            CeLossWithSae = sae,
            CeLossWithoutSae = clean,
        };
    }
}
