using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Euclidean norm of each row, without an epsilon: the norms of the decoder's directions. The gradient is
/// dy[r] w[r] / norm[r], and 0 for a row of zeros, as PyTorch has it. O(r d).
/// </summary>
[Kernel]
public static class RowNorm
{
    private const int PieceRows = 32;

    /// <summary>y[r] = ||w[r]||.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="w">F32 [r, d].</param>
    /// <returns>F32 [r]; differentiable.</returns>
    /// <exception cref="ShapeException"><paramref name="w"/> is not a matrix.</exception>
    public static Tensor L2(TensorScope scope, Tensor w)
    {
        if (w.Shape.Rank != 2) throw new ShapeException($"row norm: {w.Shape} is not a matrix");
        var y = scope.New([w.Shape[0]]);
        if (y.Count > 0)
        {
            if (scope.Device is CpuDevice cpu) Cpu(cpu, w, y);
            else Gpu((GpuDevice)scope.Device, w, y);
        }

        scope.Recorder?.Record(y, [w], dy =>
        {
            var dw = scope.New(w.Shape);
            if (dw.Count == 0) return [dw];
            if (scope.Device is CpuDevice device) CpuBackward(device, w, y, dy, dw);
            else GpuBackward((GpuDevice)scope.Device, w, y, dy, dw);
            return [dw];
        });
        return y;
    }

    internal static double[] Reference(double[] w, int rows)
    {
        var y = new double[rows];
        for (var i = 0; i < w.Length; i++) y[i / (w.Length / rows)] += w[i] * w[i];
        for (var r = 0; r < rows; r++) y[r] = Math.Sqrt(y[r]);
        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var shape in new Shape[] { [0, 3], [1, 1], [3, 5], [35, 33] })
        {
            yield return new KernelCase(shape.ToString(), [new(shape, Differentiable: true)],
                (scope, t) => [L2(scope, t[0])], x => [Reference(x[0], shape[0])]);
        }

        yield return new KernelCase("a row of zeros", [new([2, 3], Fill.Given, Values: [0, 0, 0, 3, 4, 0])],
            (scope, t) => [L2(scope, t[0])], x => [Reference(x[0], 2)]);
    }

    private static unsafe void Cpu(CpuDevice device, Tensor w, Tensor y)
    {
        float* pw = w.F32, py = y.F32;
        var d = w.Shape[1];
        device.Pool.ForRange(y.Count, PieceRows, (from, to) =>
        {
            for (var r = from; r < to; r++) py[r] = MathF.Sqrt(RowMath.Dot(pw + (r * d), pw + (r * d), d));
        });
    }

    private static unsafe void CpuBackward(CpuDevice device, Tensor w, Tensor y, Tensor dy, Tensor dw)
    {
        float* pw = w.F32, py = y.F32, pdy = dy.F32, pdw = dw.F32;
        var d = w.Shape[1];
        device.Pool.ForRange(y.Count, PieceRows, (from, to) =>
        {
            for (var r = from; r < to; r++) RowMath.Scale(pdw + (r * d), pw + (r * d), py[r] == 0 ? 0 : pdy[r] / py[r], d);
        });
    }

    private static void Gpu(GpuDevice device, Tensor w, Tensor y) =>
        device.Launch(NormKernel, (device.IsCuda ? w.Shape[0] : Math.Min(w.Shape[0], 2), device.GroupSize),
            w.View<float>(), y.View<float>(), w.Shape[1]);

    private static void GpuBackward(GpuDevice device, Tensor w, Tensor y, Tensor dy, Tensor dw) =>
        device.Launch(SlopeKernel, (device.GridFor(dw.Count), device.GroupSize),
            w.View<float>(), y.View<float>(), dy.View<float>(), dw.View<float>(), w.Shape[1]);

    [GpuKernel]
    private static void NormKernel(ArrayView<float> w, ArrayView<float> y, int d)
    {
        var shared = SharedMemory.Allocate<float>(GroupScan.Room);
        for (var r = (long)Grid.IdxX; r < y.Length; r += Grid.DimX)
        {
            var part = 0f;
            for (var j = Group.IdxX; j < d; j += Group.DimX) part += w[(r * d) + j] * w[(r * d) + j];
            var sum = GpuMath.GroupSum(part, shared);
            if (Group.IdxX == 0) y[r] = MathF.Sqrt(sum);
        }
    }

    [GpuKernel]
    private static void SlopeKernel(ArrayView<float> w, ArrayView<float> y, ArrayView<float> dy, ArrayView<float> dw, int d)
    {
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < dw.Length; i += (long)Grid.DimX * Group.DimX)
        {
            var r = i / d;
            dw[i] = y[r] == 0f ? 0f : dy[r] / y[r] * w[i];
        }
    }
}
