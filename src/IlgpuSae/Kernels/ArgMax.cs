using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>Index of the largest element of each row, the lower index where several are equal. O(n). No derivative.</summary>
[Kernel]
public static class ArgMax
{
    /// <summary>Index of the largest element over the last axis.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [..., d], d at least 1.</param>
    /// <returns>I32 [...].</returns>
    /// <exception cref="ShapeException"><paramref name="x"/> has no axis or empty rows.</exception>
    public static Tensor Rows(TensorScope scope, Tensor x)
    {
        if (x.Shape.Rank == 0 || x.Shape.Last == 0) throw new ShapeException($"arg max: {x.Shape} has no rows to choose from");
        var y = scope.New(Shape.Create(x.Shape.Dims[..^1]), DType.I32);
        if (scope.Device is CpuDevice cpu) Cpu(cpu, x, y);
        else Gpu((GpuDevice)scope.Device, x, y);
        return y;
    }

    internal static double[] Reference(double[] x, int d)
    {
        var y = new double[x.Length / d];
        for (var i = 0; i < x.Length; i++)
            if (x[i] > x[(i / d * d) + (int)y[i / d]]) y[i / d] = i % d;
        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var shape in new Shape[] { [0, 3], [1, 1], [5], [3, 2, 37], [4, 20000] })
        {
            yield return new KernelCase(shape.ToString(), [new(shape)], (scope, t) => [Rows(scope, t[0])], x => [Reference(x[0], shape.Last)])
            { OnIlgpuCpu = shape.Count < 1000 };
        }

        yield return new KernelCase("ties", [new([2, 40], Fill.Zero)], (scope, t) => [Rows(scope, t[0])], x => [Reference(x[0], 40)]);
    }

    private static unsafe void Cpu(CpuDevice device, Tensor x, Tensor y)
    {
        var px = x.F32;
        var py = y.I32;
        long d = x.Shape.Last;
        Lanes.ForRows(device, y.Count, d, r =>
        {
            var row = new ReadOnlySpan<float>(px + (r * d), (int)d);
            // NaN is the largest, as in PyTorch; IndexOf finds NaN by Equals.
            py[r] = row.IndexOf(Lanes.Max(px + (r * d), d));
        });
    }

    private static void Gpu(GpuDevice device, Tensor x, Tensor y)
    {
        if (y.Count == 0) return;
        device.Launch(GpuKernel, (device.GridFor(y.Count * device.GroupSize), device.GroupSize), x.View<float>(), y.View<int>(), x.Shape.Last);
    }

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> x, ArrayView<int> y, int d)
    {
        var values = SharedMemory.Allocate<float>(256);
        var indices = SharedMemory.Allocate<int>(256);
        for (var r = Grid.IdxX; r < y.Length; r += Grid.DimX)
        {
            var start = (long)r * d;
            var best = float.NegativeInfinity;
            var index = d;
            for (var i = Group.IdxX; i < d; i += Group.DimX)
            {
                var v = x[start + i];
                if (v > best || index == d)
                {
                    best = v;
                    index = i;
                }
            }

            values[Group.IdxX] = best;
            indices[Group.IdxX] = index;
            Group.Barrier();
            for (var step = Group.DimX >> 1; step > 0; step >>= 1)
            {
                if (Group.IdxX < step)
                {
                    var other = values[Group.IdxX + step];
                    var otherIndex = indices[Group.IdxX + step];
                    var mine = values[Group.IdxX];
                    var mineIndex = indices[Group.IdxX];
                    if (otherIndex < d && (other > mine || mineIndex == d || (other == mine && otherIndex < mineIndex)))
                    {
                        values[Group.IdxX] = other;
                        indices[Group.IdxX] = otherIndex;
                    }
                }

                Group.Barrier();
            }

            if (Group.IdxX == 0) y[r] = indices[0];
            Group.Barrier();
        }
    }
}
