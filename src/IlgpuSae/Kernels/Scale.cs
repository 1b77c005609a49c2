using System.Runtime.Intrinsics;
using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>Product with a number: y = factor x. O(n).</summary>
[Kernel]
public static class Scale
{
    private const int Piece = 1 << 15;

    /// <summary>y = factor x.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32, any shape.</param>
    /// <param name="factor">The number, constant for the gradient.</param>
    /// <returns>F32, the same shape.</returns>
    public static Tensor By(TensorScope scope, Tensor x, float factor)
    {
        var y = scope.New(x.Shape);
        if (scope.Device is CpuDevice cpu) Cpu(cpu, x, factor, y);
        else Gpu((GpuDevice)scope.Device, x, factor, y);
        scope.Recorder?.Record(y, [x], dy => [By(scope, dy, factor)]);
        return y;
    }

    internal static double[] Reference(double[] x, float factor) => Array.ConvertAll(x, v => factor * v);

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var shape in new Shape[] { [0], [], [3, 5], [4, 64], [70001] })
        {
            var small = shape.Count < 1000;
            yield return new KernelCase(shape.ToString(), [new(shape, Differentiable: small)],
                (scope, t) => [By(scope, t[0], -1.7f)], x => [Reference(x[0], -1.7f)])
            { OnIlgpuCpu = small };
        }
    }

    private static unsafe void Cpu(CpuDevice device, Tensor x, float factor, Tensor y)
    {
        float* px = x.F32, py = y.F32;
        device.Pool.ForRange(y.Count, Piece, (from, to) =>
        {
            var f = Vector256.Create(factor);
            var i = from;
            for (; i + 8 <= to; i += 8) (f * Vector256.Load(px + i)).Store(py + i);
            for (; i < to; i++) py[i] = factor * px[i];
        });
    }

    private static void Gpu(GpuDevice device, Tensor x, float factor, Tensor y)
    {
        if (y.Count == 0) return;
        device.Launch(GpuKernel, (device.GridFor(y.Count), device.GroupSize), x.View<float>(), factor, y.View<float>());
    }

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> x, float factor, ArrayView<float> y)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += step) y[i] = factor * x[i];
    }
}
