using System.Runtime.Intrinsics;
using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// The reconstruction loss of an SAE: mean over rows of the sum over the model's dimensions of (x_hat - x)^2. SAELens'
/// <c>mse_loss</c>. O(n d); where a gradient will be wanted the CPU makes it in the same sweep.
/// </summary>
[Kernel]
public static class SquaredError
{
    private const int PieceRows = 32;

    /// <summary>mean_r sum_j (x_hat[r, j] - x[r, j])^2.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="xhat">Reconstruction, F32 [n, d].</param>
    /// <param name="x">Target, F32 [n, d].</param>
    /// <returns>F32 []; differentiable in both.</returns>
    /// <exception cref="ShapeException">The shapes differ.</exception>
    public static Tensor MeanOfRowSums(TensorScope scope, Tensor xhat, Tensor x)
    {
        if (xhat.Shape != x.Shape) throw new ShapeException($"squared error: reconstruction {xhat.Shape} and target {x.Shape} differ");
        var rows = scope.New([x.Shape.Rows]);
        var factor = x.Shape.Rows == 0 ? 0 : 2f / x.Shape.Rows;
        var tracked = scope.Recorder is { } recorder && (recorder.Tracks(xhat) || recorder.Tracks(x));
        Tensor? slope = null;
        if (scope.Device is CpuDevice cpu)
        {
            // d(loss)/d(x_hat), before what comes from above.
            if (tracked) slope = scope.New(x.Shape);
            Cpu(cpu, xhat, x, rows, slope, factor);
        }
        else if (rows.Count > 0)
        {
            Gpu((GpuDevice)scope.Device, xhat, x, rows);
        }

        var y = RowMean.Of(scope, rows);
        if (tracked)
        {
            bool first = scope.Recorder!.Tracks(xhat), second = scope.Recorder.Tracks(x);
            scope.Recorder.Record(y, [xhat, x], dy => scope.Device is CpuDevice device
                ? [first ? CpuBackward(scope, device, slope!, dy, 1) : null, second ? CpuBackward(scope, device, slope!, dy, -1) : null]
                : [first ? GpuBackward(scope, xhat, x, dy, factor) : null, second ? GpuBackward(scope, xhat, x, dy, -factor) : null]);
        }

        return y;
    }

    internal static double[] Reference(double[] xhat, double[] x, int rows)
    {
        var sum = 0.0;
        for (var i = 0; i < x.Length; i++) sum += (xhat[i] - x[i]) * (xhat[i] - x[i]);
        return [rows == 0 ? 0 : sum / rows];
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var shape in new Shape[] { [0, 3], [1, 1], [3, 5], [2, 4, 9], [35, 20] })
        {
            yield return new KernelCase(shape.ToString(), [new(shape, Differentiable: true), new(shape, Differentiable: true)],
                (scope, t) => [MeanOfRowSums(scope, t[0], t[1])],
                x => [Reference(x[0], x[1], shape.Rows)]);
        }
    }

    private static unsafe void Cpu(CpuDevice device, Tensor xhat, Tensor x, Tensor rows, Tensor? slope, float factor)
    {
        float* pa = xhat.F32, pb = x.F32, sums = rows.F32, ps = slope is null ? null : slope.F32;
        var d = x.Shape.Last;
        device.Pool.ForRange(x.Shape.Rows, PieceRows, (from, to) =>
        {
            var f = Vector256.Create(factor);
            for (var r = from; r < to; r++)
            {
                float* a = pa + (r * d), b = pb + (r * d), o = ps + (r * d);
                Vector256<float> s0 = default, s1 = default;
                var j = 0;
                for (; j + 16 <= d; j += 16)
                {
                    var u0 = Vector256.Load(a + j) - Vector256.Load(b + j);
                    var u1 = Vector256.Load(a + j + 8) - Vector256.Load(b + j + 8);
                    s0 = Vector256.MultiplyAddEstimate(u0, u0, s0);
                    s1 = Vector256.MultiplyAddEstimate(u1, u1, s1);
                    if (ps == null) continue;
                    (u0 * f).Store(o + j);
                    (u1 * f).Store(o + j + 8);
                }

                var sum = Vector256.Sum(s0 + s1);
                for (; j < d; j++)
                {
                    var u = a[j] - b[j];
                    sum += u * u;
                    if (ps != null) o[j] = u * factor;
                }

                sums[r] = sum;
            }
        });
    }

    private static unsafe Tensor CpuBackward(TensorScope scope, CpuDevice device, Tensor slope, Tensor dy, float sign)
    {
        var factor = sign * *dy.F32;
        if (factor == 1) return slope;
        var y = scope.New(slope.Shape);
        float* ps = slope.F32, py = y.F32;
        device.Pool.ForRange(y.Count, 1 << 15, (from, to) => RowMath.Scale(py + from, ps + from, factor, (int)(to - from)));
        return y;
    }

    private static void Gpu(GpuDevice device, Tensor xhat, Tensor x, Tensor rows) =>
        device.Launch(RowKernel, (device.IsCuda ? x.Shape.Rows : Math.Min(x.Shape.Rows, 2), device.GroupSize),
            xhat.View<float>(), x.View<float>(), rows.View<float>(), x.Shape.Last);

    private static Tensor GpuBackward(TensorScope scope, Tensor xhat, Tensor x, Tensor dy, float factor)
    {
        var y = scope.New(x.Shape);
        var device = (GpuDevice)scope.Device;
        if (y.Count > 0)
        {
            device.Launch(SlopeKernel, (device.GridFor(y.Count), device.GroupSize),
                xhat.View<float>(), x.View<float>(), dy.View<float>(), y.View<float>(), factor);
        }

        return y;
    }

    [GpuKernel]
    private static void RowKernel(ArrayView<float> xhat, ArrayView<float> x, ArrayView<float> rows, int d)
    {
        var shared = SharedMemory.Allocate<float>(GroupScan.Room);
        for (var r = (long)Grid.IdxX; r < rows.Length; r += Grid.DimX)
        {
            var part = 0f;
            for (var j = Group.IdxX; j < d; j += Group.DimX)
            {
                var u = xhat[(r * d) + j] - x[(r * d) + j];
                part += u * u;
            }

            var sum = GpuMath.GroupSum(part, shared);
            if (Group.IdxX == 0) rows[r] = sum;
        }
    }

    [GpuKernel]
    private static void SlopeKernel(ArrayView<float> xhat, ArrayView<float> x, ArrayView<float> dy, ArrayView<float> y, float factor)
    {
        var f = factor * dy[0];
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += (long)Grid.DimX * Group.DimX) y[i] = f * (xhat[i] - x[i]);
    }
}
