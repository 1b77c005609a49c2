using System.Runtime.Intrinsics;
using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Root-mean-square normalisation in two steps: scale = sqrt(mean(x^2) + eps), then y = x / scale; weights follow by
/// <see cref="MultiplyRow"/>. O(n). Zhang and Sennrich 2019, arXiv:1910.07467.
/// </summary>
[Kernel]
public static class RmsNorm
{
    /// <summary>scale = sqrt(mean(x^2) + eps) of each row.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [..., d], d at least 1.</param>
    /// <param name="eps">Added to the mean square.</param>
    /// <returns>F32 [..., 1].</returns>
    /// <exception cref="ShapeException"><paramref name="x"/> has no axis or empty rows.</exception>
    public static Tensor Scale(TensorScope scope, Tensor x, float eps)
    {
        LayerNorm.CheckRows("rms norm", x);
        var scale = scope.New(x.Shape.WithLast(1));
        if (scope.Device is CpuDevice cpu) LayerNorm.CpuScale(cpu, x, scale, eps, false);
        else LayerNorm.GpuScale((GpuDevice)scope.Device, x, scale, eps, false);
        scope.Recorder?.Record(scale, [x], ds => [LayerNorm.ScaleGradient(scope, x, scale, ds, false)]);
        return scale;
    }

    /// <summary>y = x / scale.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [..., d].</param>
    /// <param name="scale">F32 [..., 1], from <see cref="Scale"/> or replaced; an input of its own for the gradient.</param>
    /// <returns>F32, x's shape.</returns>
    /// <exception cref="ShapeException">The shapes do not fit.</exception>
    public static Tensor FromScale(TensorScope scope, Tensor x, Tensor scale)
    {
        LayerNorm.CheckRows("rms norm", x);
        LayerNorm.CheckScale("rms norm", x, scale);
        var y = scope.New(x.Shape);
        if (scope.Device is CpuDevice cpu) Cpu(cpu, x, scale, y);
        else Gpu((GpuDevice)scope.Device, x, scale, y);
        if (scope.Recorder is { } recorder)
        {
            bool needX = recorder.Tracks(x), needScale = recorder.Tracks(scale);
            recorder.Record(y, [x, scale], dy =>
            {
                var (dx, ds) = Backward(scope, x, scale, dy);
                return [needX ? dx : null, needScale ? ds : null];
            });
        }

        return y;
    }

    internal static double[] ReferenceScale(double[] x, int d, double eps)
    {
        var s = new double[x.Length / d];
        for (var i = 0; i < x.Length; i++) s[i / d] += x[i] * x[i] / d;
        return Array.ConvertAll(s, v => Math.Sqrt(v + eps));
    }

    internal static double[] Reference(double[] x, double[] scale, int d)
    {
        var y = new double[x.Length];
        for (var i = 0; i < x.Length; i++) y[i] = x[i] / scale[i / d];
        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        const float Eps = 1e-6f;
        foreach (var shape in new Shape[] { [0, 3], [1, 1], [3, 5], [2, 3, 17], [2, 40], [5, 3000] })
        {
            var d = shape.Last;
            var small = shape.Count < 1000;
            yield return new KernelCase($"scale {shape}", [new(shape, Differentiable: small)],
                (scope, t) => [Scale(scope, t[0], Eps)], x => [ReferenceScale(x[0], d, Eps)])
            { OnIlgpuCpu = small };
            yield return new KernelCase($"from scale {shape}", [new(shape, Differentiable: small), new(shape.WithLast(1), Fill.Positive, small)],
                (scope, t) => [FromScale(scope, t[0], t[1])], x => [Reference(x[0], x[1], d)])
            { OnIlgpuCpu = small };
            yield return new KernelCase($"both steps {shape}", [new(shape, Differentiable: small && d > 1)],
                (scope, t) => [FromScale(scope, t[0], Scale(scope, t[0], Eps))], x => [Reference(x[0], ReferenceScale(x[0], d, Eps), d)])
            { OnIlgpuCpu = small };
        }
    }

    /// <summary>dx = dy / scale, dscale = -sum(dy x) / scale^2.</summary>
    private static (Tensor Dx, Tensor Ds) Backward(TensorScope scope, Tensor x, Tensor scale, Tensor dy)
    {
        var dx = scope.New(x.Shape);
        var ds = scope.New(scale.Shape);
        if (scope.Device is CpuDevice cpu) LayerNorm.CpuBackward(cpu, x, scale, dy, dx, ds, false);
        else LayerNorm.GpuBackward((GpuDevice)scope.Device, x, scale, dy, dx, ds, false);
        return (dx, ds);
    }

    private static unsafe void Cpu(CpuDevice device, Tensor x, Tensor scale, Tensor y)
    {
        float* px = x.F32, ps = scale.F32, py = y.F32;
        var d = (long)x.Shape.Last;
        Lanes.ForRows(device, x.Shape.Rows, d, r =>
        {
            float* a = px + (r * d), o = py + (r * d);
            var s = Vector256.Create(ps[r]);
            for (long i = 0; i < d; i += 8) Lanes.Store(Lanes.Load(a + i, d - i) / s, o + i, d - i);
        });
    }

    private static void Gpu(GpuDevice device, Tensor x, Tensor scale, Tensor y)
    {
        if (y.Count == 0) return;
        device.Launch(GpuKernel, (device.GridFor(y.Count), device.GroupSize), x.View<float>(), scale.View<float>(), y.View<float>(), x.Shape.Last);
    }

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> x, ArrayView<float> scale, ArrayView<float> y, int d)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += step) y[i] = x[i] / scale[i / d];
    }
}
