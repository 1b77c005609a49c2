using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Sum over the rows of a matrix: y[j] = sum_r x[r, j], the gradient of a bias that was added to every row. Blocks of
/// 64 rows are summed first, then the blocks, in order: the rounding error stays far below
/// that of one long chain, and the bits do not depend on the threads. O(n d) reads.
/// </summary>
[Kernel]
internal static class ColumnSum
{
    private const int BlockRows = 64;
    private const int StripColumns = 64;

    /// <summary>Sums the rows of <paramref name="x"/>.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [..., d].</param>
    /// <returns>F32 [d].</returns>
    internal static Tensor Of(TensorScope scope, Tensor x)
    {
        var y = scope.New([x.Shape.Last]);
        if (scope.Device is CpuDevice cpu) Cpu(cpu, x, y);
        else Gpu(scope, (GpuDevice)scope.Device, x, y);
        return y;
    }

    internal static double[] Reference(double[] x, int columns)
    {
        var y = new double[columns];
        for (var i = 0; i < x.Length; i++) y[i % columns] += x[i];
        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var shape in new Shape[] { [0, 3], [1, 1], [5, 7], [65, 33], [130, 9] })
            yield return new KernelCase(shape.ToString(), [new(shape)], (scope, t) => [Of(scope, t[0])], x => [Reference(x[0], shape.Last)]);
        yield return new KernelCase("larger than a strip", [new([1000, 130])], (scope, t) => [Of(scope, t[0])], x => [Reference(x[0], 130)])
        { OnIlgpuCpu = false };
    }

    private static unsafe void Cpu(CpuDevice device, Tensor x, Tensor y)
    {
        float* px = x.F32, py = y.F32;
        int rows = x.Shape.Rows, d = x.Shape.Last;
        device.Pool.For((d + StripColumns - 1) / StripColumns, (strip, _) =>
        {
            var from = strip * StripColumns;
            var n = Math.Min(StripColumns, d - from);
            var block = stackalloc float[StripColumns];
            var total = py + from;
            new Span<float>(total, n).Clear();
            for (var r0 = 0; r0 < rows; r0 += BlockRows)
            {
                new Span<float>(block, n).Clear();
                for (var r = r0; r < Math.Min(rows, r0 + BlockRows); r++) RowMath.Axpy(block, px + ((long)r * d) + from, 1, n);
                RowMath.Axpy(total, block, 1, n);
            }
        });
    }

    private static void Gpu(TensorScope scope, GpuDevice device, Tensor x, Tensor y)
    {
        int rows = x.Shape.Rows, d = x.Shape.Last;
        if (d == 0) return;
        var blocks = (rows + BlockRows - 1) / BlockRows;
        var parts = scope.New([blocks, d]);
        if (blocks > 0)
        {
            device.Launch(PartKernel, (device.GridFor(parts.Count), device.GroupSize),
                x.View<float>(), parts.View<float>(), rows, d, BlockRows);
        }

        device.Launch(PartKernel, (device.GridFor(d), device.GroupSize), parts.View<float>(), y.View<float>(), blocks, d, Math.Max(1, blocks));
        scope.Release(parts);
    }

    /// <summary>y[b, j] = sum of the b-th block of rows of x, a thread an element.</summary>
    [GpuKernel]
    private static void PartKernel(ArrayView<float> x, ArrayView<float> y, int rows, int d, int blockRows)
    {
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += (long)Grid.DimX * Group.DimX)
        {
            var block = (int)(i / d);
            var j = (int)(i - ((long)block * d));
            var end = IntrinsicMath.Min(rows, (block + 1) * blockRows);
            var sum = 0f;
            for (var r = block * blockRows; r < end; r++) sum += x[((long)r * d) + j];
            y[i] = sum;
        }
    }
}
