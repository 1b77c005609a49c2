using IlgpuSae.Activations;
using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Evaluation;

/// <summary>Judges an SAE by features that are known: see <see cref="GroundTruthResult"/>.</summary>
public static class GroundTruthEvaluator
{
    private const double SmallNorm = 1e-6;

    /// <summary>Measures on the source's next rows.</summary>
    /// <param name="sae">The SAE.</param>
    /// <param name="source">Where rows come from.</param>
    /// <param name="rows">How many, at least 1.</param>
    /// <param name="batchRows">Rows at once.</param>
    /// <param name="cancellation">Stops between two batches.</param>
    /// <exception cref="ShapeException">The rows do not fit the SAE.</exception>
    /// <exception cref="OperationCanceledException">The user stopped it.</exception>
    public static GroundTruthResult Run(Sae sae, GroundTruthSource source, long rows, int batchRows = 4096, CancellationToken cancellation = default)
    {
        if (source.Width != sae.Config.OutputWidth || source.Width != sae.Config.DIn)
            throw new ShapeException($"eval: the synthetic rows are {source.Width} wide but the SAE maps {sae.Config.DIn} to {sae.Config.OutputWidth} numbers");
        if (rows < 1) throw new InvalidInputException($"eval: {rows} rows; it must be at least 1");
        var cosines = Cosines(sae, source);
        var counts = new DetectorCounts(Nearest(cosines, source.Features), source.Features);
        var reconstruction = new ReconstructionStatistics(source.Width);
        var (ratios, ratioRows) = (0.0, 0L);
        for (long done = 0; done < rows;)
        {
            cancellation.ThrowIfCancellationRequested();
            using var scope = new TensorScope(sae.Device);
            var x = source.Next(scope, (int)Math.Min(batchRows, rows - done), out var truth);
            var f = sae.Encode(scope, x, out var frame);
            float[] a = x.ToArray<float>(), y = sae.Decode(scope, f, frame).ToArray<float>();
            counts.Add(truth, f);
            reconstruction.Add(a, y);
            for (var at = 0; at < a.Length; at += source.Width)
            {
                double normIn = Norm(a.AsSpan(at, source.Width)), normOut = Norm(y.AsSpan(at, source.Width));
                if (normIn <= SmallNorm) continue;
                ratios += normOut / normIn;
                ratioRows++;
            }

            done += x.Shape[0];
        }

        return new GroundTruthResult
        {
            Rows = counts.Rows,
            TrueL0 = counts.TrueL0,
            SaeL0 = counts.SaeL0,
            DeadLatents = counts.Dead,
            Shrinkage = ratioRows == 0 ? 0 : ratios / ratioRows,
            ExplainedVariance = reconstruction.Results().Quality.ExplainedVariance,
            Mcc = Mcc(cosines, sae.Config.DSae, source.Features),
            Mmcs = Mmcs(cosines, source.Features),
            Uniqueness = (double)counts.DifferentTargets / sae.Config.DSae,
            Classification = counts.Classification(),
        };
    }

    /// <summary>|cosine| of each decoder row with each true direction, [d_sae, n_true]; 0 for rows of zeros.</summary>
    private static float[] Cosines(Sae sae, GroundTruthSource source)
    {
        using var scope = new TensorScope(sae.Device);
        var decoder = sae.WDec.ToArray<float>();
        for (var at = 0; at < decoder.Length; at += source.Width)
        {
            var row = decoder.AsSpan(at, source.Width);
            var factor = 1 / Math.Max(Norm(row), 1e-8);
            foreach (ref var v in row) v = (float)(v * factor);
        }

        var products = Gemm.Multiply(scope, scope.From<float>(decoder, [sae.Config.DSae, source.Width]),
            scope.From<float>(source.Directions, [source.Features, source.Width]), transposeB: true).ToArray<float>();
        foreach (ref var v in products.AsSpan()) v = Math.Abs(v);
        return products;
    }

