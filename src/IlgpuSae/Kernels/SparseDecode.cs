using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Decoding of sparse activations: y[r] = b_dec + sum over the entries of row r of value * W_dec[feature], in the order
/// of the features. O(nnz d_out) instead of O(n d_sae d_out). Gradients: d(value) = dy[row] . W_dec[feature];
/// d(W_dec)[feature] = sum of value * dy[row] over the feature's rows in ascending order (through
/// <see cref="SparseTranspose"/>), zero for a feature that did not fire; d(b_dec) = sum of dy over the rows.
/// </summary>
[Kernel]
public static partial class SparseDecode
{
    private const int PieceRows = 16;
    private const int PieceFeatures = 16;

    /// <summary>Density from which neighbouring rows share enough features to go through W_dec in chunks.</summary>
    private const double SharedDensity = 0.03;

    /// <summary>Floats of such a chunk: 512 KB.</summary>
    private const int SharedWeights = 128 << 10;

    /// <summary>Elements (64 MB) from which a gradient is written past the caches, which could not hold it anyway.</summary>
    private const long PastCaches = 16 << 20;

    /// <summary>y = f W_dec + b_dec.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="f">Activations [n, d_sae].</param>
    /// <param name="wDec">F32 [d_sae, d_out]: row j is feature j's direction.</param>
    /// <param name="bDec">F32 [d_out], or null for none.</param>
    /// <returns>F32 [n, d_out]; differentiable in the values, W_dec and b_dec.</returns>
    /// <exception cref="ShapeException">d_sae or d_out differ.</exception>
    public static Tensor Forward(TensorScope scope, SparseFeatures f, Tensor wDec, Tensor? bDec = null) =>
        Forward(scope, f, wDec, bDec, DenseFallback.Density);

    /// <summary>As the public form, dense from a given density on.</summary>
    internal static Tensor Forward(TensorScope scope, SparseFeatures f, Tensor wDec, Tensor? bDec, double denseFrom)
    {
        ArgumentNullException.ThrowIfNull(f);
        if (wDec.Shape.Rank != 2 || wDec.Shape[0] != f.Columns)
            throw new ShapeException($"decode: W_dec is {wDec.Shape}, the activations are [{f.Rows}, {f.Columns}]");
        if (bDec is not null && bDec.Count != wDec.Shape[1])
            throw new ShapeException($"decode: b_dec is {bDec.Shape}, W_dec is {wDec.Shape}");
        var recorder = scope.Recorder;
        Tensor y;
        try
        {
            // The product that stands in for a dense batch is no operation of its own on the tape.
            scope.Recorder = null;
            y = f.Density >= denseFrom ? DenseFallback.Decode(scope, f, wDec, bDec) : Sparse(scope, f, wDec, bDec);
        }
        finally
        {
            scope.Recorder = recorder;
        }

        if (recorder is not null)
        {
            bool values = recorder.Tracks(f.Values), weights = recorder.Tracks(wDec), bias = bDec is not null && recorder.Tracks(bDec);
            recorder.Record(y, bDec is null ? [f.Values, wDec] : [f.Values, wDec, bDec], dy =>
            {
                var (dValues, dWeights) = Backward(scope, f, wDec, dy, values, weights, denseFrom);
                return bDec is null ? [dValues, dWeights] : [dValues, dWeights, bias ? SumRows.Of(scope, dy, bDec.Shape) : null];
            });
        }

        return y;
    }

