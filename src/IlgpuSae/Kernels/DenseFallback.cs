using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// The sparse kernels' products by way of dense blocks: early in L1 training half of all features fire, and then a
/// matrix product is faster than gathering. Blocks of rows or features are expanded and multiplied, so scratch memory
/// stays bounded. Results equal those of the sparse path up to the rounding of another order; which path is taken
/// depends on the density alone.
/// </summary>
internal static class DenseFallback
{
    /// <summary>
    /// Density from which the dense path is taken. Measured at n = 4096, d = 768, d_sae = 6144 on one AVX-512 core: at
    /// 0.2 the sparse path takes 0.56 (decode), 0.83 (its gradients) and 0.94 (the encoder's gradient) of the dense
    /// time, at 0.02 about 0.28, 0.09 and 0.11 (docs/performance.md).
    /// </summary>
    internal const double Density = 0.2;

    /// <summary>Elements of an expanded block: 64 MB.</summary>
    private const long BlockElements = 16 << 20;

    /// <summary>y = f w + bias, as <see cref="SparseDecode"/>.</summary>
    internal static Tensor Decode(TensorScope scope, SparseFeatures f, Tensor w, Tensor? bias) =>
        InBlocks(scope, f.Rows, f.Columns, w.Shape[1], (first, count) =>
        {
            using var offsets = f.RowOffsets.Slice(first, count + 1);
            var dense = DenseFeatures.Expand(scope, offsets, f.Indices, f.Values, f.Columns);
            var part = Gemm.Multiply(scope, dense, w, bias);
            scope.Release(dense);
            return part;
        });

    /// <summary>x[row] . w[feature] of each entry.</summary>
    internal static Tensor Products(TensorScope scope, SparseFeatures f, Tensor x, Tensor w)
    {
        var y = scope.New([f.EntryCount]);
        var block = Block(f.Columns);
        for (var first = 0; first < f.Rows; first += block)
        {
            var count = Math.Min(block, f.Rows - first);
            using var offsets = f.RowOffsets.Slice(first, count + 1);
            using var rows = x.Slice(first, count);
            var dense = Gemm.Multiply(scope, rows, w, transposeB: true);
            DenseFeatures.Collect(scope, offsets, f.Indices, dense, y);
            scope.Release(dense);
        }

        return y;
    }

    /// <summary>
    /// By feature: sums[c] = sum over the entries of feature c of factor * x[row], totals[c] = that of the factors
    /// alone. Features are expanded chunk by chunk straight from the rows, so nothing needs to be ordered by feature.
    /// </summary>
    /// <param name="scope">Owns the results.</param>
    /// <param name="f">The pattern.</param>
    /// <param name="factors">F32 [nnz].</param>
    /// <param name="x">F32 [n, d]; null: no sums wanted.</param>
    /// <param name="totals">Whether totals are wanted.</param>
    internal static (Tensor? Sums, Tensor? Totals) ByFeature(TensorScope scope, SparseFeatures f, Tensor factors, Tensor? x, bool totals)
    {
        var sums = x is null ? null : scope.New([f.Columns, x.Shape[1]]);
        var total = totals ? scope.New([f.Columns]) : null;
        var next = scope.New([f.Rows], DType.I32);
        using (var starts = f.RowOffsets.Slice(0, f.Rows)) next.CopyFrom(starts);
        var chunk = Block(f.Rows);
        for (var first = 0; first < f.Columns; first += chunk)
        {
            var count = Math.Min(chunk, f.Columns - first);
            var dense = DenseFeatures.ExpandColumns(scope, f, factors, next, first, count);
            if (sums is not null) Put(scope, sums, first, Gemm.Multiply(scope, dense, x!, transposeA: true));
            if (total is not null) Put(scope, total, first, SumRows.Of(scope, dense, [count]));
            scope.Release(dense);
        }

        scope.Release(next);
        return (sums, total);
    }

    private static void Put(TensorScope scope, Tensor target, int first, Tensor part)
    {
        using var view = target.Slice(first, part.Shape[0]);
        view.CopyFrom(part);
        scope.Release(part);
    }

    private static int Block(int columns) => (int)Math.Max(1, Math.Min(int.MaxValue, BlockElements / Math.Max(1, columns)));

    private static Tensor InBlocks(TensorScope scope, int rows, int columns, int width, Func<int, int, Tensor> part)
    {
        var block = Block(columns);
        if (rows <= block) return part(0, rows);
        var y = scope.New([rows, width]);
        for (var first = 0; first < rows; first += block)
        {
            var count = Math.Min(block, rows - first);
            Put(scope, y, first, part(first, count));
        }

        return y;
    }
}
