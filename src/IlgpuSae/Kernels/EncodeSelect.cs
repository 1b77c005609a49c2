using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// The encoder of an SAE with its selection: pre = (x - center) W_enc^T + b_enc, of which only the selected entries are
/// kept. ReLU keeps what is positive; TopK the k largest of each row (ties to the lower feature), of which the positive
/// are stored; AbsTopK the k of largest magnitude; BatchTopK the largest of the whole batch; with limits, what lies above its
/// feature's limit is kept (JumpReLU, the gate of a gated SAE). A NaN pre-activation counts as larger than every number and is stored, so NaN in the activations reaches
/// the loss and training can stop at that step. 2 n d_in d_sae operations.
/// Gradients with respect to a selected pre-activation g_e: d(W_enc)[feature] = sum of g_e (x - center)[row] over the
/// feature's rows in order, d(b_enc)[feature] = sum of g_e, d(center) = - sum over features of d(b_enc) W_enc (no
/// product over rows needed), d(x)[row] = sum of g_e W_enc[feature], computed only if x is tracked.
/// </summary>
[Kernel]
public static partial class EncodeSelect
{
    /// <summary>Rows from which BatchTopK's limit is guessed: 2 percent of a batch of 4096.</summary>
    private const int SampleRows = 96;

    /// <summary>How many more than wanted the guessed limit should let pass: rows differ, candidates are cheap.</summary>
    private const double SampleSlack = 1.5;

    /// <summary>What of the pre-activations is kept.</summary>
    private enum Keep
    {
        Positive,
        Above,
        Largest,
        LargestMagnitudes,
        LargestOfBatch,
    }

    /// <summary>What is kept, how many, the features' factors and limits.</summary>
    private readonly record struct Selection(Keep Keep, long Count = 0, Tensor? Scale = null, Tensor? Limits = null);

    /// <summary>max(0, pre).</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [n, d_in].</param>
    /// <param name="wEnc">F32 [d_sae, d_in]: row j is feature j's encoder direction.</param>
    /// <param name="bEnc">F32 [d_sae].</param>
    /// <param name="center">F32 [d_in], subtracted from every row (b_dec), or null if x is centred already.</param>
    /// <returns>The positive activations [n, d_sae]; differentiable in x, W_enc, b_enc and center.</returns>
    /// <exception cref="ShapeException">The sizes do not fit.</exception>
    public static SparseFeatures Relu(TensorScope scope, Tensor x, Tensor wEnc, Tensor bEnc, Tensor? center = null) =>
        Run(scope, x, wEnc, bEnc, center, new Selection(Keep.Positive), DenseFallback.Density);

    /// <summary>The pre-activations above their feature's limit, as they are.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [n, d_in].</param>
    /// <param name="wEnc">F32 [d_sae, d_in]: row j is feature j's encoder direction.</param>
    /// <param name="bEnc">F32 [d_sae]; null: no bias.</param>
    /// <param name="limits">F32 [d_sae], of any sign; a constant for the gradient.</param>
    /// <param name="center">F32 [d_in], subtracted from every row (b_dec), or null if x is centred already.</param>
    /// <returns>Pre-activations [n, d_sae]; differentiable in x, W_enc, b_enc and center.</returns>
    /// <exception cref="ShapeException">The sizes do not fit.</exception>
    public static SparseFeatures Above(TensorScope scope, Tensor x, Tensor wEnc, Tensor? bEnc, Tensor limits, Tensor? center = null)
    {
        CheckSizes(x, wEnc, bEnc, center);
        if (limits.Count != wEnc.Shape[0]) throw new ShapeException($"encode: {limits.Shape} limits for W_enc {wEnc.Shape}");
        return Run(scope, x, wEnc, bEnc, center, new Selection(Keep.Above, Limits: limits), DenseFallback.Density);
    }

