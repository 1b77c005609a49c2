using System.Runtime.Intrinsics;
using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Kullback-Leibler divergence of two next-token distributions, per position: kl = sum_v p_v (ln p_v - ln q_v) in nats,
/// p = softmax(p_logits), q = softmax(q_logits). O(n). Derivatives: dq_logits = q - p, dp_logits = p (ln p - ln q - kl).
/// </summary>
[Kernel]
public static class KlDivergence
{
    /// <summary>Numbers a row keeps for its gradient: both maxima, both sums, kl.</summary>
    private const int Stats = 5;

    /// <summary>sum_v p_v (ln p_v - ln q_v).</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="pLogits">F32 [..., v]: the distribution the mean is taken over (the model as it is).</param>
    /// <param name="qLogits">F32, the same shape: the distribution compared (the model with an SAE in it).</param>
    /// <returns>F32 [...].</returns>
    /// <exception cref="ShapeException">The shapes differ or rows are empty.</exception>
    public static Tensor PerToken(TensorScope scope, Tensor pLogits, Tensor qLogits)
    {
        var shape = pLogits.Shape;
        if (shape != qLogits.Shape || shape.Rank == 0 || shape.Last == 0)
            throw new ShapeException($"kl divergence: logits are {shape} and {qLogits.Shape}; expected one shape [..., v]");
        var kl = scope.New(Shape.Create(shape.Dims[..^1]));
        var stats = scope.New([(int)kl.Count, Stats]);
        if (scope.Device is CpuDevice cpu) Cpu(cpu, pLogits, qLogits, kl, stats);
        else Gpu((GpuDevice)scope.Device, pLogits, qLogits, kl, stats);
        if (scope.Recorder is { } recorder && (recorder.Tracks(pLogits) || recorder.Tracks(qLogits)))
        {
            bool needP = recorder.Tracks(pLogits), needQ = recorder.Tracks(qLogits);
            recorder.Record(kl, [pLogits, qLogits], d =>
                [needP ? Gradient(scope, pLogits, qLogits, stats, d, true) : null, needQ ? Gradient(scope, pLogits, qLogits, stats, d, false) : null]);
        }
        else
        {
            scope.Release(stats);
        }

        return kl;
    }

    internal static double[] Reference(double[] p, double[] q, int v)
    {
        var kl = new double[p.Length / v];
        for (var r = 0; r < kl.Length; r++)
        {
            double[] a = p[(r * v)..((r + 1) * v)], b = q[(r * v)..((r + 1) * v)];
            double la = Math.Log(a.Sum(x => Math.Exp(x - a.Max()))) + a.Max(), lb = Math.Log(b.Sum(x => Math.Exp(x - b.Max()))) + b.Max();
            for (var i = 0; i < v; i++) kl[r] += Math.Exp(a[i] - la) * (a[i] - la - (b[i] - lb));
        }

        return kl;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var shape in new Shape[] { [0, 3], [1, 1], [2, 3, 7], [3, 33], [4], [2, 1500] })
        {
            var small = shape.Last < 100;
            yield return new KernelCase(shape.ToString(), [new(shape, Differentiable: small), new(shape, Differentiable: small)],
                (scope, t) => [PerToken(scope, t[0], t[1])], x => [Reference(x[0], x[1], shape.Last)])
            { OnIlgpuCpu = small };
        }

