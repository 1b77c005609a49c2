using System.Runtime.Intrinsics;
using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// One factor and one offset a row, applied or undone: y[r, i] = x[r, i] * scale[r] + shift[r], and
/// y[r, i] = (x[r, i] - shift[r]) / (scale[r] + epsilon). A row whose divisor is 0 gives 0. What an SAE does around
/// encoding and decoding when it normalises its input. O(n d) reads and writes.
/// </summary>
[Kernel]
public static class RowAffine
{
    private const int PieceRows = 64;

    /// <summary>y = x * scale + shift.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [n, d].</param>
    /// <param name="scale">F32 [n].</param>
    /// <param name="shift">F32 [n]; null: 0.</param>
    /// <returns>F32 [n, d]; differentiable in all.</returns>
    /// <exception cref="ShapeException">The shapes do not fit.</exception>
    public static Tensor Apply(TensorScope scope, Tensor x, Tensor scale, Tensor? shift)
    {
        Check(x, scale, shift);
        var y = Run(scope, x, scale, shift, 0, undo: false);
        scope.Recorder?.Record(y, shift is null ? [x, scale] : [x, scale, shift], dy =>
        {
            var dx = Run(scope, dy, scale, null, 0, undo: false);
            var dscale = RowDot(scope, dy, x);
            return shift is null ? [dx, dscale] : [dx, dscale, RowDot(scope, dy, null)];
        });
        return y;
    }

    /// <summary>y = (x - shift) / (scale + epsilon), 0 where the divisor is 0.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [n, d].</param>
    /// <param name="scale">F32 [n].</param>
    /// <param name="shift">F32 [n]; null: 0.</param>
    /// <param name="epsilon">Added to the scale.</param>
    /// <returns>F32 [n, d]; differentiable in all.</returns>
    /// <exception cref="ShapeException">The shapes do not fit.</exception>
    public static Tensor Undo(TensorScope scope, Tensor x, Tensor scale, Tensor? shift, float epsilon)
    {
        Check(x, scale, shift);
        var y = Run(scope, x, scale, shift, epsilon, undo: true);
        scope.Recorder?.Record(y, shift is null ? [x, scale] : [x, scale, shift], dy =>
        {
            // d/dscale = -y / (scale + epsilon); d/dshift = -1 / (scale + epsilon).
            var dx = Run(scope, dy, scale, null, epsilon, undo: true);
            var dscale = Scale.By(scope, RowDot(scope, dx, y), -1);
            return shift is null ? [dx, dscale] : [dx, dscale, Scale.By(scope, RowDot(scope, dx, null), -1)];
        });
        return y;
    }

    internal static double[] Reference(double[] x, double[] scale, double[]? shift, double epsilon, bool undo)
    {
        var d = x.Length / Math.Max(1, scale.Length);
        var y = new double[x.Length];
        for (var i = 0; i < x.Length; i++)
        {
            var (s, b) = (scale[i / d] + epsilon, shift?[i / d] ?? 0);
            y[i] = !undo ? (x[i] * s) + b : s == 0 ? 0 : (x[i] - b) / s;
        }

        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var (n, d) in new[] { (0, 4), (1, 1), (3, 5), (70, 33) })
        {
            KernelInput[] inputs = [new([n, d], Differentiable: true), new([n], Fill.Positive, Differentiable: true), new([n], Differentiable: true)];
            yield return new KernelCase($"apply [{n}, {d}]", inputs,
                (scope, t) => [Apply(scope, t[0], t[1], t[2])], x => [Reference(x[0], x[1], x[2], 0, undo: false)]);
            yield return new KernelCase($"apply without shift [{n}, {d}]", inputs[..2],
                (scope, t) => [Apply(scope, t[0], t[1], null)], x => [Reference(x[0], x[1], null, 0, undo: false)]);
            // Divisors down to 0.1 make slopes of 100, so finite differences lose two digits.
            yield return new KernelCase($"undo [{n}, {d}]", inputs,
                (scope, t) => [Undo(scope, t[0], t[1], t[2], 0.25f)], x => [Reference(x[0], x[1], x[2], 0.25, undo: true)]);
            yield return new KernelCase($"undo without shift [{n}, {d}]", inputs[..2],
                (scope, t) => [Undo(scope, t[0], t[1], null, 0.25f)], x => [Reference(x[0], x[1], null, 0.25, undo: true)]);
        }