    /// <summary>The k largest pre-activations of each row, of which the positive ones are stored.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [n, d_in].</param>
    /// <param name="wEnc">F32 [d_sae, d_in]: row j is feature j's encoder direction.</param>
    /// <param name="bEnc">F32 [d_sae].</param>
    /// <param name="k">How many, 1..d_sae.</param>
    /// <param name="columnScale">
    /// F32 [d_sae]: pre-activations are multiplied by their feature's factor before the selection and stored so (the
    /// decoder's norms, for <c>rescale_acts_by_decoder_norm</c>); a constant for the gradient. Null for none.
    /// </param>
    /// <param name="center">F32 [d_in], subtracted from every row (b_dec), or null if x is centred already.</param>
    /// <returns>At most k activations a row [n, d_sae]; differentiable in x, W_enc, b_enc and center.</returns>
    /// <exception cref="ShapeException">The sizes do not fit.</exception>
    /// <exception cref="InvalidInputException"><paramref name="k"/> is not between 1 and d_sae.</exception>
    public static SparseFeatures TopK(
        TensorScope scope, Tensor x, Tensor wEnc, Tensor bEnc, int k, Tensor? columnScale = null, Tensor? center = null)
    {
        CheckTop(x, wEnc, bEnc, k, columnScale, center);
        return Run(scope, x, wEnc, bEnc, center, new Selection(Keep.Largest, k, columnScale), DenseFallback.Density);
    }

    /// <summary>The k pre-activations of largest magnitude of each row, with their signs; those that are 0 are not stored.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [n, d_in].</param>
    /// <param name="wEnc">F32 [d_sae, d_in]: row j is feature j's encoder direction.</param>
    /// <param name="bEnc">F32 [d_sae].</param>
    /// <param name="k">How many, 1..d_sae.</param>
    /// <param name="columnScale">F32 [d_sae], as in <see cref="TopK"/>; null for none.</param>
    /// <param name="center">F32 [d_in], subtracted from every row (b_dec), or null if x is centred already.</param>
    /// <returns>At most k activations a row [n, d_sae]; differentiable in x, W_enc, b_enc and center.</returns>
    /// <exception cref="ShapeException">The sizes do not fit.</exception>
    /// <exception cref="InvalidInputException"><paramref name="k"/> is not between 1 and d_sae.</exception>
    public static SparseFeatures AbsTopK(
        TensorScope scope, Tensor x, Tensor wEnc, Tensor bEnc, int k, Tensor? columnScale = null, Tensor? center = null)
    {
        CheckTop(x, wEnc, bEnc, k, columnScale, center);
        return Run(scope, x, wEnc, bEnc, center, new Selection(Keep.LargestMagnitudes, k, columnScale), DenseFallback.Density);
    }

    /// <summary>The largest pre-activations of the whole batch, wherever they are, of which the positive ones are stored.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [n, d_in].</param>
    /// <param name="wEnc">F32 [d_sae, d_in]: row j is feature j's encoder direction.</param>
    /// <param name="bEnc">F32 [d_sae].</param>
    /// <param name="count">How many in all, at least 0. Ties go to the lower row, then to the lower feature.</param>
    /// <param name="columnScale">F32 [d_sae], as in <see cref="TopK"/>; null for none.</param>
    /// <param name="center">F32 [d_in], subtracted from every row (b_dec), or null if x is centred already.</param>
    /// <returns>At most that many activations [n, d_sae]; differentiable in x, W_enc, b_enc and center.</returns>
    /// <exception cref="ShapeException">The sizes do not fit.</exception>
    /// <exception cref="InvalidInputException"><paramref name="count"/> is negative or too large.</exception>
    public static SparseFeatures BatchTopK(
        TensorScope scope, Tensor x, Tensor wEnc, Tensor bEnc, long count, Tensor? columnScale = null, Tensor? center = null)
    {
        CheckSizes(x, wEnc, bEnc, center);
        if (count is < 0 or > int.MaxValue)
            throw new InvalidInputException($"encode: {count} features of a batch of {x.Shape[0]} rows are not between 0 and {int.MaxValue}; lower the batch size");
        CheckScale(wEnc, columnScale);
        return Run(scope, x, wEnc, bEnc, center, new Selection(Keep.LargestOfBatch, count, columnScale), DenseFallback.Density);
    }

