using System.Runtime.Intrinsics;
using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Sum over rows: y[c] = sum_r x[r, c], or sum_r x[r, c] t[r, c]: the gradient of everything that is broadcast over
/// rows. O(n d). Rows are added in order within blocks of 64, then the blocks, in an
/// order that depends on the number of rows alone.
/// </summary>
[Kernel]
internal static class SumRows
{
    private const int Strip = 32;
    private const int RowBlockBits = 6;
    private const int RowBlock = 1 << RowBlockBits;

    /// <summary>y[c] = sum_r x[r, c] times[r, c].</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [..., (shape)]: its last axes are <paramref name="shape"/>.</param>
    /// <param name="shape">Shape of the result.</param>
    /// <param name="times">F32, x's shape; null: ones.</param>
    /// <returns>F32 of <paramref name="shape"/>.</returns>
    internal static Tensor Of(TensorScope scope, Tensor x, Shape shape, Tensor? times = null)
    {
        var y = scope.New(shape);
        var columns = shape.Count;
        var rows = columns == 0 ? 0 : x.Count / columns;
        if (scope.Device is CpuDevice cpu) Cpu(cpu, x, times, y, rows, columns);
        else Gpu((GpuDevice)scope.Device, x, times ?? x, y, rows, columns, times is null ? 0 : 1);
        return y;
    }

    internal static double[] Reference(double[] x, double[]? times, int columns)
    {
        var y = new double[columns];
        for (var i = 0; i < x.Length; i++) y[i % columns] += x[i] * (times?[i] ?? 1);
        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var (rows, columns) in new[] { (0, 3), (1, 1), (5, 7), (33, 40), (130, 32), (2000, 77) })
        {
            Shape shape = [rows, columns];
            yield return new KernelCase($"{shape}", [new(shape)],
                (scope, t) => [Of(scope, t[0], [columns])], x => [Reference(x[0], null, columns)])
            { OnIlgpuCpu = rows < 1000 };
            yield return new KernelCase($"{shape} weighted", [new(shape), new(shape)],
                (scope, t) => [Of(scope, t[0], [columns], t[1])], x => [Reference(x[0], x[1], columns)])
            { OnIlgpuCpu = rows < 1000 };
        }
    }

    private static unsafe void Cpu(CpuDevice device, Tensor x, Tensor? times, Tensor y, long rows, long columns)
    {
        float* px = x.F32, pt = times is null ? null : times.F32, py = y.F32;
        device.Pool.ForRange(columns, Strip, (from, to) =>
        {
            if (to - from == Strip && pt == null)
            {
                CpuStrip(px + from, py + from, rows, columns);
                return;
            }

            for (var c = from; c < to; c += 8)
            {
                var total = Vector256<float>.Zero;
                var n = to - c;
                for (long block = 0; block < rows; block += RowBlock)
                {
                    var sum = Vector256<float>.Zero;
                    var end = Math.Min(rows, block + RowBlock);
                    for (var r = block; r < end; r++)
                    {
                        var v = Lanes.Load(px + (r * columns) + c, n);
                        sum = pt == null ? sum + v : Vector256.MultiplyAddEstimate(v, Lanes.Load(pt + (r * columns) + c, n), sum);
                    }

                    total += sum;
                }

                Lanes.Store(total, py + c, n);
            }
        });
    }

    /// <summary>A full strip in one pass over the rows: two cache lines of each.</summary>
    private static unsafe void CpuStrip(float* x, float* y, long rows, long columns)
    {
        Vector256<float> t0 = default, t1 = default, t2 = default, t3 = default;
        for (long block = 0; block < rows; block += RowBlock)
        {
            Vector256<float> a0 = default, a1 = default, a2 = default, a3 = default;
            var end = Math.Min(rows, block + RowBlock);
            for (var r = block; r < end; r++)
            {
                var row = x + (r * columns);
                a0 += Vector256.Load(row);
                a1 += Vector256.Load(row + 8);
                a2 += Vector256.Load(row + 16);
                a3 += Vector256.Load(row + 24);
            }

            t0 += a0;
            t1 += a1;
            t2 += a2;
            t3 += a3;
        }

        t0.Store(y);
        t1.Store(y + 8);
        t2.Store(y + 16);
        t3.Store(y + 24);
    }

    /// <summary>A thread sums one block of one column; the blocks' sums are rows again, until one block is left.</summary>
    private static void Gpu(GpuDevice device, Tensor x, Tensor times, Tensor y, long rows, long columns, int weighted)
    {
        if (y.Count == 0) return;
        Tensor? partial = null;
        while (true)
        {
            var blocks = Math.Max(1, (rows + RowBlock - 1) / RowBlock);
            var target = blocks == 1 ? y : new Tensor(device, [checked((int)(blocks * columns))]);
            device.Launch(GpuKernel, (device.GridFor(blocks * columns), device.GroupSize), x.View<float>(), times.View<float>(), target.View<float>(),
                rows, columns, weighted);
            partial?.Dispose();
            if (blocks == 1) return;
            x = times = partial = target;
            rows = blocks;
            weighted = 0;
        }
    }

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> x, ArrayView<float> times, ArrayView<float> y, long rows, long columns, int weighted)
    {
        var blocks = rows > RowBlock ? (rows + RowBlock - 1) >> RowBlockBits : 1;
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < blocks * columns; i += step)
        {
            var block = i / columns;
            var c = i - (block * columns);
            var first = block << RowBlockBits;
            var end = first + RowBlock < rows ? first + RowBlock : rows;
            var sum = 0f;
            for (var r = first; r < end; r++)
            {
                var at = (r * columns) + c;
                sum += weighted != 0 ? x[at] * times[at] : x[at];
            }

            y[i] = sum;
        }
    }
}
