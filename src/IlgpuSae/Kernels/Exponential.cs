using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>y = e^x elementwise: thresholds and scales that are trained as their logarithms. O(n). The derivative is y dy.</summary>
[Kernel]
public static class Exponential
{
    private const int Piece = 1 << 14;

    /// <summary>y = e^x.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32, any shape.</param>
    /// <returns>F32, the same shape; 0 from -104 down, infinity from 88.8 up.</returns>
    public static Tensor Of(TensorScope scope, Tensor x)
    {
        var y = scope.New(x.Shape);
        if (y.Count > 0)
        {
            if (scope.Device is CpuDevice cpu) Cpu(cpu, x, y);
            else Gpu((GpuDevice)scope.Device, x, y);
        }

        scope.Recorder?.Record(y, [x], dy => [Multiply.Elementwise(scope, dy, y)]);
        return y;
    }

    internal static double[] Reference(double[] x) => Array.ConvertAll(x, Math.Exp);

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var shape in new Shape[] { [0], [1], [3, 13], [37] })
            yield return new KernelCase(shape.ToString(), [new(shape, Differentiable: true)], (scope, t) => [Of(scope, t[0])], x => [Reference(x[0])]);
    }

    private static unsafe void Cpu(CpuDevice device, Tensor x, Tensor y)
    {
        float* px = x.F32, py = y.F32;
        device.Pool.ForRange(y.Count, Piece, (from, to) =>
        {
            for (var i = from; i < to; i += 8) Lanes.Store(CpuMath.Exp(Lanes.Load(px + i, to - i)), py + i, to - i);
        });
    }

    private static void Gpu(GpuDevice device, Tensor x, Tensor y) =>
        device.Launch(GpuKernel, (device.GridFor(y.Count), device.GroupSize), x.View<float>(), y.View<float>());

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> x, ArrayView<float> y)
    {
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += (long)Grid.DimX * Group.DimX) y[i] = GpuMath.Exp(x[i]);
    }
}
