using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Mean and standard deviation of each row, the latter with divisor d - 1 as <c>torch.std</c> has it (0 for d = 1):
/// what SAEs with <c>normalize_activations = layer_norm</c> use. O(n d) reads.
/// </summary>
[Kernel]
public static class RowMoments
{
    private const int PieceRows = 64;

    /// <summary>y[r] = mean_i x[r, i].</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [n, d], d at least 1.</param>
    /// <returns>F32 [n]; differentiable.</returns>
    public static Tensor Mean(TensorScope scope, Tensor x)
    {
        var y = Run(scope, x, deviation: false);
        scope.Recorder?.Record(y, [x], dy => [Spread(scope, x, y, dy, deviation: false)]);
        return y;
    }

    /// <summary>y[r] = sqrt(sum_i (x[r, i] - mean)^2 / (d - 1)).</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [n, d], d at least 1.</param>
    /// <returns>F32 [n]; differentiable, with gradient 0 for a constant row.</returns>
    public static Tensor Deviation(TensorScope scope, Tensor x)
    {
        var y = Run(scope, x, deviation: true);
        scope.Recorder?.Record(y, [x], dy => [Spread(scope, x, y, dy, deviation: true)]);
        return y;
    }

    internal static double[] Reference(double[] x, int d, bool deviation)
    {
        var y = new double[x.Length / d];
        for (var r = 0; r < y.Length; r++)
        {
            var row = x.AsSpan(r * d, d).ToArray();
            var mean = row.Average();
            y[r] = !deviation ? mean : d == 1 ? 0 : Math.Sqrt(row.Sum(v => (v - mean) * (v - mean)) / (d - 1));
        }

        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var (n, d) in new[] { (0, 4), (3, 2), (5, 7), (66, 33) })
        {
            yield return new KernelCase($"mean [{n}, {d}]", [new([n, d], Differentiable: true)],
                (scope, t) => [Mean(scope, t[0])], x => [Reference(x[0], d, deviation: false)]);
            yield return new KernelCase($"deviation [{n}, {d}]", [new([n, d], Differentiable: true)],
                (scope, t) => [Deviation(scope, t[0])], x => [Reference(x[0], d, deviation: true)]);
        }

        yield return new KernelCase("deviation of one column", [new([3, 1])],
            (scope, t) => [Deviation(scope, t[0])], x => [Reference(x[0], 1, deviation: true)]);
    }

    private static Tensor Run(TensorScope scope, Tensor x, bool deviation)
    {
        if (x.Shape.Rank != 2 || x.Shape[1] < 1) throw new ShapeException($"row moments: {x.Shape} is not a matrix with columns");
        var y = scope.New([x.Shape[0]]);
        if (y.Count == 0) return y;
        if (scope.Device is CpuDevice cpu) Cpu(cpu, x, y, deviation);
        else
        {
            var device = (GpuDevice)scope.Device;
            device.Launch(GpuKernel, (device.IsCuda ? x.Shape[0] : Math.Min(x.Shape[0], 2), device.GroupSize),
                x.View<float>(), y.View<float>(), x.Shape[1], deviation ? 1 : 0);
        }

        return y;
    }

    /// <summary>dx = dy / d, or dy (x - mean) / ((d - 1) deviation).</summary>
    private static Tensor Spread(TensorScope scope, Tensor x, Tensor y, Tensor dy, bool deviation)
    {
        var d = x.Shape[1];
        if (!deviation) return RowAffine.Apply(scope, scope.Zeros(x.Shape), dy, Scale.By(scope, dy, 1f / d));
        var unit = RowAffine.Undo(scope, x, y, Mean(scope, x), 0);
        return RowAffine.Apply(scope, unit, Scale.By(scope, dy, d == 1 ? 0 : 1f / (d - 1)), null);
    }

    private static unsafe void Cpu(CpuDevice device, Tensor x, Tensor y, bool deviation)
    {
        float* px = x.F32, py = y.F32;
        var d = x.Shape[1];
        device.Pool.ForRange(x.Shape[0], PieceRows, (from, to) =>
        {
            for (var r = from; r < to; r++)
            {
                var row = px + (r * d);
                var sum = 0.0;
                for (var i = 0; i < d; i++) sum += row[i];
                var mean = sum / d;
                py[r] = (float)mean;
                if (!deviation) continue;
                var squares = 0.0;
                for (var i = 0; i < d; i++) squares += (row[i] - mean) * (row[i] - mean);
                py[r] = d == 1 ? 0 : (float)Math.Sqrt(squares / (d - 1));
            }
        });
    }

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> x, ArrayView<float> y, int d, int deviation)
    {
        var shared = SharedMemory.Allocate<float>(256);
        for (var r = (long)Grid.IdxX; r < y.Length; r += Grid.DimX)
        {
            var part = 0f;
            for (var j = Group.IdxX; j < d; j += Group.DimX) part += x[(r * d) + j];
            var mean = GpuMath.GroupSum(part, shared) / d;
            part = 0f;
            for (var j = Group.IdxX; j < d; j += Group.DimX) part += (x[(r * d) + j] - mean) * (x[(r * d) + j] - mean);
            var squares = GpuMath.GroupSum(part, shared);
            if (Group.IdxX == 0) y[r] = deviation == 0 ? mean : d == 1 ? 0f : MathF.Sqrt(squares / (d - 1));
        }
    }
}