    internal static double[] Reference(SparseCase p, double[] values, double[] wDec, double[]? bDec)
    {
        var d = p.Columns == 0 ? 0 : wDec.Length / p.Columns;
        var y = new double[p.Rows * d];
        for (var r = 0; r < p.Rows; r++)
        {
            for (var j = 0; j < d; j++)
            {
                var sum = bDec?[j] ?? 0;
                for (var e = p.Offsets[r]; e < p.Offsets[r + 1]; e++) sum += values[e] * wDec[(p.Indices[e] * d) + j];
                y[(r * d) + j] = sum;
            }
        }

        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        (SparseCase Pattern, int Width, bool Bias, bool Small)[] cases =
        [
            (SparseCase.Random(0, 3, 0), 4, true, true),
            (SparseCase.Random(2, 3, 0), 5, true, true),
            (SparseCase.Random(1, 1, 1), 1, false, true),
            (SparseCase.Random(7, 11, 0.4), 13, true, true),
            (SparseCase.Random(9, 5, 1), 17, false, true),
            (SparseCase.Random(70, 90, 0.1), 37, true, false),
        ];
        foreach (var (p, width, bias, small) in cases)
        {
            KernelInput[] inputs = [p.OffsetsInput, p.IndicesInput, new([p.Count], Differentiable: true), new([p.Columns, width], Differentiable: true)];
            if (bias) inputs = [.. inputs, new([width], Differentiable: true)];
            foreach (var denseFrom in new[] { 0.0, 2.0 })
            {
                yield return new KernelCase($"[{p.Rows}, {p.Columns}] to {width}, dense from {denseFrom}", inputs,
                    (scope, t) => [Forward(scope, p.Of(t[0], t[1], t[2]), t[3], bias ? t[4] : null, denseFrom)],
                    x => [Reference(p, x[2], x[3], bias ? x[4] : null)])
                { OnIlgpuCpu = small };
            }
        }
    }

    /// <summary>y[c] = sum over the entries of feature c, in row order, of factor * x[row]; zero where there is none.</summary>
    internal static Tensor GatherByFeature(TensorScope scope, SparseFeatures f, Tensor factors, Tensor x)
    {
        var y = scope.New([f.Columns, x.Shape[1]]);
        if (y.Count == 0) return y;
        var columns = SparseTranspose.Of(scope, f);
        if (scope.Device is CpuDevice cpu) CpuByFeature(cpu, columns, factors, null, x, null, y);
        else GpuGatherByFeature((GpuDevice)scope.Device, f, columns, factors, x, y);
        return y;
    }

    private static Tensor Sparse(TensorScope scope, SparseFeatures f, Tensor wDec, Tensor? bDec)
    {
        var y = scope.New([f.Rows, wDec.Shape[1]]);
        if (y.Count == 0) return y;
        if (scope.Device is CpuDevice cpu) Cpu(cpu, f, wDec, bDec, y);
        else Gpu((GpuDevice)scope.Device, f, wDec, bDec, y);
        return y;
    }

    private static (Tensor? Values, Tensor? Weights) Backward(
        TensorScope scope, SparseFeatures f, Tensor wDec, Tensor dy, bool values, bool weights, double denseFrom)
    {
        if (!values && !weights) return (null, null);
        if (f.Density >= denseFrom)
        {
            return (values ? DenseFallback.Products(scope, f, dy, wDec) : null,
                weights ? DenseFallback.ByFeature(scope, f, f.Values, dy, totals: false).Sums : null);
        }

        var dValues = values ? scope.New([f.EntryCount]) : null;
        var dWeights = weights ? scope.New(wDec.Shape) : null;
        var columns = SparseTranspose.Of(scope, f);
        if (scope.Device is CpuDevice cpu) CpuByFeature(cpu, columns, f.Values, wDec, dy, dValues, dWeights);
        else GpuBackward((GpuDevice)scope.Device, f, columns, wDec, dy, dValues, dWeights);
        return (dValues, dWeights);
    }

