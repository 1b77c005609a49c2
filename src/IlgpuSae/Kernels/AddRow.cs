using System.Runtime.Intrinsics;
using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>Adds one row to every row: y[r, c] = x[r, c] + factor row[c] (biases, centring). O(n).</summary>
[Kernel]
public static class AddRow
{
    /// <summary>y = x + factor row, the row repeated over the leading axes.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [..., (row's shape)].</param>
    /// <param name="row">F32; its axes are the last axes of <paramref name="x"/>.</param>
    /// <param name="factor">Constant for the gradient.</param>
    /// <returns>F32, x's shape.</returns>
    /// <exception cref="ShapeException">The row's axes are not x's last axes.</exception>
    public static Tensor Forward(TensorScope scope, Tensor x, Tensor row, float factor = 1)
    {
        Check("add row", x, row);
        var y = scope.New(x.Shape);
        if (scope.Device is CpuDevice cpu) Cpu(cpu, x, row, factor, y);
        else Gpu((GpuDevice)scope.Device, x, row, factor, y);
        if (scope.Recorder is { } recorder)
        {
            var needRow = recorder.Tracks(row);
            recorder.Record(y, [x, row], dy => [dy, needRow ? RowGradient(scope, dy, row.Shape, factor) : null]);
        }

        return y;
    }

    internal static double[] Reference(double[] x, double[] row, float factor)
    {
        var y = new double[x.Length];
        for (var i = 0; i < y.Length; i++) y[i] = x[i] + (factor * row[i % row.Length]);
        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var (x, row, factor) in new (Shape, Shape, float)[]
        {
            ([0, 3], [3], 1), ([1], [1], 1), ([3, 5], [5], -1), ([2, 3, 4, 9], [4, 9], 1), ([4, 64], [64], 0.5f), ([900, 77], [77], 1),
        })
        {
            var small = x.Count < 1000;
            yield return new KernelCase($"{x} + {factor} {row}", [new(x, Differentiable: small), new(row, Differentiable: small)],
                (scope, t) => [Forward(scope, t[0], t[1], factor)], v => [Reference(v[0], v[1], factor)])
            { OnIlgpuCpu = small };
        }
    }

    /// <summary>Checks that a row's axes are the last axes of a tensor.</summary>
    internal static void Check(string what, Tensor x, Tensor row)
    {
        var d = x.Shape.Dims;
        if (row.Shape.Rank > d.Length || !d[^row.Shape.Rank..].SequenceEqual(row.Shape.Dims))
            throw new ShapeException($"{what}: the row is {row.Shape}, which are not the last axes of {x.Shape}");
    }

    private static Tensor RowGradient(TensorScope scope, Tensor dy, Shape shape, float factor)
    {
        var sum = SumRows.Of(scope, dy, shape);
        return factor == 1 ? sum : Scale.By(scope, sum, factor);
    }

    private static unsafe void Cpu(CpuDevice device, Tensor x, Tensor row, float factor, Tensor y)
    {
        if (y.Count == 0) return;
        float* px = x.F32, pr = row.F32, py = y.F32;
        var d = row.Count;
        Lanes.ForRows(device, y.Count / d, d, r =>
        {
            float* a = px + (r * d), b = py + (r * d);
            var f = Vector256.Create(factor);
            for (long i = 0; i < d; i += 8)
                Lanes.Store(Vector256.MultiplyAddEstimate(f, Lanes.Load(pr + i, d - i), Lanes.Load(a + i, d - i)), b + i, d - i);
        });
    }

    private static void Gpu(GpuDevice device, Tensor x, Tensor row, float factor, Tensor y)
    {
        if (y.Count == 0) return;
        device.Launch(GpuKernel, (device.GridFor(y.Count), device.GroupSize), x.View<float>(), row.View<float>(), factor, y.View<float>());
    }

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> x, ArrayView<float> row, float factor, ArrayView<float> y)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += step) y[i] = x[i] + (factor * row[i % row.Length]);
    }
}