        yield return new KernelCase("undo a scale of 0", [new([2, 3]), new([2], Fill.Given, Values: [0, 2])],
            (scope, t) => [Undo(scope, t[0], t[1], null, 0)], x => [Reference(x[0], x[1], null, 0, undo: true)]);
    }

    /// <summary>y[r] = sum_i a[r, i] b[r, i], or sum_i a[r, i].</summary>
    internal static Tensor RowDot(TensorScope scope, Tensor a, Tensor? b)
    {
        var y = scope.New([a.Shape[0]]);
        if (y.Count == 0) return y;
        if (scope.Device is CpuDevice cpu) CpuDot(cpu, a, b, y);
        else
        {
            var device = (GpuDevice)scope.Device;
            device.Launch(DotKernel, (device.IsCuda ? a.Shape[0] : Math.Min(a.Shape[0], 2), device.GroupSize),
                a.View<float>(), (b ?? a).View<float>(), y.View<float>(), a.Shape[1], b is null ? 0 : 1);
        }

        return y;
    }

    private static void Check(Tensor x, Tensor scale, Tensor? shift)
    {
        if (x.Shape.Rank != 2 || scale.Count != x.Shape[0] || (shift is not null && shift.Count != x.Shape[0]))
            throw new ShapeException($"row affine: x is {x.Shape}, scale {scale.Shape}{(shift is null ? "" : $", shift {shift.Shape}")}; one a row is needed");
    }

    private static Tensor Run(TensorScope scope, Tensor x, Tensor scale, Tensor? shift, float epsilon, bool undo)
    {
        var y = scope.New(x.Shape);
        if (y.Count == 0) return y;
        if (scope.Device is CpuDevice cpu) Cpu(cpu, x, scale, shift, epsilon, undo, y);
        else
        {
            var device = (GpuDevice)scope.Device;
            device.Launch(GpuKernel, (device.GridFor(y.Count), device.GroupSize), x.View<float>(), scale.View<float>(),
                (shift ?? scale).View<float>(), y.View<float>(), x.Shape[1], epsilon, (undo ? 1 : 0) + (shift is null ? 0 : 2));
        }

        return y;
    }

    private static unsafe void Cpu(CpuDevice device, Tensor x, Tensor scale, Tensor? shift, float epsilon, bool undo, Tensor y)
    {
        float* px = x.F32, ps = scale.F32, py = y.F32, pb = shift is null ? null : shift.F32;
        var d = x.Shape[1];
        device.Pool.ForRange(x.Shape[0], PieceRows, (from, to) =>
        {
            for (var r = from; r < to; r++)
            {
                float* a = px + (r * d), o = py + (r * d);
                var b = pb == null ? 0 : pb[r];
                var s = ps[r] + epsilon;
                var factor = !undo ? s : s == 0 ? 0 : 1 / s;
                var before = undo ? b : 0;
                var after = undo ? 0 : b;
                var (vf, vb, va) = (Vector256.Create(factor), Vector256.Create(before), Vector256.Create(after));
                var i = 0;
                for (; i + 8 <= d; i += 8) (((Vector256.Load(a + i) - vb) * vf) + va).Store(o + i);
                for (; i < d; i++) o[i] = ((a[i] - before) * factor) + after;
            }
        });
    }

    private static unsafe void CpuDot(CpuDevice device, Tensor a, Tensor? b, Tensor y)
    {
        float* pa = a.F32, pb = b is null ? null : b.F32, py = y.F32;
        var d = a.Shape[1];
        device.Pool.ForRange(a.Shape[0], PieceRows, (from, to) =>
        {
            for (var r = from; r < to; r++)
            {
                var sum = 0.0;
                for (var i = 0; i < d; i++) sum += pb == null ? pa[(r * d) + i] : (double)pa[(r * d) + i] * pb[(r * d) + i];
                py[r] = (float)sum;
            }
        });
    }

    [GpuKernel]
    private static void GpuKernel(
        ArrayView<float> x, ArrayView<float> scale, ArrayView<float> shift, ArrayView<float> y, int d, float epsilon, int mode)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += step)
        {
            var r = i / d;
            var s = scale[r] + epsilon;
            var b = mode >= 2 ? shift[r] : 0f;
            var undo = (mode & 1) == 1;
            var divided = s == 0f ? 0f : (x[i] - b) / s;
            y[i] = undo ? divided : (x[i] * s) + b;
        }
    }

    [GpuKernel]
    private static void DotKernel(ArrayView<float> a, ArrayView<float> b, ArrayView<float> y, int d, int product)
    {
        var shared = SharedMemory.Allocate<float>(256);
        for (var r = (long)Grid.IdxX; r < y.Length; r += Grid.DimX)
        {
            var part = 0f;
            for (var j = Group.IdxX; j < d; j += Group.DimX)
                part += product == 1 ? a[(r * d) + j] * b[(r * d) + j] : a[(r * d) + j];
            var sum = GpuMath.GroupSum(part, shared);
            if (Group.IdxX == 0) y[r] = sum;
        }
    }
}
