using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Sums one number an entry by feature, in row order: y[c] = sum over the entries of feature c; the gradient of a
/// feature's bias or norm. O(nnz + d_sae).
/// </summary>
[Kernel]
internal static class SumByFeature
{
    private const int PieceFeatures = 512;

    /// <summary>y[c] = sum of values[e] over the entries e of feature c.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="f">The pattern.</param>
    /// <param name="values">F32 [nnz], in row order.</param>
    /// <param name="denseFrom">Density from which it goes by way of dense blocks.</param>
    /// <returns>F32 [d_sae].</returns>
    internal static Tensor Of(TensorScope scope, SparseFeatures f, Tensor values, double denseFrom = DenseFallback.Density)
    {
        if (f.Density >= denseFrom) return DenseFallback.ByFeature(scope, f, values, null, totals: true).Totals!;
        var columns = SparseTranspose.Of(scope, f);
        var y = scope.New([f.Columns]);
        if (y.Count == 0) return y;
        if (scope.Device is CpuDevice cpu) Cpu(cpu, columns, values, y);
        else Gpu((GpuDevice)scope.Device, columns, values, y);
        return y;
    }

    internal static double[] Reference(double[] indices, double[] values, int columns)
    {
        var y = new double[columns];
        for (var e = 0; e < values.Length; e++) y[(int)indices[e]] += values[e];
        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var p in new[] { SparseCase.Random(0, 3, 0), SparseCase.Random(1, 1, 1), SparseCase.Random(23, 31, 0.4) })
        {
            foreach (var denseFrom in new[] { 0.0, 2.0 })
            {
                yield return new KernelCase($"[{p.Rows}, {p.Columns}], dense from {denseFrom}", [p.OffsetsInput, p.IndicesInput, new([p.Count])],
                    (scope, t) => [Of(scope, p.Of(t[0], t[1], t[2]), t[2], denseFrom)],
                    x => [Reference(x[1], x[2], p.Columns)]);
            }
        }
    }

    private static unsafe void Cpu(CpuDevice device, SparseColumns columns, Tensor values, Tensor y)
    {
        int* offsets = columns.ColumnOffsets.I32, entries = columns.Entries.I32;
        float* v = values.F32, py = y.F32;
        device.Pool.ForRange(y.Count, PieceFeatures, (from, to) =>
        {
            for (var c = from; c < to; c++)
            {
                var sum = 0f;
                for (var e = offsets[c]; e < offsets[c + 1]; e++) sum += v[entries[e]];
                py[c] = sum;
            }
        });
    }

    private static void Gpu(GpuDevice device, SparseColumns columns, Tensor values, Tensor y) =>
        device.Launch(GpuKernel, (device.GridFor(y.Count), device.GroupSize),
            columns.ColumnOffsets.View<int>(), columns.Entries.View<int>(), values.View<float>(), y.View<float>());

    /// <summary>A thread a feature.</summary>
    [GpuKernel]
    private static void GpuKernel(ArrayView<int> offsets, ArrayView<int> entries, ArrayView<float> values, ArrayView<float> y)
    {
        for (var c = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; c < y.Length; c += (long)Grid.DimX * Group.DimX)
        {
            var sum = 0f;
            for (var e = offsets[c]; e < offsets[c + 1]; e++) sum += values[entries[e]];
            y[c] = sum;
        }
    }
}
