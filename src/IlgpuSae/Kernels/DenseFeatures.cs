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
        var y = scope.Zeros([f.Rows, f.Columns]);
        if (f.EntryCount > 0)
        {
            if (scope.Device is CpuDevice cpu) Cpu(cpu, f, y, f.Values, scatter: true);
            else Gpu((GpuDevice)scope.Device, f, y, f.Values, scatter: true);
        }

        scope.Recorder?.Record(y, [f.Values], dy => [Gather(scope, f, dy)]);
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

    /// <summary>values[e] = dense[row of e, feature of e].</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="f">The pattern.</param>
    /// <param name="dense">F32 [n, d_sae].</param>
    /// <returns>F32 [nnz].</returns>
    internal static Tensor Gather(TensorScope scope, SparseFeatures f, Tensor dense)
    {
        var values = scope.New([f.EntryCount]);
        if (f.EntryCount == 0) return values;
        if (scope.Device is CpuDevice cpu) Cpu(cpu, f, dense, values, scatter: false);
        else Gpu((GpuDevice)scope.Device, f, dense, values, scatter: false);
        return values;
    }

    private static unsafe void Cpu(CpuDevice device, SparseFeatures f, Tensor dense, Tensor values, bool scatter)
    {
        int* offsets = f.RowOffsets.I32, indices = f.Indices.I32;
        float* d = dense.F32, v = values.F32;
        device.Pool.ForRange(f.Rows, PieceRows, (from, to) =>
        {
            for (var r = from; r < to; r++)
            {
                var row = d + (r * f.Columns);
                for (var e = offsets[r]; e < offsets[r + 1]; e++)
                {
                    if (scatter) row[indices[e]] = v[e];
                    else v[e] = row[indices[e]];
                }
            }
        });
    }

    private static void Gpu(GpuDevice device, SparseFeatures f, Tensor dense, Tensor values, bool scatter) =>
        device.Launch(GpuKernel, (device.IsCuda ? f.Rows : 2, device.GroupSize),
            f.RowOffsets.View<int>(), f.Indices.View<int>(), dense.View<float>(), values.View<float>(), f.Rows, f.Columns, scatter ? 1 : 0);

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