    /// <summary>The dense activations.</summary>
    /// <param name="sizes">Rows, d_in, d_sae.</param>
    /// <param name="x">[n, d_in].</param>
    /// <param name="wEnc">[d_sae, d_in].</param>
    /// <param name="bEnc">[d_sae].</param>
    /// <param name="center">[d_in], or null.</param>
    /// <param name="scale">[d_sae], or null.</param>
    /// <param name="keep">What is kept.</param>
    /// <param name="count">Of a row, or of the batch.</param>
    /// <param name="limits">[d_sae], or null.</param>
    private static double[] Reference(
        (int N, int In, int Sae) sizes, double[] x, double[] wEnc, double[] bEnc, double[]? center, double[]? scale, Keep keep, int count, double[] limits)
    {
        var (n, din, dsae) = sizes;
        var pre = new double[n * dsae];
        for (var r = 0; r < n; r++)
        {
            for (var c = 0; c < dsae; c++)
            {
                var sum = bEnc[c];
                for (var j = 0; j < din; j++) sum += (x[(r * din) + j] - (center?[j] ?? 0)) * wEnc[(c * din) + j];
                pre[(r * dsae) + c] = sum * (scale?[c] ?? 1);
            }
        }

        return keep switch
        {
            Keep.Positive => SparseFromDense.Reference(pre, positive: true),
            Keep.Above => SelectAbove.Reference(pre, limits),
            Keep.Largest => TopKSelect.Reference(pre, n, dsae, count, Ranking.Positive),
            Keep.LargestMagnitudes => TopKSelect.Reference(pre, n, dsae, count, Ranking.Magnitude),
            _ => LargestOfBatch.Reference(SparseCase.Random(n, dsae, 1), pre, count),
        };
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        (int N, int In, int Sae, int K, bool Scale, bool Center, bool Small)[] plain =
        [
            (0, 3, 4, 0, false, false, true), (1, 1, 1, 0, false, true, true), (3, 5, 7, 0, false, true, true),
            (5, 4, 40, 0, false, false, true), (9, 7, 90, 0, false, true, false), (40, 30, 333, 0, false, true, false),
        ];
        (int N, int In, int Sae, int K, bool Scale, bool Center, bool Small)[] top =
        [
            (0, 3, 4, 2, false, false, true), (1, 1, 1, 1, true, true, true), (3, 5, 7, 2, true, true, true),
            (5, 4, 40, 7, false, false, true), (9, 7, 90, 90, false, true, false), (40, 30, 333, 12, true, true, false),
        ];
        // From 400 rows on the limit is guessed from a sample.
        (int N, int In, int Sae, int K, bool Scale, bool Center, bool Small)[] batch =
            [.. top.Take(3), (5, 4, 40, 31, false, false, true), (40, 30, 333, 400, true, true, false), (500, 9, 64, 1700, true, true, false)];
        var cases = plain.Select(c => (Keep: Keep.Positive, c)).Concat(plain.Select(c => (Keep.Above, c))).Concat(top.Select(c => (Keep.Largest, c)))
            .Concat(top.Select(c => (Keep.LargestMagnitudes, c))).Concat(batch.Select(c => (Keep.LargestOfBatch, c)));
        foreach (var (keep, (n, din, dsae, k, scaled, centred, small)) in cases)
        {
            var name = $"{keep} {k}";
            KernelInput[] inputs =
            [
                new([n, din], Differentiable: n < 40), new([dsae, din], Differentiable: n < 40), new([dsae], Differentiable: n < 40),
                new([din], centred ? Fill.Normal : Fill.Zero, Differentiable: centred && n < 40), new([dsae], Fill.Positive), new([dsae]),
            ];
            foreach (var denseFrom in new[] { 0.0, 2.0 })
            {
                yield return new KernelCase($"{name}, [{n}, {din}] to {dsae}, scale {scaled}, center {centred}, dense from {denseFrom}", inputs,
                    (scope, t) => [DenseFeatures.Of(scope, Run(
                        scope, t[0], t[1], t[2], centred ? t[3] : null, new Selection(keep, k, scaled ? t[4] : null, keep == Keep.Above ? t[5] : null), denseFrom))],
                    x => [Reference((n, din, dsae), x[0], x[1], x[2], centred ? x[3] : null, scaled ? x[4] : null, keep, k, x[5])])
                { OnIlgpuCpu = small };
            }
        }

        foreach (var k in new[] { 0, 2 })
        {
            // Three features see NaN or infinity; NaN wins, infinity is a number like others.
            yield return new KernelCase($"NaN and infinity, k {k}",
                [
                    new([1, 1], Fill.Given, Values: [1]), new([4, 1], Fill.Given, Values: [1, double.PositiveInfinity, double.NaN, double.NegativeInfinity]),
                    new([4], Fill.Zero),
                ],
                (scope, t) =>
                {
                    var f = k == 0 ? Relu(scope, t[0], t[1], t[2]) : TopK(scope, t[0], t[1], t[2], k);
                    return [f.Indices, f.Values];
                },
                _ => k == 0 ? [[0, 1, 2], [1, double.PositiveInfinity, double.NaN]] : [[1, 2], [double.PositiveInfinity, double.NaN]]);
        }
    }

