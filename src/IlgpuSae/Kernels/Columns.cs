using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Some columns of a matrix, and matrices side by side: activations of several hooks travel as one wide row a token and
/// are taken apart again. Copies bits. O(n w).
/// </summary>
[Kernel]
public static class Columns
{
    /// <summary>y[r, c] = x[r, first + c].</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [n, w].</param>
    /// <param name="first">First column taken.</param>
    /// <param name="width">Columns taken.</param>
    /// <returns>F32 [n, width]; differentiable.</returns>
    /// <exception cref="ShapeException"><paramref name="x"/> is no matrix or does not have these columns.</exception>
    public static Tensor Take(TensorScope scope, Tensor x, int first, int width)
    {
        if (x.Shape.Rank != 2 || first < 0 || width < 0 || first > x.Shape[1] - width)
            throw new ShapeException($"columns: {first} to {first + width - 1} are not all in {x.Shape}");
        var y = scope.New([x.Shape[0], width]);
        Move(scope, x, first, y, 0, width);
        scope.Recorder?.Record(y, [x], dy =>
        {
            var dx = scope.Zeros(x.Shape);
            Move(scope, dy, 0, dx, first, width);
            return [dx];
        });
        return y;
    }

    /// <summary>The parts' columns, one part after another.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="parts">F32 [n, w_i] each, at least one.</param>
    /// <returns>F32 [n, sum of w_i]; differentiable.</returns>
    /// <exception cref="ShapeException">A part is no matrix, or the numbers of rows differ.</exception>
    public static Tensor Join(TensorScope scope, params IReadOnlyList<Tensor> parts)
    {
        if (parts.Count == 0 || parts.Any(p => p.Shape.Rank != 2 || p.Shape[0] != parts[0].Shape[0]))
            throw new ShapeException($"columns: {string.Join(", ", parts.Select(p => p.Shape))} cannot stand side by side; each must be [n, w] with the same n");
        var y = scope.New([parts[0].Shape[0], parts.Sum(p => p.Shape[1])]);
        var first = 0;
        foreach (var part in parts)
        {
            Move(scope, part, 0, y, first, part.Shape[1]);
            first += part.Shape[1];
        }

        scope.Recorder?.Record(y, [.. parts], dy =>
        {
            var gradients = new Tensor?[parts.Count];
            for (int i = 0, at = 0; i < parts.Count; at += parts[i++].Shape[1]) gradients[i] = Take(scope, dy, at, parts[i].Shape[1]);
            return gradients;
        });
        return y;
    }

    internal static double[] Reference(double[] x, int n, int first, int width)
    {
        var y = new double[n * width];
        for (var i = 0; i < y.Length; i++) y[i] = x[(i / width * (x.Length / n)) + first + (i % width)];
        return y;
    }

    internal static double[] Reference(double[] a, double[] b, int n)
    {
        int wa = n == 0 ? 0 : a.Length / n, wb = n == 0 ? 0 : b.Length / n;
        var y = new double[a.Length + b.Length];
        for (var r = 0; r < n; r++)
        {
            Array.Copy(a, r * wa, y, r * (wa + wb), wa);
            Array.Copy(b, r * wb, y, (r * (wa + wb)) + wa, wb);
        }

        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var (n, w, first, width) in new[] { (0, 3, 1, 2), (1, 1, 0, 1), (3, 5, 1, 3), (37, 40, 7, 33), (4, 6, 6, 0) })
        {
            yield return new KernelCase($"columns {first} to {first + width} of [{n}, {w}]", [new([n, w], Differentiable: true)],
                (scope, t) => [Take(scope, t[0], first, width)],
                x => [Reference(x[0], n, first, width)]);
        }

        foreach (var (n, a, b) in new[] { (0, 3, 2), (1, 1, 1), (3, 5, 2), (37, 9, 40), (2, 4, 0) })
        {
            yield return new KernelCase($"[{n}, {a}] beside [{n}, {b}]", [new([n, a], Differentiable: true), new([n, b], Differentiable: true)],
                (scope, t) => [Join(scope, t[0], t[1])],
                x => [Reference(x[0], x[1], n)]);
        }
    }

    /// <summary>y[r, toFirst + c] = x[r, fromFirst + c] for c below width; the rest of y is left alone.</summary>
    private static void Move(TensorScope scope, Tensor x, int fromFirst, Tensor y, int toFirst, int width)
    {
        if (width == 0 || x.Shape[0] == 0) return;
        if (scope.Device is CpuDevice cpu) Cpu(cpu, x, fromFirst, y, toFirst, width);
        else Gpu((GpuDevice)scope.Device, x, fromFirst, y, toFirst, width);
    }

    private static unsafe void Cpu(CpuDevice device, Tensor x, int fromFirst, Tensor y, int toFirst, int width)
    {
        float* px = x.F32 + fromFirst, py = y.F32 + toFirst;
        int wx = x.Shape[1], wy = y.Shape[1];
        device.Pool.ForRange(x.Shape[0], 64, (from, to) =>
        {
            for (var r = from; r < to; r++) Buffer.MemoryCopy(px + (r * wx), py + (r * wy), width * 4L, width * 4L);
        });
    }

    private static void Gpu(GpuDevice device, Tensor x, int fromFirst, Tensor y, int toFirst, int width) =>
        device.Launch(GpuKernel, (device.GridFor((long)x.Shape[0] * width), device.GroupSize),
            x.View<float>(), y.View<float>(), (long)x.Shape[0] * width, fromFirst, x.Shape[1], toFirst, y.Shape[1], width);

    [GpuKernel]
    private static void GpuKernel(
        ArrayView<float> x, ArrayView<float> y, long count, int fromFirst, int fromWidth, int toFirst, int toWidth, int width)
    {
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < count; i += (long)Grid.DimX * Group.DimX)
        {
            var r = i / width;
            var c = i - (r * width);
            y[(r * toWidth) + toFirst + c] = x[(r * fromWidth) + fromFirst + c];
        }
    }
}