        double[] logits = [5, -3, 2, 100, 101, 99.5];
        yield return new KernelCase("equal distributions", [new([2, 3], Fill.Given, Values: logits), new([2, 3], Fill.Given, Values: logits)],
            (scope, t) => [PerToken(scope, t[0], t[1])], _ => [[0, 0]]);
    }

    private static Tensor Gradient(TensorScope scope, Tensor p, Tensor q, Tensor stats, Tensor d, bool ofP)
    {
        var g = scope.New(p.Shape);
        if (scope.Device is CpuDevice cpu) CpuBackward(cpu, p, q, stats, d, g, ofP);
        else GpuBackward((GpuDevice)scope.Device, p, q, stats, d, g, ofP);
        return g;
    }

    private static unsafe void Cpu(CpuDevice device, Tensor p, Tensor q, Tensor kl, Tensor stats)
    {
        float* pp = p.F32, pq = q.F32, pk = kl.F32, ps = stats.F32;
        long v = p.Shape.Last;
        Lanes.ForRows(device, kl.Count, v, r =>
        {
            float* a = pp + (r * v), b = pq + (r * v), s = ps + (r * Stats);
            var (maxP, sumP) = CrossEntropy.SumOfExponentials(a, v);
            var (maxQ, sumQ) = CrossEntropy.SumOfExponentials(b, v);
            double total = 0;
            Vector256<float> shiftP = Vector256.Create(maxP), shiftQ = Vector256.Create(maxQ);
            for (long start = 0; start < v; start += Lanes.Block)
            {
                var end = Math.Min(v, start + Lanes.Block);
                Vector256<float> sum = default;
                for (var i = start; i < end; i += 8)
                {
                    var x = Lanes.Load(a + i, end - i) - shiftP;
                    var e = CpuMath.Exp(x);
                    // p = 0 contributes 0, whatever its logarithm.
                    var used = Vector256.GreaterThan(e, Vector256<float>.Zero);
                    if (end - i < 8) used &= Lanes.Mask((int)(end - i)).AsSingle();
                    sum += (e * (x - (Lanes.Load(b + i, end - i) - shiftQ))) & used;
                }

                total += Lanes.Sum(sum, Vector256<float>.Zero);
            }

            var value = (total / sumP) - Math.Log(sumP) + Math.Log(sumQ);
            pk[r] = (float)value;
            s[0] = maxP;
            s[1] = maxQ;
            s[2] = (float)sumP;
            s[3] = (float)sumQ;
            s[4] = (float)(value + Math.Log(sumP) - Math.Log(sumQ));
        });
    }

    private static unsafe void CpuBackward(CpuDevice device, Tensor p, Tensor q, Tensor stats, Tensor d, Tensor g, bool ofP)
    {
        float* pp = p.F32, pq = q.F32, ps = stats.F32, pd = d.F32, pg = g.F32;
        long v = p.Shape.Last;
        Lanes.ForRows(device, d.Count, v, r =>
        {
            float* a = pp + (r * v), b = pq + (r * v), o = pg + (r * v), s = ps + (r * Stats);
            Vector256<float> maxP = Vector256.Create(s[0]), maxQ = Vector256.Create(s[1]);
            Vector256<float> factorP = Vector256.Create(pd[r] / s[2]), factorQ = Vector256.Create(pd[r] / s[3]), shift = Vector256.Create(s[4]);
            for (long i = 0; i < v; i += 8)
            {
                Vector256<float> x = Lanes.Load(a + i, v - i) - maxP, y = Lanes.Load(b + i, v - i) - maxQ;
                var e = CpuMath.Exp(x);
                var used = Vector256.GreaterThan(e, Vector256<float>.Zero);
                var value = ofP ? (e * factorP * (x - y - shift)) & used : (CpuMath.Exp(y) * factorQ) - (e * factorP);
                Lanes.Store(value, o + i, v - i);
            }
        });
    }

    private static void Gpu(GpuDevice device, Tensor p, Tensor q, Tensor kl, Tensor stats)
    {
        if (kl.Count == 0) return;
        device.Launch(GpuKernel, (device.GridFor(kl.Count * device.GroupSize), device.GroupSize), p.View<float>(), q.View<float>(), kl.View<float>(),
            stats.View<float>(), p.Shape.Last);
    }

    private static void GpuBackward(GpuDevice device, Tensor p, Tensor q, Tensor stats, Tensor d, Tensor g, bool ofP)
    {
        if (g.Count == 0) return;
        device.Launch(GpuBackwardKernel, (device.GridFor(g.Count), device.GroupSize), p.View<float>(), q.View<float>(), stats.View<float>(), d.View<float>(),
            g.View<float>(), p.Shape.Last, ofP ? 1 : 0);
    }

    private static float Max(ArrayView<float> x, long start, int v, ArrayView<float> scratch)
    {
        var max = float.NegativeInfinity;
        for (var i = Group.IdxX; i < v; i += Group.DimX)
        {
            var y = x[start + i];
            if (y > max) max = y;
        }

        return GpuMath.GroupMax(max, scratch);
    }

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> p, ArrayView<float> q, ArrayView<float> kl, ArrayView<float> stats, int v)
    {
        var scratch = SharedMemory.Allocate<float>(256);
        for (var r = Grid.IdxX; r < kl.Length; r += Grid.DimX)
        {
            var start = (long)r * v;
            var maxP = Max(p, start, v, scratch);
            var maxQ = Max(q, start, v, scratch);
            float sumP = 0, sumQ = 0, total = 0;
            for (var i = Group.IdxX; i < v; i += Group.DimX)
            {
                var x = p[start + i] - maxP;
                var y = q[start + i] - maxQ;
                var e = GpuMath.Exp(x);
                sumP += e;
                sumQ += GpuMath.Exp(y);
                if (e > 0) total += e * (x - y);
            }

            sumP = GpuMath.GroupSum(sumP, scratch);
            sumQ = GpuMath.GroupSum(sumQ, scratch);
            total = GpuMath.GroupSum(total, scratch);
            if (Group.IdxX == 0)
            {
                var at = r * (long)Stats;
                kl[r] = (total / sumP) - (GpuMath.Log(sumP) - GpuMath.Log(sumQ));
                stats[at] = maxP;
                stats[at + 1] = maxQ;
                stats[at + 2] = sumP;
                stats[at + 3] = sumQ;
                stats[at + 4] = total / sumP;
            }
        }
    }

    [GpuKernel]
    private static void GpuBackwardKernel(
        ArrayView<float> p, ArrayView<float> q, ArrayView<float> stats, ArrayView<float> d, ArrayView<float> g, int v, int ofP)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < g.Length; i += step)
        {
            var r = i / v;
            var at = r * Stats;
            var x = p[i] - stats[at];
            var y = q[i] - stats[at + 1];
            var e = GpuMath.Exp(x) / stats[at + 2];
            var value = 0f;
            if (ofP == 0) value = (GpuMath.Exp(y) / stats[at + 3]) - e;
            else if (e > 0) value = e * (x - y - stats[at + 4]);
            g[i] = value * d[r];
        }
    }
}