    private static SparseFeatures Run(
        TensorScope scope, Tensor x, Tensor wEnc, Tensor? bEnc, Tensor? center, Selection selection, double denseFrom)
    {
        ArgumentNullException.ThrowIfNull(scope);
        CheckSizes(x, wEnc, bEnc, center);
        var recorder = scope.Recorder;
        scope.Recorder = null;
        try
        {
            var centred = center is null ? x : AddRow.Forward(scope, x, center, -1);
            var f = selection.Keep == Keep.LargestOfBatch ? OfBatch(scope, centred, wEnc, bEnc, selection)
                : scope.Device is CpuDevice cpu ? Cpu(scope, cpu, centred, wEnc, bEnc, selection)
                : Gpu(scope, centred, wEnc, bEnc, selection);
            if (recorder is null) return f;
            var wanted = (X: recorder.Tracks(x), W: recorder.Tracks(wEnc), B: bEnc is not null && recorder.Tracks(bEnc), Center: center is not null && recorder.Tracks(center));
            // W_enc stands in for what is absent; the gradient of that place is null.
            recorder.Record(f.Values, [x, wEnc, bEnc ?? wEnc, center ?? wEnc],
                dv => Backward(scope, f, centred, wEnc, selection.Scale, dv, wanted, denseFrom));
            return f;
        }
        finally
        {
            scope.Recorder = recorder;
        }
    }

    /// <summary>
    /// The largest of the batch: what lies above a limit that surely is none too high is collected in the product's
    /// epilogue, and the largest of that are kept. The limit is a guess from a sample of rows; should it leave too few, the
    /// product is made again with a lower one. The result does not depend on it.
    /// </summary>
    private static SparseFeatures OfBatch(TensorScope scope, Tensor x, Tensor wEnc, Tensor? bEnc, Selection selection)
    {
        var limit = GuessLimit(scope, x, wEnc, bEnc, selection, SampleSlack);
        var candidates = AboveOne(scope, x, wEnc, bEnc, selection.Scale, limit);
        if (limit > 0 && candidates.EntryCount < selection.Count)
        {
            Release(scope, candidates);
            limit = GuessLimit(scope, x, wEnc, bEnc, selection, 4 * SampleSlack);
            candidates = AboveOne(scope, x, wEnc, bEnc, selection.Scale, limit);
        }

        if (limit > 0 && candidates.EntryCount < selection.Count)
        {
            Release(scope, candidates);
            candidates = AboveOne(scope, x, wEnc, bEnc, selection.Scale, 0);
        }

        var f = LargestOfBatch.Of(scope, candidates, selection.Count);
        Release(scope, candidates);
        return f;
    }

    /// <summary>A value that more than the wanted number of pre-activations exceed if the sampled rows are like the others.</summary>
    private static float GuessLimit(TensorScope scope, Tensor x, Tensor wEnc, Tensor? bEnc, Selection selection, double slack)
    {
        var n = x.Shape[0];
        if (n < 4 * SampleRows) return 0;
        var wanted = (long)Math.Ceiling(slack * selection.Count * SampleRows / n);
        int[] chosen = [.. Enumerable.Range(0, SampleRows).Select(i => (int)(((2L * i) + 1) * n / (2 * SampleRows)))];
        var ids = scope.From<int>(chosen, [SampleRows]);
        var rows = GatherRows.Forward(scope, x, ids);
        var positive = AboveOne(scope, rows, wEnc, bEnc, selection.Scale, 0);
        var largest = LargestOfBatch.Of(scope, positive, wanted);
        var limit = largest.EntryCount < wanted ? 0 : SmallestPositive.Of(scope, largest.Values).Scalar();
        scope.Release(ids);
        scope.Release(rows);
        Release(scope, positive);
        Release(scope, largest);
        return float.IsFinite(limit) ? limit : 0;
    }

