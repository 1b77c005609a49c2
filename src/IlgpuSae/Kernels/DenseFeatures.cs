using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// The dense view of sparse features: y[r, c] is the stored activation, 0 elsewhere. Made only when someone asks: it
/// takes 4 n d_sae bytes. The gradient of a stored value is the dense gradient at its place.
/// </summary>
[Kernel]
public static class DenseFeatures
{
    private const int PieceRows = 8;

    /// <summary>Expands sparse features.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="f">Sparse features [n, d_sae].</param>
    /// <returns>F32 [n, d_sae].</returns>
    public static Tensor Of(TensorScope scope, SparseFeatures f)
    {
        ArgumentNullException.ThrowIfNull(f);
        var y = Expand(scope, f.RowOffsets, f.Indices, f.Values, f.Columns);
        scope.Recorder?.Record(y, [f.Values], dy =>
        {
            var dv = scope.New([f.EntryCount]);
            Collect(scope, f.RowOffsets, f.Indices, dy, dv);
            return [dv];
        });
        return y;
    }

    internal static double[] Reference(SparseCase pattern, double[] values) => pattern.Dense(values);

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var p in new[] { SparseCase.Random(0, 3, 0), SparseCase.Random(2, 3, 0), SparseCase.Random(19, 23, 0.3) })
        {
            yield return new KernelCase($"[{p.Rows}, {p.Columns}]", [p.OffsetsInput, p.IndicesInput, new([p.Count], Differentiable: true)],
                (scope, t) => [Of(scope, p.Of(t[0], t[1], t[2]))],
                x => [Reference(p, x[2])]);
        }
    }

    /// <summary>The dense matrix of some compressed rows.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="offsets">I32 [rows + 1], ascending: where each row's entries start.</param>
    /// <param name="indices">I32, the entries' columns.</param>
    /// <param name="values">F32, the entries' values.</param>
    /// <param name="columns">Width of the result.</param>
    /// <returns>F32 [rows, columns].</returns>
    internal static Tensor Expand(TensorScope scope, Tensor offsets, Tensor indices, Tensor values, int columns)
    {
        var y = scope.New([checked((int)offsets.Count - 1), columns]);
        if (y.Count == 0) return y;
        if (scope.Device is CpuDevice cpu)
        {
            Cpu(cpu, offsets, indices, y, values, scatter: true);
        }
        else
        {
            y.Clear();
            Gpu((GpuDevice)scope.Device, offsets, indices, y, values, scatter: true);
        }

        return y;
    }

    /// <summary>values[e] = dense[row of e, column of e]: the inverse of <see cref="Expand"/>.</summary>
    /// <param name="scope">Names the device.</param>
    /// <param name="offsets">I32 [rows + 1].</param>
    /// <param name="indices">I32, the entries' columns.</param>
    /// <param name="dense">F32 [rows, columns].</param>
    /// <param name="values">F32; receives the values of these rows' entries.</param>
    internal static void Collect(TensorScope scope, Tensor offsets, Tensor indices, Tensor dense, Tensor values)
    {
        if (dense.Count == 0 || values.Count == 0) return;
        if (scope.Device is CpuDevice cpu) Cpu(cpu, offsets, indices, dense, values, scatter: false);
        else Gpu((GpuDevice)scope.Device, offsets, indices, dense, values, scatter: false);
    }

    /// <summary>
    /// Some columns of the dense matrix; called for consecutive ranges of columns, it reads every entry once.
    /// </summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="f">The pattern.</param>
    /// <param name="values">F32 [nnz].</param>
    /// <param name="next">I32 [n]: each row's first entry at or beyond <paramref name="first"/>; moved on.</param>
    /// <param name="first">First column.</param>
    /// <param name="count">Number of columns.</param>
    /// <returns>F32 [n, count].</returns>
    internal static Tensor ExpandColumns(TensorScope scope, SparseFeatures f, Tensor values, Tensor next, int first, int count)
    {
        var y = scope.New([f.Rows, count]);
        if (y.Count == 0) return y;
        if (scope.Device is CpuDevice cpu)
        {
            CpuColumns(cpu, f, values, next, y, first);
            return y;
        }

        y.Clear();
        var device = (GpuDevice)scope.Device;
        device.Launch(ColumnsKernel, (device.IsCuda ? f.Rows : Math.Min(2, f.Rows), device.GroupSize),
            f.RowOffsets.View<int>(), f.Indices.View<int>(), values.View<float>(), next.View<int>(), y.View<float>(), f.Rows, first, count);
        return y;
    }

    private static unsafe void CpuColumns(CpuDevice device, SparseFeatures f, Tensor values, Tensor next, Tensor y, int first)
    {
        int* start = f.RowOffsets.I32, index = f.Indices.I32, at = next.I32;
        float* v = values.F32, py = y.F32;
        var count = y.Shape[1];
        device.Pool.ForRange(f.Rows, PieceRows, (from, to) =>
        {
            for (var r = from; r < to; r++)
            {
                var row = py + (r * count);
                new Span<float>(row, count).Clear();
                int e = at[r], end = start[r + 1];
                for (; e < end && index[e] - first < count; e++) row[index[e] - first] = v[e];
                at[r] = e;
            }
        });
    }

    private static unsafe void Cpu(CpuDevice device, Tensor offsets, Tensor indices, Tensor dense, Tensor values, bool scatter)
    {
        int* start = offsets.I32, index = indices.I32;
        float* d = dense.F32, v = values.F32;
        var columns = dense.Shape[1];
        device.Pool.ForRange(dense.Shape[0], PieceRows, (from, to) =>
        {
            for (var r = from; r < to; r++)
            {
                var row = d + (r * columns);
                if (scatter) new Span<float>(row, columns).Clear();
                for (var e = start[r]; e < start[r + 1]; e++)
                {
                    if (scatter) row[index[e]] = v[e];
                    else v[e] = row[index[e]];
                }
            }
        });
    }

    private static void Gpu(GpuDevice device, Tensor offsets, Tensor indices, Tensor dense, Tensor values, bool scatter) =>
        device.Launch(GpuKernel, (device.IsCuda ? dense.Shape[0] : Math.Min(2, dense.Shape[0]), device.GroupSize),
            offsets.View<int>(), indices.View<int>(), dense.View<float>(), values.View<float>(), dense.Shape[0], dense.Shape[1], scatter ? 1 : 0);

    /// <summary>A group a row.</summary>
    [GpuKernel]
    private static void GpuKernel(
        ArrayView<int> offsets, ArrayView<int> indices, ArrayView<float> dense, ArrayView<float> values, int rows, int columns, int scatter)
    {
        for (var r = Grid.IdxX; r < rows; r += Grid.DimX)
        {
            for (var e = offsets[r] + Group.IdxX; e < offsets[r + 1]; e += Group.DimX)
            {
                var at = ((long)r * columns) + indices[e];
                if (scatter != 0) dense[at] = values[e];
                else values[e] = dense[at];
            }
        }
    }

    /// <summary>A group a row.</summary>
    [GpuKernel]
    private static void ColumnsKernel(
        ArrayView<int> offsets, ArrayView<int> indices, ArrayView<float> values, ArrayView<int> next, ArrayView<float> y,
        int rows, int first, int count)
    {
        var shared = SharedMemory.Allocate<int>(GroupScan.Room);
        for (var r = Grid.IdxX; r < rows; r += Grid.DimX)
        {
            var start = next[r];
            var mine = 0;
            for (var e = start + Group.IdxX; e < offsets[r + 1]; e += Group.DimX)
            {
                var c = indices[e] - first;
                if (c >= count) break;
                y[((long)r * count) + c] = values[e];
                mine++;
            }

            GroupScan.Before(shared, mine, out var total);
            if (Group.IdxX == 0) next[r] = start + total;
            Group.Barrier();
        }
    }
}
