using System.Numerics;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Activations;

/// <summary>
/// The generator of SynthSAEBench (Chanin and Garriga-Alonso 2026, arXiv:2602.14687), defined as in SAELens'
/// <c>SyntheticModel</c>: x = bias + sum of a_j d_j over the features that fire.
/// <list type="bullet">
/// <item>d_j: normal vectors of unit length, pushed apart by <see cref="Orthogonalization"/>.</item>
/// <item>Probabilities: Zipf's law, from max_firing_prob to min_firing_prob.</item>
/// <item>Firing: z_j = f_j . g + sqrt(1 - |f_j|^2) e_j above the normal quantile of its probability, where the common
/// causes g and e_j are standard normal and f_j is drawn once, N(0, correlation_scale^2) in correlation_rank numbers.</item>
/// <item>Magnitudes: ReLU of N(mean_j, std_j), the means falling linearly, the deviations |N(std_magnitude_mean,
/// std_magnitude_std)|.</item>
/// <item>Trees: a child fires only where its parent does, scaled by the parent's magnitude over its mean; of exclusive
/// siblings that would fire, one stays, each as likely.</item>
/// </list>
/// </summary>
/// <remarks>
/// Children are looked at only where their parent fires: about a third of the features of SynthSAEBench-16k a row.
/// </remarks>
public sealed class SynthSaeBench : GroundTruthSource
{
    private readonly float[] _directions;
    private readonly double[] _probability;
    private readonly float[] _bias;
    private readonly FeatureForest _forest;
    private readonly NormalTail _tail = new();

    /// <summary>Row k: how much each feature depends on common cause k, [correlation_rank, n_true].</summary>
    private readonly float[] _loadings;

    /// <summary>A feature fires where (threshold - f . g) * inverse deviation is below its normal number; [n_true] each.</summary>
    private readonly float[] _threshold, _inverseDeviation;

    private readonly float[] _mean, _std;

    /// <summary>Draws the world.</summary>
    /// <param name="config">Settings.</param>
    /// <exception cref="InvalidInputException">A setting is out of range.</exception>
    public SynthSaeBench(SyntheticConfig config) : base(config)
    {
        var n = config.NTrue;
        _directions = SyntheticSuperposition.DrawDirections(config);
        Orthogonalization.Run(_directions, config.DIn, config.OrthogonalizationSteps, config.OrthogonalizationLr);
        _probability = Zipf(config);
        _forest = new FeatureForest(config);
        _bias = DrawBias(config);
        (_loadings, _inverseDeviation) = DrawLoadings(config);
        var drawn = config.CompensateProbabilities ? _forest.Compensate(_probability) : _probability;
        _threshold = Array.ConvertAll(drawn, p => (float)NormalTail.Inverse(p));
        (_mean, _std) = (new float[n], new float[n]);
        var spread = new Philox(config.Seed, RandomStreams.Spread);
        for (var j = 0; j < n; j++)
        {
            _mean[j] = (float)(config.MeanMagnitudeStart + ((config.MeanMagnitudeEnd - config.MeanMagnitudeStart) * j / Math.Max(1, n - 1)));
            _std[j] = (float)Math.Abs(config.StdMagnitudeMean + (config.StdMagnitudeStd * spread.NextNormal()));
        }
    }

    /// <inheritdoc/>
    public override ReadOnlySpan<float> Directions => _directions;

    /// <inheritdoc/>
    public override IReadOnlyList<double> Probability => _probability;

    /// <summary>The offset of every row, [d_in].</summary>
    public ReadOnlySpan<float> Bias => _bias;

    /// <summary>
    /// How many of the most frequent features are in a row on average, measured on a thousand rows; directions do not
    /// matter and are not made.
    /// </summary>
    /// <param name="config">Settings.</param>
    /// <param name="first">How many features count, from the first.</param>
    /// <exception cref="InvalidInputException">A setting is out of range.</exception>
    public static double MeanActive(SyntheticConfig config, int first)
    {
        const int Rows = 1000;
        config.Validate();
        var world = new SynthSaeBench(config with { DIn = 2, OrthogonalizationSteps = 0 });
        using var device = new CpuDevice(1);
        using var scope = new TensorScope(device);
        _ = world.Next(scope, Rows, out var truth);
        return truth.Indices.ToArray<int>().Count(j => j < first) / (double)Rows;
    }

