using System.Runtime.Intrinsics;
using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Rotary position embedding: for pair p of the first r dimensions of a head, (a, b) becomes
/// (a cos - b sin, b cos + a sin) with the table's row of the token's position; the other dimensions are copied.
/// Pairs are (p, p + r/2) (GPT-NeoX, LLaMA) or (2p, 2p + 1) (GPT-J). O(n). Su et al. 2021, arXiv:2104.09864.
/// </summary>
[Kernel]
public static class Rotary
{
    /// <summary>Rotates queries or keys.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [batch, pos, heads, d_head].</param>
    /// <param name="cos">F32 [n, r/2]; constant for the gradient. r is at most d_head.</param>
    /// <param name="sin">F32 [n, r/2].</param>
    /// <param name="firstPosition">Position of the first token: its row of the tables.</param>
    /// <param name="adjacentPairs">Pairs (2p, 2p + 1) instead of (p, p + r/2).</param>
    /// <returns>F32, x's shape.</returns>
    /// <exception cref="ShapeException">The shapes do not fit, or the tables end before the last position.</exception>
    public static Tensor Apply(TensorScope scope, Tensor x, Tensor cos, Tensor sin, int firstPosition, bool adjacentPairs = false)
    {
        if (x.Shape.Rank != 4) throw new ShapeException($"rotary: x is {x.Shape}, expected [batch, pos, heads, d_head]");
        if (cos.Shape.Rank != 2 || cos.Shape != sin.Shape || cos.Shape[1] * 2L > x.Shape[3])
            throw new ShapeException($"rotary: tables {cos.Shape} and {sin.Shape} do not fit heads of {x.Shape[3]} dimensions");
        if (firstPosition < 0 || firstPosition > (long)cos.Shape[0] - x.Shape[1])
        {
            throw new ShapeException(
                $"rotary: positions {firstPosition}..{(long)firstPosition + x.Shape[1] - 1} do not lie in tables of {cos.Shape[0]} positions; the text is longer than the model's context");
        }

        return Rotate(scope, x, cos, sin, firstPosition, adjacentPairs, 1);
    }

    internal static double[] Reference(double[] x, double[] cos, double[] sin, Shape shape, int half, int first, bool adjacent)
    {
        int positions = shape[1], heads = shape[2], d = shape[3];
        var y = (double[])x.Clone();
        for (var row = 0; row * d < x.Length; row++)
        {
            var position = first + (row / heads % positions);
            for (var p = 0; p < half; p++)
            {
                var i = (row * d) + (adjacent ? 2 * p : p);
                var j = adjacent ? i + 1 : i + half;
                double c = cos[(position * half) + p], s = sin[(position * half) + p];
                y[i] = (x[i] * c) - (x[j] * s);
                y[j] = (x[j] * c) + (x[i] * s);
            }
        }

        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var (shape, half, first) in new (Shape, int, int)[]
        {
            ([0, 3, 2, 8], 4, 0), ([1, 1, 1, 2], 1, 5), ([2, 3, 2, 10], 3, 1), ([1, 5, 3, 16], 8, 0), ([2, 2, 1, 37], 17, 4), ([2, 40, 6, 64], 32, 3),
        })
        {
            foreach (var adjacent in new[] { false, true })
            {
                var small = shape.Count < 1000;
                Shape table = [first + shape[1] + 2, half];
                yield return new KernelCase($"{shape}, rotary {2 * half}, from {first}, adjacent {adjacent}",
                    [new(shape, Differentiable: small), new(table), new(table)],
                    (scope, t) => [Apply(scope, t[0], t[1], t[2], first, adjacent)],
                    v => [Reference(v[0], v[1], v[2], shape, half, first, adjacent)])
                { OnIlgpuCpu = small };
            }
        }
    }

    /// <summary>Rotates by the tables' angles, or back (sign -1): the transpose, which is the derivative.</summary>
    private static Tensor Rotate(TensorScope scope, Tensor x, Tensor cos, Tensor sin, int first, bool adjacent, float sign)
    {
        var y = scope.New(x.Shape);
        if (scope.Device is CpuDevice cpu) Cpu(cpu, x, cos, sin, y, first, adjacent, sign);
        else Gpu((GpuDevice)scope.Device, x, cos, sin, y, first, adjacent, sign);
        scope.Recorder?.Record(y, [x], dy => [Rotate(scope, dy, cos, sin, first, adjacent, -sign)]);
        return y;
    }

    private static unsafe void Cpu(CpuDevice device, Tensor x, Tensor cos, Tensor sin, Tensor y, int first, bool adjacent, float sign)
    {
        if (y.Count == 0) return;
        float* px = x.F32, pc = cos.F32, ps = sin.F32, py = y.F32;
        long positions = x.Shape[1], heads = x.Shape[2], d = x.Shape[3], half = cos.Shape[1];
        Lanes.ForRows(device, x.Shape.Rows, d, r =>
        {
            var at = (first + (r / heads % positions)) * half;
            float* a = px + (r * d), o = py + (r * d), c = pc + at, s = ps + at;
            if (adjacent)
            {
                for (var p = 0; p < half; p++)
                {
                    float u = a[2 * p], v = a[(2 * p) + 1], sn = sign * s[p];
                    o[2 * p] = (u * c[p]) - (v * sn);
                    o[(2 * p) + 1] = (v * c[p]) + (u * sn);
                }
            }
            else
            {
                for (long p = 0; p < half; p += 8)
                {
                    var n = half - p;
                    Vector256<float> u = Lanes.Load(a + p, n), v = Lanes.Load(a + half + p, n), cs = Lanes.Load(c + p, n);
                    var sn = Vector256.Create(sign) * Lanes.Load(s + p, n);
                    Lanes.Store((u * cs) - (v * sn), o + p, n);
                    Lanes.Store((v * cs) + (u * sn), o + half + p, n);
                }
            }

            for (var i = 2 * half; i < d; i++) o[i] = a[i];
        });
    }

    private static void Gpu(GpuDevice device, Tensor x, Tensor cos, Tensor sin, Tensor y, int first, bool adjacent, float sign)
    {
        if (y.Count == 0) return;
        device.Launch(GpuKernel, (device.GridFor(y.Count), device.GroupSize), x.View<float>(), cos.View<float>(), sin.View<float>(), y.View<float>(),
            x.Shape[1], x.Shape[2], x.Shape[3], cos.Shape[1], first, adjacent ? 1 : 0, sign);
    }

    [GpuKernel]
    private static void GpuKernel(
        ArrayView<float> x, ArrayView<float> cos, ArrayView<float> sin, ArrayView<float> y,
        int positions, int heads, int d, int half, int first, int adjacent, float sign)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += step)
        {
            var row = i / d;
            var c = (int)(i - (row * d));
            if (c >= 2 * half)
            {
                y[i] = x[i];
                continue;
            }

            var second = adjacent != 0 ? (c & 1) != 0 : c >= half;
            var pair = adjacent != 0 ? c >> 1 : second ? c - half : c;
            var distance = adjacent != 0 ? 1 : half;
            var other = x[second ? i - distance : i + distance];
            var at = ((first + (row / heads % positions)) * half) + pair;
            var s = sign * sin[at];
            y[i] = second ? (x[i] * cos[at]) + (other * s) : (x[i] * cos[at]) - (other * s);
        }
    }
}
