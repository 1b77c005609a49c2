using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>Picks elements in a given order: y[i] = x[order[i]]: values of sparse features by feature. O(n).</summary>
[Kernel]
internal static class Permute
{
    /// <summary>y[i] = x[order[i]].</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32.</param>
    /// <param name="order">I32 [n], each a place in <paramref name="x"/>; not checked.</param>
    /// <returns>F32 [n].</returns>
    internal static Tensor Elements(TensorScope scope, Tensor x, Tensor order)
    {
        var y = scope.New(order.Shape);
        if (y.Count == 0) return y;
        if (scope.Device is CpuDevice cpu) Cpu(cpu, x, order, y);
        else Gpu((GpuDevice)scope.Device, x, order, y);
        return y;
    }

    internal static double[] Reference(double[] x, double[] order) => [.. order.Select(i => x[(int)i])];

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var n in new[] { 0, 1, 50 })
        {
            yield return new KernelCase($"{n} elements", [new([70]), new([n], Fill.Index, Limit: 70, Type: DType.I32)],
                (scope, t) => [Elements(scope, t[0], t[1])], x => [Reference(x[0], x[1])]);
        }
    }

    private static unsafe void Cpu(CpuDevice device, Tensor x, Tensor order, Tensor y)
    {
        float* px = x.F32, py = y.F32;
        var p = order.I32;
        device.Pool.ForRange(y.Count, 1 << 15, (from, to) =>
        {
            for (var i = from; i < to; i++) py[i] = px[p[i]];
        });
    }

    private static void Gpu(GpuDevice device, Tensor x, Tensor order, Tensor y) =>
        device.Launch(GpuKernel, (device.GridFor(y.Count), device.GroupSize), x.View<float>(), order.View<int>(), y.View<float>());

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> x, ArrayView<int> order, ArrayView<float> y)
    {
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += (long)Grid.DimX * Group.DimX) y[i] = x[order[i]];
    }
}
