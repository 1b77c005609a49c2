using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// How often each feature fires in a batch: the number of stored entries of each column whose value is not zero (a
/// NaN counts). Integer sums, so the order does not matter. O(nnz + d_sae).
/// </summary>
[Kernel]
public static class FeatureCounts
{
    /// <summary>Entries with a value other than zero, a feature.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="f">Sparse features [n, d_sae].</param>
    /// <returns>I32 [d_sae].</returns>
    public static Tensor Of(TensorScope scope, SparseFeatures f)
    {
        ArgumentNullException.ThrowIfNull(f);
        var y = scope.Zeros([f.Columns], DType.I32);
        if (f.EntryCount == 0) return y;
        if (scope.Device is CpuDevice) Cpu(f, y);
        else Gpu((GpuDevice)scope.Device, f, y);
        return y;
    }

    internal static double[] Reference(int columns, double[] indices, double[] values)
    {
        var y = new double[columns];
        for (var e = 0; e < indices.Length; e++)
            if (values[e] != 0) y[(int)indices[e]]++;
        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var p in new[] { SparseCase.Random(0, 3, 0), SparseCase.Random(1, 1, 1), SparseCase.Random(31, 17, 0.4) })
        {
            // Every third value is zero: stored, but not firing.
            var values = Enumerable.Range(0, p.Count).Select(e => e % 3 == 0 ? 0.0 : e % 2 == 0 ? -1.5 : 2.0).ToArray();
            yield return new KernelCase($"{p.Rows} rows", [p.OffsetsInput, p.IndicesInput, new([p.Count], Fill.Given, Values: values)],
                (scope, t) => [Of(scope, p.Of(t[0], t[1], t[2]))],
                x => [Reference(p.Columns, x[1], x[2])]);
        }
    }

    private static unsafe void Cpu(SparseFeatures f, Tensor y)
    {
        int* indices = f.Indices.I32, counts = y.I32;
        var values = f.Values.F32;
        for (var e = 0; e < f.EntryCount; e++)
            if (values[e] != 0) counts[indices[e]]++;
    }

    private static void Gpu(GpuDevice device, SparseFeatures f, Tensor y) =>
        device.Launch(GpuKernel, (device.GridFor(f.EntryCount), device.GroupSize),
            f.Indices.View<int>(), f.Values.View<float>(), y.View<int>());

    [GpuKernel]
    private static void GpuKernel(ArrayView<int> indices, ArrayView<float> values, ArrayView<int> counts)
    {
        for (var e = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; e < values.Length; e += (long)Grid.DimX * Group.DimX)
            if (values[e] != 0) Atomic.Add(ref counts[indices[e]], 1);
    }
}
