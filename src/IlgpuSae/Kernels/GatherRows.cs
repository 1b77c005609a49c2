using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Some rows of a matrix, in a given order: the weights of the dead features for the auxiliary loss. The gradient goes
/// back to those rows and is zero elsewhere; the rows must be distinct. O(m d), the gradient O(r d).
/// </summary>
[Kernel]
public static class GatherRows
{
    /// <summary>y[i] = w[rows[i]].</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="w">F32 [r, d], or [r] (then the result is [m]).</param>
    /// <param name="rows">I32 [m], distinct, each in 0..r-1; not checked on ILGPU devices.</param>
    /// <returns>F32 [m, d]; differentiable in <paramref name="w"/>.</returns>
    /// <exception cref="ShapeException">A row does not exist, or <paramref name="w"/> has more than two axes.</exception>
    public static Tensor Forward(TensorScope scope, Tensor w, Tensor rows)
    {
        if (w.Shape.Rank is 0 or > 2) throw new ShapeException($"gather rows: {w.Shape} is not a matrix or a vector");
        var m = checked((int)rows.Count);
        var d = w.Shape.Rank == 2 ? w.Shape[1] : 1;
        var y = scope.New(w.Shape.Rank == 2 ? [m, d] : [m]);
        Move(scope, w, rows, y, d, back: false);
        scope.Recorder?.Record(y, [w], dy =>
        {
            var dw = scope.Zeros(w.Shape);
            Move(scope, dw, rows, dy, d, back: true);
            return [dw];
        });
        return y;
    }

    internal static double[] Reference(double[] w, double[] rows, int d)
    {
        var y = new double[rows.Length * d];
        for (var i = 0; i < y.Length; i++) y[i] = w[((int)rows[i / d] * d) + (i % d)];
        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        (Shape W, double[] Rows)[] cases = [([3, 4], []), ([1, 1], [0]), ([7, 5], [6, 0, 3]), ([40, 33], [39, 2, 1, 17]), ([9], [8, 1])];
        foreach (var (w, rows) in cases)
        {
            yield return new KernelCase($"{rows.Length} rows of {w}",
                [new(w, Differentiable: true), new([rows.Length], Fill.Given, Values: rows, Type: DType.I32)],
                (scope, t) => [Forward(scope, t[0], t[1])],
                x => [Reference(x[0], x[1], w.Rank == 2 ? w[1] : 1)]);
        }
    }

    private static void Move(TensorScope scope, Tensor w, Tensor rows, Tensor y, int d, bool back)
    {
        if (y.Count == 0) return;
        if (scope.Device is CpuDevice cpu) Cpu(cpu, w, rows, y, d, back);
        else Gpu((GpuDevice)scope.Device, w, rows, y, d, back);
    }

    private static unsafe void Cpu(CpuDevice device, Tensor w, Tensor rows, Tensor y, int d, bool back)
    {
        float* pw = w.F32, py = y.F32;
        var index = rows.I32;
        var count = w.Shape[0];
        for (var i = 0; i < rows.Count; i++)
        {
            if ((uint)index[i] >= (uint)count)
                throw new ShapeException($"gather rows: row {index[i]} does not exist in {w.Shape}");
        }

        device.Pool.ForRange(rows.Count, 64, (from, to) =>
        {
            for (var i = from; i < to; i++)
            {
                float* a = pw + ((long)index[i] * d), b = py + (i * d);
                if (back) Buffer.MemoryCopy(b, a, d * 4L, d * 4L);
                else Buffer.MemoryCopy(a, b, d * 4L, d * 4L);
            }
        });
    }

    private static void Gpu(GpuDevice device, Tensor w, Tensor rows, Tensor y, int d, bool back) =>
        device.Launch(GpuKernel, (device.GridFor(y.Count), device.GroupSize),
            w.View<float>(), rows.View<int>(), y.View<float>(), d, back ? 1 : 0);

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> w, ArrayView<int> rows, ArrayView<float> y, int d, int back)
    {
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += (long)Grid.DimX * Group.DimX)
        {
            var r = i / d;
            var at = ((long)rows[r] * d) + (i - (r * d));
            if (back != 0) w[at] = y[i];
            else y[i] = w[at];
        }
    }
}
