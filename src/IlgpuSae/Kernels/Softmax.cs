using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Softmax of each row: y_i = exp(x_i - max x) / sum_j exp(x_j - max x). A row that is -infinity throughout gives zeros.
/// O(n); derivative dx = y (dy - sum_j y_j dy_j).
/// </summary>
[Kernel]
public static class Softmax
{
    /// <summary>Softmax over the last axis.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [..., d]; -infinity is allowed.</param>
    /// <returns>F32, the same shape.</returns>
    public static Tensor Rows(TensorScope scope, Tensor x)
    {
        var y = scope.New(x.Shape);
        if (scope.Device is CpuDevice cpu) Cpu(cpu, x, y);
        else Gpu((GpuDevice)scope.Device, x, y);
        scope.Recorder?.Record(y, [x], dy => [Gradient(scope, y, dy)]);
        return y;
    }

    internal static double[] Reference(double[] x, int d)
    {
        var y = new double[x.Length];
        for (var start = 0; start < x.Length; start += d)
        {
            double max = double.NegativeInfinity, sum = 0;
            for (var i = start; i < start + d; i++) max = Math.Max(max, x[i]);
            if (double.IsNegativeInfinity(max)) continue;
            for (var i = start; i < start + d; i++) sum += y[i] = Math.Exp(x[i] - max);
            for (var i = start; i < start + d; i++) y[i] /= sum;
        }

        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var shape in new Shape[] { [0, 3], [3, 0], [1, 1], [3, 5], [2, 3, 17], [2, 40], [3, 5000] })
        {
            var small = shape.Count < 1000;
            yield return new KernelCase(shape.ToString(), [new(shape, Differentiable: small)],
                (scope, t) => [Rows(scope, t[0])], x => [Reference(x[0], shape.Last)])
            { OnIlgpuCpu = small };
        }