    private static unsafe void Cpu(CpuDevice device, SparseFeatures f, Tensor wDec, Tensor? bDec, Tensor y)
    {
        int* offsets = f.RowOffsets.I32, indices = f.Indices.I32;
        float* values = f.Values.F32, w = wDec.F32, py = y.F32, bias = bDec is null ? null : bDec.F32;
        var d = wDec.Shape[1];
        // Where many rows share features, a chunk of W_dec serves a piece's rows from the second-level cache before the
        // next is touched. The order of each row's terms is the same.
        var chunk = f.Density < SharedDensity ? f.Columns : Math.Max(16, SharedWeights / Math.Max(1, d));
        var pieceRows = f.Density < SharedDensity ? PieceRows : 4 * PieceRows;
        device.Pool.ForRange(f.Rows, pieceRows, (from, to) =>
        {
            var next = stackalloc int[4 * PieceRows];
            for (var r = from; r < to; r++)
            {
                next[r - from] = offsets[r];
                if (bias == null) new Span<float>(py + (r * d), d).Clear();
                else Buffer.MemoryCopy(bias, py + (r * d), d * 4L, d * 4L);
            }

            for (var limit = (long)chunk; ; limit += chunk)
            {
                for (var r = from; r < to; r++)
                {
                    var o = py + (r * d);
                    int e = next[r - from], end = offsets[r + 1];
                    for (; e + 4 <= end && indices[e + 3] < limit; e += 4)
                    {
                        RowMath.Axpy4(o, w + ((long)indices[e] * d), w + ((long)indices[e + 1] * d), w + ((long)indices[e + 2] * d),
                            w + ((long)indices[e + 3] * d), values[e], values[e + 1], values[e + 2], values[e + 3], d);
                    }

                    for (; e < end && indices[e] < limit; e++) RowMath.Axpy(o, w + ((long)indices[e] * d), values[e], d);
                    next[r - from] = e;
                }

                if (limit >= f.Columns) break;
            }
        });
    }

    /// <summary>
    /// By feature: its weights and its gradient stay in the first-level cache while the rows in which it fired pass by.
    /// </summary>
    /// <param name="device">The workers.</param>
    /// <param name="columns">The pattern by feature.</param>
    /// <param name="factors">F32 [nnz].</param>
    /// <param name="w">F32 [d_sae, d], for the products.</param>
    /// <param name="x">F32 [n, d].</param>
    /// <param name="products">Receives x[row] . w[feature] of each entry; null: not wanted.</param>
    /// <param name="sums">Receives the sum of factor * x[row] of each feature; null: not wanted.</param>
    private static unsafe void CpuByFeature(
        CpuDevice device, SparseColumns columns, Tensor factors, Tensor? w, Tensor x, Tensor? products, Tensor? sums)
    {
        int* offsets = columns.ColumnOffsets.I32, rows = columns.RowIndices.I32, entries = columns.Entries.I32;
        float* values = factors.F32, px = x.F32, pw = w is null ? null : w.F32;
        float* dots = products is null ? null : products.F32, py = sums is null ? null : sums.F32;
        var d = x.Shape[1];
        var count = checked((int)columns.ColumnOffsets.Count - 1);
        // Sums are built in a row of scratch memory a thread, which stays in the first-level cache.
        var stride = (d + 31) & ~15;
        using var scratch = new Tensor(device, [device.Threads, stride]);
        var local = scratch.F32;
        var pastCaches = (long)count * d >= PastCaches;
        device.Pool.For((count + PieceFeatures - 1) / PieceFeatures, (piece, thread) =>
        {
            var o = local + ((long)thread * stride);
            var four = stackalloc float[4];
            for (var c = piece * PieceFeatures; c < Math.Min(count, (piece + 1) * PieceFeatures); c++)
            {
                int e = offsets[c], end = offsets[c + 1];
                var weights = pw + ((long)c * d);
                new Span<float>(o, d).Clear();
                for (; e + 4 <= end; e += 4)
                {
                    float* x0 = px + ((long)rows[e] * d), x1 = px + ((long)rows[e + 1] * d), x2 = px + ((long)rows[e + 2] * d), x3 = px + ((long)rows[e + 3] * d);
                    float s0 = values[entries[e]], s1 = values[entries[e + 1]], s2 = values[entries[e + 2]], s3 = values[entries[e + 3]];
                    if (dots == null)
                    {
                        RowMath.Axpy4(o, x0, x1, x2, x3, s0, s1, s2, s3, d);
                        continue;
                    }

                    RowMath.AxpyDot4(o, x0, x1, x2, x3, s0, s1, s2, s3, weights, four, d);
                    for (var i = 0; i < 4; i++) dots[entries[e + i]] = four[i];
                }

                for (; e < end; e++)
                {
                    var x0 = px + ((long)rows[e] * d);
                    if (dots != null) dots[entries[e]] = RowMath.Dot(x0, weights, d);
                    RowMath.Axpy(o, x0, values[entries[e]], d);
                }

                if (py != null) RowMath.CopyOut(py + ((long)c * d), o, d, pastCaches);
            }
        });
    }
}
