using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// The encoder of an SAE with its selection: pre = (x - center) W_enc^T + b_enc, of which only the selected entries are
/// kept. ReLU keeps what is positive; TopK the k largest of each row (ties to the lower feature), of which the positive
/// are stored. A NaN pre-activation counts as larger than every number and is stored, so NaN in the activations reaches
/// the loss and training can stop at that step. 2 n d_in d_sae operations.
/// Gradients with respect to a selected pre-activation g_e: d(W_enc)[feature] = sum of g_e (x - center)[row] over the
/// feature's rows in order, d(b_enc)[feature] = sum of g_e, d(center) = - sum over features of d(b_enc) W_enc (no
/// product over rows needed), d(x)[row] = sum of g_e W_enc[feature], computed only if x is tracked.
/// </summary>
[Kernel]
public static partial class EncodeSelect
{
    /// <summary>max(0, pre).</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [n, d_in].</param>
    /// <param name="wEnc">F32 [d_sae, d_in]: row j is feature j's encoder direction.</param>
    /// <param name="bEnc">F32 [d_sae].</param>
    /// <param name="center">F32 [d_in], subtracted from every row (b_dec), or null if x is centred already.</param>
    /// <returns>The positive activations [n, d_sae]; differentiable in x, W_enc, b_enc and center.</returns>
    /// <exception cref="ShapeException">The sizes do not fit.</exception>
    public static SparseFeatures Relu(TensorScope scope, Tensor x, Tensor wEnc, Tensor bEnc, Tensor? center = null) =>
        Run(scope, x, wEnc, bEnc, center, 0, null, DenseFallback.Density);

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
        CheckSizes(x, wEnc, bEnc, center);
        TopKSelect.CheckK(k, wEnc.Shape[0]);
        if ((long)x.Shape[0] * k > int.MaxValue)
            throw new InvalidInputException($"encode: {k} features of each of {x.Shape[0]} rows are more than {int.MaxValue}; lower the batch size");
        if (columnScale is not null && columnScale.Count != wEnc.Shape[0])
            throw new ShapeException($"encode: {columnScale.Shape} column factors for W_enc {wEnc.Shape}");
        return Run(scope, x, wEnc, bEnc, center, k, columnScale, DenseFallback.Density);
    }

    /// <summary>The dense activations.</summary>
    /// <param name="sizes">Rows, d_in, d_sae.</param>
    /// <param name="x">[n, d_in].</param>
    /// <param name="wEnc">[d_sae, d_in].</param>
    /// <param name="bEnc">[d_sae].</param>
    /// <param name="center">[d_in], or null.</param>
    /// <param name="scale">[d_sae], or null.</param>
    /// <param name="k">0 for ReLU.</param>
    internal static double[] Reference(
        (int N, int In, int Sae) sizes, double[] x, double[] wEnc, double[] bEnc, double[]? center, double[]? scale, int k)
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

        return k == 0 ? SparseFromDense.Reference(pre, positive: true) : TopKSelect.Reference(pre, n, dsae, k, relu: true);
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        (int N, int In, int Sae, int K, bool Scale, bool Center, bool Small)[] cases =
        [
            (0, 3, 4, 0, false, false, true), (1, 1, 1, 0, false, true, true), (3, 5, 7, 0, false, true, true),
            (5, 4, 40, 0, false, false, true), (9, 7, 90, 0, false, true, false), (40, 30, 333, 0, false, true, false),
            (0, 3, 4, 2, false, false, true), (1, 1, 1, 1, true, true, true), (3, 5, 7, 2, true, true, true),
            (5, 4, 40, 7, false, false, true), (9, 7, 90, 90, false, true, false), (40, 30, 333, 12, true, true, false),
        ];
        foreach (var (n, din, dsae, k, scaled, centred, small) in cases)
        {
            var name = k == 0 ? "relu" : $"top {k}";
            KernelInput[] inputs =
            [
                new([n, din], Differentiable: n < 40), new([dsae, din], Differentiable: n < 40), new([dsae], Differentiable: n < 40),
                new([din], centred ? Fill.Normal : Fill.Zero, Differentiable: centred && n < 40), new([dsae], Fill.Positive),
            ];
            foreach (var denseFrom in new[] { 0.0, 2.0 })
            {
                yield return new KernelCase($"{name}, [{n}, {din}] to {dsae}, scale {scaled}, center {centred}, dense from {denseFrom}", inputs,
                    (scope, t) => [DenseFeatures.Of(scope, Run(scope, t[0], t[1], t[2], centred ? t[3] : null, k, scaled ? t[4] : null, denseFrom))],
                    x => [Reference((n, din, dsae), x[0], x[1], x[2], centred ? x[3] : null, scaled ? x[4] : null, k)])
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
        TensorScope scope, Tensor x, Tensor wEnc, Tensor bEnc, Tensor? center, int k, Tensor? scale, double denseFrom)
    {
        ArgumentNullException.ThrowIfNull(scope);
        CheckSizes(x, wEnc, bEnc, center);
        var recorder = scope.Recorder;
        scope.Recorder = null;
        try
        {
            var centred = center is null ? x : AddRow.Forward(scope, x, center, -1);
            var f = scope.Device is CpuDevice cpu
                ? Cpu(scope, cpu, centred, wEnc, bEnc, k, scale)
                : Gpu(scope, centred, wEnc, bEnc, k, scale);
            if (recorder is null) return f;
            var wanted = (X: recorder.Tracks(x), W: recorder.Tracks(wEnc), B: recorder.Tracks(bEnc), Center: center is not null && recorder.Tracks(center));
            recorder.Record(f.Values, center is null ? [x, wEnc, bEnc] : [x, wEnc, bEnc, center],
                dv => Backward(scope, f, centred, wEnc, scale, dv, wanted, denseFrom));
            return f;
        }
        finally
        {
            scope.Recorder = recorder;
        }
    }

    private static void CheckSizes(Tensor x, Tensor wEnc, Tensor bEnc, Tensor? center)
    {
        if (x.Shape.Rank != 2 || wEnc.Shape.Rank != 2 || x.Shape[1] != wEnc.Shape[1])
            throw new ShapeException($"encode: x is {x.Shape} but W_enc is {wEnc.Shape} [d_sae, d_in]; give x as [n, d_in]");
        if (bEnc.Count != wEnc.Shape[0]) throw new ShapeException($"encode: b_enc is {bEnc.Shape} but W_enc is {wEnc.Shape}");
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
                (dw, db) = DenseFallback.ByFeature(scope, f, g.Values, wanted.W ? centred : null, totals: true);
            }
            else
            {
                db = SumByFeature.Of(scope, f, g.Values, denseFrom);
                if (wanted.W) dw = SparseDecode.GatherByFeature(scope, f, g.Values, centred);
            }

            if (wanted.Center) dCenter = scope.Device is CpuDevice device ? CpuMix(scope, device, db!, wEnc) : GpuMix(scope, db!, wEnc);
        }

        return [wanted.X ? SparseDecode.Forward(scope, g, wEnc, null, denseFrom) : null, dw, db, dCenter];
    }
}