    /// <inheritdoc/>
    private protected override void Row(long number, Span<float> row, RowDraft draft)
    {
        Span<float> causes = stackalloc float[Config.CorrelationRank];
        var draws = new Philox(Config.Seed, RandomStreams.Factors(number));
        foreach (ref var g in causes) g = (float)draws.NextNormal();
        Fire(number, 0, _forest.Roots, causes, draft);
        // Behind every feature its children; the list grows while it is walked.
        for (var i = 0; i < draft.Active.Count; i++)
        {
            var (parent, strength) = draft.Active[i];
            var (first, count) = _forest.Children(parent);
            if (count == 0) continue;
            var before = draft.Active.Count;
            Fire(number, first, first + count, causes, draft);
            KeepOne(number, parent, before, draft);
            if (!Config.ScaleChildrenByParent) continue;
            var factor = strength / _mean[parent];
            for (var c = before; c < draft.Active.Count; c++) draft.Active[c] = (draft.Active[c].Feature, draft.Active[c].Value * factor);
        }

        Fire(number, _forest.InTrees, Features, causes, draft);
        draft.Active.Sort((a, b) => a.Feature.CompareTo(b.Feature));
        _bias.CopyTo(row);
        foreach (var (feature, value) in draft.Active) AddScaled(row, _directions.AsSpan(feature * Width, Width), value);
    }

    /// <summary>Adds those of a range of features that fire and are not cut off by ReLU.</summary>
    private void Fire(long number, int from, int to, ReadOnlySpan<float> causes, RowDraft draft)
    {
        if (from == to) return;
        var shift = draft.PerFeature.AsSpan(from, to - from);
        shift.Clear();
        for (var k = 0; k < causes.Length; k++) AddScaled(shift, _loadings.AsSpan((k * Features) + from, to - from), causes[k]);
        var words = draft.Words.AsSpan(0, Features + 3 & ~3);
        var stream = RandomStreams.Firing(number);
        for (var j = from & ~3; j < to; j += 4) (words[j], words[j + 1], words[j + 2], words[j + 3]) = Philox.Block(Config.Seed, stream, (ulong)j >> 2);
        for (var j = from; j < to; j++)
        {
            if (!_tail.IsAbove(words[j], (_threshold[j] - shift[j - from]) * _inverseDeviation[j])) continue;
            var magnitude = _mean[j] + (_std[j] * (float)new Philox(Config.Seed, RandomStreams.Magnitude(number), 2UL * (ulong)j).NextNormal());
            if (magnitude > 0) draft.Active.Add((j, magnitude));
        }
    }

    /// <summary>Of exclusive children that fire, one stays.</summary>
    private void KeepOne(long number, int parent, int before, RowDraft draft)
    {
        var firing = draft.Active.Count - before;
        if (firing < 2 || !_forest.IsExclusive(parent)) return;
        var winner = new Philox(Config.Seed, RandomStreams.Winner(number), (ulong)parent).NextBelow(firing);
        draft.Active[before] = draft.Active[before + winner];
        draft.Active.RemoveRange(before + 1, firing - 1);
    }

    /// <summary>y += a x, two roundings an element, so that the bits do not depend on the machine.</summary>
    private static void AddScaled(Span<float> y, ReadOnlySpan<float> x, float a)
    {
        var width = Vector<float>.Count;
        var i = 0;
        for (; i <= y.Length - width; i += width)
            (new Vector<float>(y[i..]) + (new Vector<float>(x[i..]) * a)).CopyTo(y[i..]);
        for (; i < y.Length; i++) y[i] += x[i] * a;
    }

    /// <summary>min + (max - min) (r^-a - n^-a) / (1 - n^-a) for ranks r from 1.</summary>
    private static double[] Zipf(SyntheticConfig config)
    {
        var n = config.NTrue;
        if (n == 1) return [config.MaxFiringProb];
        var last = Math.Pow(n, -config.ZipfExponent);
        return [.. Enumerable.Range(1, n).Select(r => config.MinFiringProb
            + ((config.MaxFiringProb - config.MinFiringProb) * (Math.Pow(r, -config.ZipfExponent) - last) / (1 - last)))];
    }

    private static float[] DrawBias(SyntheticConfig config)
    {
        var draws = new Philox(config.Seed, RandomStreams.Bias);
        var bias = new float[config.DIn];
        foreach (ref var b in bias.AsSpan()) b = (float)draws.NextNormal();
        var factor = (float)(config.BiasNorm / Math.Sqrt(bias.Sum(b => (double)b * b)));
        foreach (ref var b in bias.AsSpan()) b *= factor;
        return bias;
    }

    /// <summary>Loadings with at most 0.99 of a feature's variance, and one over the deviation of the rest.</summary>
    private static (float[] Loadings, float[] InverseDeviation) DrawLoadings(SyntheticConfig config)
    {
        int n = config.NTrue, rank = config.CorrelationRank;
        var loadings = new float[(long)rank * n];
        var shared = new double[n];
        for (var j = 0; j < n; j++)
        {
            var draws = new Philox(config.Seed, RandomStreams.Loading(j));
            for (var k = 0; k < rank; k++)
            {
                var f = (float)(config.CorrelationScale * draws.NextNormal());
                loadings[(k * n) + j] = f;
                shared[j] += (double)f * f;
            }
        }

        var most = shared.Max();
        var factor = most >= 1 ? Math.Sqrt(0.99 / most) : 1;
        if (factor < 1) foreach (ref var f in loadings.AsSpan()) f = (float)(f * factor);
        return (loadings, Array.ConvertAll(shared, s => (float)(1 / Math.Sqrt(1 - (s * factor * factor)))));
    }
}
