using System.Runtime.Intrinsics;
using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>Elementwise product of two tensors of one shape: y = a b (gated MLPs). O(n); both inputs may be the same tensor.</summary>
[Kernel]
public static class Multiply
{
    private const int Piece = 1 << 15;

    /// <summary>y = a b.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="a">F32, any shape.</param>
    /// <param name="b">F32, the same shape.</param>
    /// <returns>F32, the same shape.</returns>
    /// <exception cref="ShapeException">The shapes differ.</exception>
    public static Tensor Elementwise(TensorScope scope, Tensor a, Tensor b)
    {
        if (a.Shape != b.Shape) throw new ShapeException($"multiply: {a.Shape} and {b.Shape} differ");
        var y = scope.New(a.Shape);
        if (scope.Device is CpuDevice cpu) Cpu(cpu, a, b, y);
        else Gpu((GpuDevice)scope.Device, a, b, y);
        if (scope.Recorder is { } recorder)
        {
            bool needA = recorder.Tracks(a), needB = recorder.Tracks(b);
            recorder.Record(y, [a, b], dy => [needA ? Elementwise(scope, dy, b) : null, needB ? Elementwise(scope, dy, a) : null]);
        }

        return y;
    }

    internal static double[] Reference(double[] a, double[] b)
    {
        var y = new double[a.Length];
        for (var i = 0; i < y.Length; i++) y[i] = a[i] * b[i];
        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var shape in new Shape[] { [0], [1], [3, 5], [4, 64], [70001] })
        {
            var small = shape.Count < 1000;
            yield return new KernelCase(shape.ToString(), [new(shape, Differentiable: small), new(shape, Differentiable: small)],
                (scope, t) => [Elementwise(scope, t[0], t[1])], x => [Reference(x[0], x[1])])
            { OnIlgpuCpu = small };
        }
    }

    private static unsafe void Cpu(CpuDevice device, Tensor a, Tensor b, Tensor y)
    {
        float* pa = a.F32, pb = b.F32, py = y.F32;
        device.Pool.ForRange(y.Count, Piece, (from, to) =>
        {
            var i = from;
            for (; i + 8 <= to; i += 8) (Vector256.Load(pa + i) * Vector256.Load(pb + i)).Store(py + i);
            for (; i < to; i++) py[i] = pa[i] * pb[i];
        });
    }

    private static void Gpu(GpuDevice device, Tensor a, Tensor b, Tensor y)
    {
        if (y.Count == 0) return;
        device.Launch(GpuKernel, (device.GridFor(y.Count), device.GroupSize), a.View<float>(), b.View<float>(), y.View<float>());
    }

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> a, ArrayView<float> b, ArrayView<float> y)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += step) y[i] = a[i] * b[i];
    }
}
