using System.Runtime.Intrinsics;
using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Next-token loss of a language model: loss[b, i] = ln sum_v exp(logits[b, i, v]) - logits[b, i, tokens[b, i+1]], in nats;
/// the last position predicts nothing. The maximum is subtracted and long sums move on to double. O(n); the gradient
/// softmax - onehot is fused. A token outside the vocabulary gives NaN.
/// </summary>
[Kernel]
public static class CrossEntropy
{
    /// <summary>-ln softmax(logits[:, :-1])[tokens[:, 1:]].</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="logits">F32 [b, p, v].</param>
    /// <param name="tokens">I32 [b, p], each 0 .. v-1.</param>
    /// <returns>F32 [b, p-1].</returns>
    /// <exception cref="ShapeException">The shapes do not fit.</exception>
    public static Tensor PerToken(TensorScope scope, Tensor logits, Tensor tokens)
    {
        if (logits.Shape.Rank != 3 || logits.Shape[1] == 0 || tokens.Type != DType.I32 || tokens.Shape != [logits.Shape[0], logits.Shape[1]])
            throw new ShapeException($"cross entropy: logits are {logits.Shape}, tokens {tokens.Type} {tokens.Shape}; expected [b, p, v] and I32 [b, p]");
        var loss = scope.New([logits.Shape[0], logits.Shape[1] - 1]);
        // Maximum and sum of exponentials of each row, for the gradient.
        var stats = scope.New([(int)loss.Count, 2]);
        if (scope.Device is CpuDevice cpu) Cpu(cpu, logits, tokens, loss, stats);
        else Gpu((GpuDevice)scope.Device, logits, tokens, loss, stats);
        if (scope.Recorder is { } recorder && recorder.Tracks(logits))
        {
            recorder.Record(loss, [logits], d =>
            {
                var gradient = scope.New(logits.Shape);
                if (scope.Device is CpuDevice c) CpuBackward(c, logits, tokens, stats, d, gradient);
                else GpuBackward((GpuDevice)scope.Device, logits, tokens, stats, d, gradient);
                return [gradient];
            });
        }
        else
        {
            scope.Release(stats);
        }

        return loss;
    }

    internal static double[] Reference(double[] logits, double[] tokens, int positions, int v)
    {
        var loss = new List<double>();
        for (var row = 0; row < tokens.Length; row++)
        {
            if (row % positions == positions - 1) continue;
            var x = logits.AsSpan(row * v, v).ToArray();
            var max = x.Max();
            var target = (int)tokens[row + 1];
            loss.Add(target < 0 || target >= v ? double.NaN : Math.Log(x.Sum(l => Math.Exp(l - max))) + max - x[target]);
        }

        return [.. loss];
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var (b, p, v) in new[] { (1, 1, 3), (0, 4, 3), (1, 2, 1), (2, 3, 7), (3, 4, 33), (2, 3, 9001) })
        {
            var small = v < 100;
            yield return new KernelCase($"[{b}, {p}, {v}]", [new([b, p, v], Differentiable: small && p > 1), new([b, p], Fill.Index, Limit: v, Type: DType.I32)],
                (scope, t) => [PerToken(scope, t[0], t[1])], x => [Reference(x[0], x[1], p, v)])
            { OnIlgpuCpu = small };
        }