    private static SparseFeatures AboveOne(TensorScope scope, Tensor x, Tensor wEnc, Tensor? bEnc, Tensor? scale, float limit)
    {
        var values = new float[wEnc.Shape[0]];
        Array.Fill(values, limit);
        var limits = scope.From<float>(values, [values.Length]);
        var selection = new Selection(Keep.Above, Scale: scale, Limits: limits);
        var f = scope.Device is CpuDevice cpu ? Cpu(scope, cpu, x, wEnc, bEnc, selection) : Gpu(scope, x, wEnc, bEnc, selection);
        scope.Release(limits);
        return f;
    }

    private static void Release(TensorScope scope, SparseFeatures f)
    {
        scope.Release(f.RowOffsets);
        scope.Release(f.Indices);
        scope.Release(f.Values);
    }

    private static void CheckTop(Tensor x, Tensor wEnc, Tensor bEnc, int k, Tensor? columnScale, Tensor? center)
    {
        CheckSizes(x, wEnc, bEnc, center);
        TopKSelect.CheckK(k, wEnc.Shape[0]);
        if ((long)x.Shape[0] * k > int.MaxValue)
            throw new InvalidInputException($"encode: {k} features of each of {x.Shape[0]} rows are more than {int.MaxValue}; lower the batch size");
        CheckScale(wEnc, columnScale);
    }

    private static void CheckScale(Tensor wEnc, Tensor? columnScale)
    {
        if (columnScale is not null && columnScale.Count != wEnc.Shape[0])
            throw new ShapeException($"encode: {columnScale.Shape} column factors for W_enc {wEnc.Shape}");
    }

    private static void CheckSizes(Tensor x, Tensor wEnc, Tensor? bEnc, Tensor? center)
    {
        if (x.Shape.Rank != 2 || wEnc.Shape.Rank != 2 || x.Shape[1] != wEnc.Shape[1])
            throw new ShapeException($"encode: x is {x.Shape} but W_enc is {wEnc.Shape} [d_sae, d_in]; give x as [n, d_in]");
        if (bEnc is not null && bEnc.Count != wEnc.Shape[0]) throw new ShapeException($"encode: b_enc is {bEnc.Shape} but W_enc is {wEnc.Shape}");
        if (center is not null && center.Count != x.Shape[1])
            throw new ShapeException($"encode: the bias to subtract is {center.Shape} but x is {x.Shape}");
    }

    private static Tensor?[] Backward(
        TensorScope scope, SparseFeatures f, Tensor centred, Tensor wEnc, Tensor? scale, Tensor dValues,
        (bool X, bool W, bool B, bool Center) wanted, double denseFrom)
    {
        var g = f.With(dValues);
        if (scale is not null) g = SparseScale.Columns(scope, g, scale);
        Tensor? dw = null, db = null, dCenter = null;
        if (wanted.W || wanted.B || wanted.Center)
        {
            if (f.Density >= denseFrom)
            {
                (dw, db) = DenseFallback.ByFeature(scope, f, g.Values, wanted.W ? centred : null, totals: wanted.B || wanted.Center);
            }
            else
            {
                if (wanted.B || wanted.Center) db = SumByFeature.Of(scope, f, g.Values, denseFrom);
                if (wanted.W) dw = SparseDecode.GatherByFeature(scope, f, g.Values, centred);
            }

            if (wanted.Center) dCenter = scope.Device is CpuDevice device ? CpuMix(scope, device, db!, wEnc) : GpuMix(scope, db!, wEnc);
        }

        return [wanted.X ? SparseDecode.Forward(scope, g, wEnc, null, denseFrom) : null, dw, wanted.B ? db : null, dCenter];
    }
}
