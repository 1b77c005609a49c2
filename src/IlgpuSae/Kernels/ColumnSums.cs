using System.Runtime.Intrinsics;
using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Sums over all axes but the last: y[j] = sum over i of x[i, j], the gradient of a bias. Chunks of 256 rows are summed
/// in row order, then the chunks in order, on every device. O(n) reads.
/// </summary>
[Kernel]
internal static class ColumnSums
{
    private const int ChunkRows = 256;

    /// <summary>Column sums of <paramref name="x"/>.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [..., n].</param>
    /// <param name="shape">Shape of the result, of count n; usually [n].</param>
    internal static Tensor Of(TensorScope scope, Tensor x, Shape shape)
    {
        if (shape.Count != x.Shape.Last) throw new ShapeException($"column sums: {x.Shape} summed to {shape}");
        var y = scope.New(shape);
        var chunks = Math.Max(1, (x.Shape.Rows + ChunkRows - 1) / ChunkRows);
        var partial = scope.New([chunks, x.Shape.Last]);
        foreach (var (source, target) in new[] { (x, partial), (partial, y) })
        {
            var chunk = ReferenceEquals(source, x) ? ChunkRows : chunks;
            if (scope.Device is CpuDevice cpu) Cpu(cpu, source, chunk, target);
            else Gpu((GpuDevice)scope.Device, source, chunk, target);
        }

        scope.Release(partial);
        scope.Recorder?.Record(y, [x], dy => [Spread(scope, dy, x.Shape)]);
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
        foreach (var (rows, columns) in new[] { (1, 1), (3, 5), (0, 3), (1, 17), (257, 33), (700, 9) })
        {
            yield return new KernelCase($"[{rows}, {columns}]", [new([rows, columns], Differentiable: rows < 5)],
                (scope, t) => [Of(scope, t[0], [columns])], x => [Reference(x[0], columns)]);
        }
    }

    /// <summary>The derivative: every row is dy.</summary>
    private static Tensor Spread(TensorScope scope, Tensor dy, Shape shape)
    {
        var ones = scope.New([shape.Rows, 1]);
        var values = new float[shape.Rows];
        Array.Fill(values, 1f);
        ones.CopyFrom<float>(values);
        return scope.Own(Gemm.Multiply(scope, ones, dy.Reshape([1, shape.Last])).Reshape(shape));
    }

    private static unsafe void Cpu(CpuDevice device, Tensor x, int chunkRows, Tensor y)
    {
        const int Strip = 1024;
        int rows = x.Shape.Rows, n = x.Shape.Last;
        if (n == 0) return;
        float* px = x.F32, py = y.F32;
        var strips = (n + Strip - 1) / Strip;
        device.Pool.For(checked((int)(y.Count / n) * strips), (piece, _) =>
        {
            var chunk = piece / strips;
            var j0 = piece % strips * Strip;
            var j1 = Math.Min(n, j0 + Strip);
            var sums = py + ((long)chunk * n);
            new Span<float>(sums + j0, j1 - j0).Clear();
            var end = Math.Min(rows, (long)(chunk + 1) * chunkRows);
            for (var i = (long)chunk * chunkRows; i < end; i++)
            {
                var row = px + (i * n);
                var j = j0;
                for (; j + 8 <= j1; j += 8) (Vector256.Load(sums + j) + Vector256.Load(row + j)).Store(sums + j);
                for (; j < j1; j++) sums[j] += row[j];
            }
        });
    }

    private static void Gpu(GpuDevice device, Tensor x, int chunkRows, Tensor y)
    {
        if (y.Count == 0) return;
        device.Launch(GpuKernel, (device.GridFor(y.Count), device.GroupSize), x.View<float>(), y.View<float>(), x.Shape.Last, x.Shape.Rows, chunkRows);
    }

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> x, ArrayView<float> y, int n, int rows, int chunkRows)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var o = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; o < y.Length; o += step)
        {
            var chunk = o / n;
            var j = o - (chunk * n);
            var end = (chunk + 1) * chunkRows;
            if (end > rows) end = rows;
            var sum = 0f;
            for (var i = chunk * chunkRows; i < end; i++) sum += x[(i * n) + j];
            y[o] = sum;
        }
    }
}