        yield return new KernelCase("large logits, a token outside",
            [new([1, 3, 3], Fill.Given, Values: [1e4, 9999, -1e4, -3e4, -3e4, -3e4 + 1, 0, 0, 0]), new([1, 3], Fill.Given, Values: [0, 1, 5], Type: DType.I32)],
            (scope, t) => [PerToken(scope, t[0], t[1])], x => [Reference(x[0], x[1], 3, 3)]);
    }

    /// <summary>Largest element of a row and sum of exp(x - max).</summary>
    internal static unsafe (float Max, double Sum) SumOfExponentials(float* x, long n)
    {
        var max = Lanes.Max(x, n);
        var shift = Vector256.Create(max);
        double total = 0;
        for (long start = 0; start < n; start += Lanes.Block)
        {
            var end = Math.Min(n, start + Lanes.Block);
            Vector256<float> a = default, b = default;
            var i = start;
            for (; i + 16 <= end; i += 16)
            {
                a += CpuMath.Exp(Vector256.Load(x + i) - shift);
                b += CpuMath.Exp(Vector256.Load(x + i + 8) - shift);
            }

            for (; i < end; i += 8) a += CpuMath.Exp(Lanes.Load(x + i, end - i) - shift) & Lanes.Mask((int)(end - i)).AsSingle();
            total += Lanes.Sum(a, b);
        }

        return (max, total);
    }

    private static unsafe void Cpu(CpuDevice device, Tensor logits, Tensor tokens, Tensor loss, Tensor stats)
    {
        float* px = logits.F32, pl = loss.F32, ps = stats.F32;
        var pt = tokens.I32;
        long predicted = loss.Shape[1], v = logits.Shape[2];
        Lanes.ForRows(device, loss.Count, v, r =>
        {
            var at = (r / predicted * (predicted + 1)) + (r % predicted);
            var x = px + (at * v);
            var (max, sum) = SumOfExponentials(x, v);
            var target = pt[at + 1];
            pl[r] = (uint)target < (uint)v ? (float)(Math.Log(sum) + ((double)max - x[target])) : float.NaN;
            ps[2 * r] = max;
            ps[(2 * r) + 1] = (float)sum;
        });
    }

    private static unsafe void CpuBackward(CpuDevice device, Tensor logits, Tensor tokens, Tensor stats, Tensor dLoss, Tensor gradient)
    {
        if (gradient.Count == 0) return;
        float* px = logits.F32, ps = stats.F32, pd = dLoss.F32, pg = gradient.F32;
        var pt = tokens.I32;
        long positions = logits.Shape[1], v = logits.Shape[2];
        Lanes.ForRows(device, logits.Shape.Rows, v, at =>
        {
            float* x = px + (at * v), g = pg + (at * v);
            var position = at % positions;
            if (position == positions - 1)
            {
                new Span<float>(g, (int)v).Clear();
                return;
            }

            var r = (at / positions * (positions - 1)) + position;
            var factor = Vector256.Create(pd[r] / ps[(2 * r) + 1]);
            var max = Vector256.Create(ps[2 * r]);
            for (long i = 0; i < v; i += 8) Lanes.Store(CpuMath.Exp(Lanes.Load(x + i, v - i) - max) * factor, g + i, v - i);
            var target = pt[at + 1];
            if ((uint)target < (uint)v) g[target] -= pd[r];
        });
    }

    private static void Gpu(GpuDevice device, Tensor logits, Tensor tokens, Tensor loss, Tensor stats)
    {
        if (loss.Count == 0) return;
        device.Launch(GpuKernel, (device.GridFor(loss.Count * device.GroupSize), device.GroupSize), logits.View<float>(), tokens.View<int>(), loss.View<float>(),
            stats.View<float>(), loss.Shape[1], logits.Shape[2]);
    }

    private static void GpuBackward(GpuDevice device, Tensor logits, Tensor tokens, Tensor stats, Tensor dLoss, Tensor gradient)
    {
        if (gradient.Count == 0) return;
        device.Launch(GpuBackwardKernel, (device.GridFor(gradient.Count), device.GroupSize), logits.View<float>(), tokens.View<int>(), stats.View<float>(),
            dLoss.View<float>(), gradient.View<float>(), logits.Shape[1], logits.Shape[2]);
    }

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> logits, ArrayView<int> tokens, ArrayView<float> loss, ArrayView<float> stats, int predicted, int v)
    {
        var scratch = SharedMemory.Allocate<float>(256);
        for (var r = Grid.IdxX; r < loss.Length; r += Grid.DimX)
        {
            var at = (r / predicted * (predicted + 1)) + (r % predicted);
            var start = (long)at * v;
            var max = float.NegativeInfinity;
            for (var i = Group.IdxX; i < v; i += Group.DimX)
            {
                var x = logits[start + i];
                if (x > max) max = x;
            }

            max = GpuMath.GroupMax(max, scratch);
            var sum = 0f;
            for (var i = Group.IdxX; i < v; i += Group.DimX) sum += GpuMath.Exp(logits[start + i] - max);
            sum = GpuMath.GroupSum(sum, scratch);
            if (Group.IdxX == 0)
            {
                var target = tokens[at + 1];
                loss[r] = target >= 0 && target < v ? GpuMath.Log(sum) + (max - logits[start + target]) : float.NaN;
                stats[2 * r] = max;
                stats[(2 * r) + 1] = sum;
            }
        }
    }

    [GpuKernel]
    private static void GpuBackwardKernel(
        ArrayView<float> logits, ArrayView<int> tokens, ArrayView<float> stats, ArrayView<float> dLoss, ArrayView<float> gradient, int positions, int v)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < gradient.Length; i += step)
        {
            var at = i / v;
            var batch = at / positions;
            var position = at - (batch * positions);
            var value = 0f;
            if (position < positions - 1)
            {
                var r = (batch * (positions - 1)) + position;
                var p = GpuMath.Exp(logits[i] - stats[2 * r]) / stats[(2 * r) + 1];
                if (tokens[at + 1] == i - (at * v)) p -= 1f;
                value = p * dLoss[r];
            }

            gradient[i] = value;
        }
    }
}
