using System.Runtime.Intrinsics;
using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Multiplies every row by one row: y[r, c] = x[r, c] (row[c] + offset); norm weights, with offset 1 for models that
/// store weight - 1 (Gemma). O(n).
/// </summary>
[Kernel]
public static class MultiplyRow
{
    /// <summary>y = x (row + offset), the row repeated over the leading axes.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [..., (row's shape)].</param>
    /// <param name="row">F32; its axes are the last axes of <paramref name="x"/>.</param>
    /// <param name="offset">Added to the row; constant for the gradient.</param>
    /// <returns>F32, x's shape.</returns>
    /// <exception cref="ShapeException">The row's axes are not x's last axes.</exception>
    public static Tensor Forward(TensorScope scope, Tensor x, Tensor row, float offset = 0)
    {
        AddRow.Check("multiply row", x, row);
        var y = scope.New(x.Shape);
        if (scope.Device is CpuDevice cpu) Cpu(cpu, x, row, offset, y);
        else Gpu((GpuDevice)scope.Device, x, row, offset, y);
        if (scope.Recorder is { } recorder)
        {
            bool needX = recorder.Tracks(x), needRow = recorder.Tracks(row);
            recorder.Record(y, [x, row], dy =>
                [needX ? Forward(scope, dy, row, offset) : null, needRow ? SumRows.Of(scope, dy, row.Shape, x) : null]);
        }

        return y;
    }

    internal static double[] Reference(double[] x, double[] row, float offset)
    {
        var y = new double[x.Length];
        for (var i = 0; i < y.Length; i++) y[i] = x[i] * (row[i % row.Length] + offset);
        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var (x, row, offset) in new (Shape, Shape, float)[]
        {
            ([0, 3], [3], 0), ([1], [1], 1), ([3, 5], [5], 0), ([2, 3, 4, 9], [4, 9], 1), ([4, 64], [64], 0), ([900, 77], [77], 1),
        })
        {
            var small = x.Count < 1000;
            yield return new KernelCase($"{x} * ({row} + {offset})", [new(x, Differentiable: small), new(row, Differentiable: small)],
                (scope, t) => [Forward(scope, t[0], t[1], offset)], v => [Reference(v[0], v[1], offset)])
            { OnIlgpuCpu = small };
        }
    }

    private static unsafe void Cpu(CpuDevice device, Tensor x, Tensor row, float offset, Tensor y)
    {
        if (y.Count == 0) return;
        float* px = x.F32, pr = row.F32, py = y.F32;
        var d = row.Count;
        Lanes.ForRows(device, y.Count / d, d, r =>
        {
            float* a = px + (r * d), b = py + (r * d);
            var o = Vector256.Create(offset);
            for (long i = 0; i < d; i += 8) Lanes.Store((Lanes.Load(pr + i, d - i) + o) * Lanes.Load(a + i, d - i), b + i, d - i);
        });
    }

    private static void Gpu(GpuDevice device, Tensor x, Tensor row, float offset, Tensor y)
    {
        if (y.Count == 0) return;
        device.Launch(GpuKernel, (device.GridFor(y.Count), device.GroupSize), x.View<float>(), row.View<float>(), offset, y.View<float>());
    }

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> x, ArrayView<float> row, float offset, ArrayView<float> y)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += step) y[i] = x[i] * (row[i % row.Length] + offset);
    }
}