        const double Masked = double.NegativeInfinity;
        yield return new KernelCase("masked, and masked throughout",
            [new([3, 3], Fill.Given, Values: [1, 2, Masked, Masked, Masked, Masked, 100, Masked, 300])],
            (scope, t) => [Rows(scope, t[0])], x => [Reference(x[0], 3)]);
    }

    /// <summary>
    /// Softmax of x[from .. to) into y. Element i is summed in lane i mod 16 counted from 0, and masked elements add
    /// exact zeros, so a row gives the same bits whether its masked ends are included or not.
    /// <paramref name="from"/> is a multiple of 16. In place is allowed.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static unsafe void Row(float* x, float* y, long from, long to)
    {
        var max = Lanes.Max(x + from, to - from);
        if (float.IsNegativeInfinity(max))
        {
            new Span<float>(y + from, checked((int)(to - from))).Clear();
            return;
        }

        var shift = Vector256.Create(max);
        double total = 0;
        for (var start = from; start < to;)
        {
            var end = Math.Min(to, (start / Lanes.Block * Lanes.Block) + Lanes.Block);
            var a = Vector256<float>.Zero;
            var b = Vector256<float>.Zero;
            var i = start;
            for (; i + 16 <= end; i += 16)
            {
                var e = CpuMath.Exp(Vector256.Load(x + i) - shift);
                var f = CpuMath.Exp(Vector256.Load(x + i + 8) - shift);
                e.Store(y + i);
                f.Store(y + i + 8);
                a += e;
                b += f;
            }

            if (i < end)
            {
                a += Part(x + i, y + i, end - i, shift);
                if (i + 8 < end) b += Part(x + i + 8, y + i + 8, end - i - 8, shift);
            }

            total += Lanes.Sum(a, b);
            start = end;
        }

        var inverse = Vector256.Create((float)(1 / total));
        for (var i = from; i < to; i += 8) Lanes.Store(Lanes.Load(y + i, to - i) * inverse, y + i, to - i);
    }

    private static unsafe Vector256<float> Part(float* x, float* y, long n, Vector256<float> shift)
    {
        var e = CpuMath.Exp(Lanes.Load(x, n) - shift);
        Lanes.Store(e, y, n);
        return n >= 8 ? e : e & Lanes.Mask((int)n).AsSingle();
    }

    /// <summary>dx = y (dy - sum_j y_j dy_j) from the softmax itself.</summary>
    internal static Tensor Gradient(TensorScope scope, Tensor y, Tensor dy)
    {
        var dx = scope.New(y.Shape);
        if (scope.Device is CpuDevice cpu) CpuBackward(cpu, y, dy, dx);
        else GpuBackward((GpuDevice)scope.Device, y, dy, dx);
        return dx;
    }

    private static unsafe void Cpu(CpuDevice device, Tensor x, Tensor y)
    {
        if (y.Count == 0) return;
        float* px = x.F32, py = y.F32;
        var d = (long)x.Shape.Last;
        Lanes.ForRows(device, x.Shape.Rows, d, r => Row(px + (r * d), py + (r * d), 0, d));
    }

    private static unsafe void CpuBackward(CpuDevice device, Tensor y, Tensor dy, Tensor dx)
    {
        if (y.Count == 0) return;
        float* py = y.F32, pd = dy.F32, px = dx.F32;
        var d = (long)y.Shape.Last;
        Lanes.ForRows(device, y.Shape.Rows, d, r =>
        {
            float* a = py + (r * d), g = pd + (r * d), o = px + (r * d);
            var dot = Vector256.Create((float)Lanes.Dot(a, g, d));
            for (long i = 0; i < d; i += 8) Lanes.Store(Lanes.Load(a + i, d - i) * (Lanes.Load(g + i, d - i) - dot), o + i, d - i);
        });
    }

    private static void Gpu(GpuDevice device, Tensor x, Tensor y)
    {
        if (y.Count == 0) return;
        var rows = x.Shape.Rows;
        device.Launch(GpuKernel, (device.GridFor((long)rows * device.GroupSize), device.GroupSize), x.View<float>(), y.View<float>(), rows, x.Shape.Last);
    }

    private static void GpuBackward(GpuDevice device, Tensor y, Tensor dy, Tensor dx)
    {
        if (y.Count == 0) return;
        var rows = y.Shape.Rows;
        device.Launch(GpuBackwardKernel, (device.GridFor((long)rows * device.GroupSize), device.GroupSize), y.View<float>(), dy.View<float>(), dx.View<float>(), rows, y.Shape.Last);
    }

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> x, ArrayView<float> y, int rows, int d)
    {
        var scratch = SharedMemory.Allocate<float>(256);
        for (var r = Grid.IdxX; r < rows; r += Grid.DimX)
        {
            var start = (long)r * d;
            var max = float.NegativeInfinity;
            for (var i = Group.IdxX; i < d; i += Group.DimX)
            {
                var v = x[start + i];
                if (v > max) max = v;
            }

            max = GpuMath.GroupMax(max, scratch);
            var sum = 0f;
            if (max > float.NegativeInfinity)
            {
                for (var i = Group.IdxX; i < d; i += Group.DimX)
                {
                    var e = GpuMath.Exp(x[start + i] - max);
                    y[start + i] = e;
                    sum += e;
                }
            }

            sum = GpuMath.GroupSum(sum, scratch);
            var inverse = sum > 0 ? 1f / sum : 0f;
            for (var i = Group.IdxX; i < d; i += Group.DimX) y[start + i] = sum > 0 ? y[start + i] * inverse : 0f;
        }
    }

    [GpuKernel]
    private static void GpuBackwardKernel(ArrayView<float> y, ArrayView<float> dy, ArrayView<float> dx, int rows, int d)
    {
        var scratch = SharedMemory.Allocate<float>(256);
        for (var r = Grid.IdxX; r < rows; r += Grid.DimX)
        {
            var start = (long)r * d;
            var sum = 0f;
            for (var i = Group.IdxX; i < d; i += Group.DimX) sum += y[start + i] * dy[start + i];
            sum = GpuMath.GroupSum(sum, scratch);
            for (var i = Group.IdxX; i < d; i += Group.DimX) dx[start + i] = y[start + i] * (dy[start + i] - sum);
        }
    }
}