    private static int[] Nearest(float[] cosines, int features)
    {
        var nearest = new int[cosines.Length / features];
        for (var j = 0; j < nearest.Length; j++)
        {
            var row = cosines.AsSpan(j * features, features);
            for (var t = 1; t < features; t++)
                if (row[t] > row[nearest[j]]) nearest[j] = t;
        }

        return nearest;
    }

    private static double Mcc(float[] cosines, int latents, int features)
    {
        var match = OptimalAssignment.Maximize(cosines, latents, features);
        double sum = 0;
        for (var j = 0; j < latents; j++)
            if (match[j] >= 0) sum += cosines[(j * features) + match[j]];
        return sum / Math.Min(latents, features);
    }

    private static double Mmcs(float[] cosines, int features)
    {
        var best = new float[features];
        for (var at = 0; at < cosines.Length; at += features)
            for (var t = 0; t < features; t++) best[t] = Math.Max(best[t], cosines[at + t]);
        return best.Average(b => (double)b);
    }

    private static double Norm(ReadOnlySpan<float> row)
    {
        double squares = 0;
        foreach (var v in row) squares += (double)v * v;
        return Math.Sqrt(squares);
    }
}

/// <summary>Counts how features fire beside the true features nearest to them.</summary>
/// <param name="target">The true feature of each of the SAE's features, [d_sae].</param>
/// <param name="features">n_true.</param>
internal sealed class DetectorCounts(int[] target, int features)
{
    private readonly long[] _fired = new long[target.Length];
    private readonly long[] _hits = new long[target.Length];
    private readonly long[] _present = new long[features];
    private readonly long[] _lastRow = NewLast(features);
    private long _trueEntries, _entries;

    /// <summary>Rows counted.</summary>
    public long Rows { get; private set; }

    /// <summary>Mean number of true features in a row.</summary>
    public double TrueL0 => (double)_trueEntries / Rows;

    /// <summary>Mean number of features that fire on a row.</summary>
    public double SaeL0 => (double)_entries / Rows;

    /// <summary>Features that never fired.</summary>
    public int Dead => _fired.Count(f => f == 0);

    /// <summary>True features that are some feature's target.</summary>
    public int DifferentTargets => target.Distinct().Count();

    /// <summary>Counts a batch.</summary>
    /// <param name="truth">[rows, n_true].</param>
    /// <param name="found">[rows, d_sae].</param>
    public void Add(SparseFeatures truth, SparseFeatures found)
    {
        int[] trueOffsets = truth.RowOffsets.ToArray<int>(), trueIndices = truth.Indices.ToArray<int>();
        int[] offsets = found.RowOffsets.ToArray<int>(), indices = found.Indices.ToArray<int>();
        var values = found.Values.ToArray<float>();
        for (var r = 0; r < truth.Rows; r++, Rows++)
        {
            for (var e = trueOffsets[r]; e < trueOffsets[r + 1]; e++)
            {
                _present[trueIndices[e]]++;
                _lastRow[trueIndices[e]] = Rows;
                _trueEntries++;
            }

            for (var e = offsets[r]; e < offsets[r + 1]; e++)
            {
                if (values[e] == 0) continue;
                var j = indices[e];
                _entries++;
                _fired[j]++;
                if (_lastRow[target[j]] == Rows) _hits[j]++;
            }
        }
    }

    /// <summary>Precision, recall, F1 and accuracy of each feature, averaged.</summary>
    public LatentClassification Classification()
    {
        double precision = 0, recall = 0, f1 = 0, accuracy = 0;
        for (var j = 0; j < target.Length; j++)
        {
            double hits = _hits[j], fired = _fired[j], present = _present[target[j]];
            var p = fired > 0 ? hits / fired : 0;
            var r = present > 0 ? hits / present : 0;
            precision += p;
            recall += r;
            f1 += p + r > 0 ? 2 * p * r / (p + r) : 0;
            accuracy += (Rows - fired - present + (2 * hits)) / Rows;
        }

        var n = target.Length;
        return new LatentClassification(precision / n, recall / n, f1 / n, accuracy / n);
    }

    private static long[] NewLast(int features)
    {
        var last = new long[features];
        Array.Fill(last, -1);
        return last;
    }
}
