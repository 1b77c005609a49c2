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
}
