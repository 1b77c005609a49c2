using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Causal attention with grouped heads, in TransformerLens' three steps and fused:
/// scores = scale q k^T, capped to cap tanh(score / cap), -infinity where a query must not look; pattern = softmax of
/// each row (<see cref="Softmax"/>); z = pattern v. With ALiBi (Press et al. 2021, arXiv:2108.12409), which excludes a cap,
/// a score is scale q.k + slope (j - i) with one slope a head. <see cref="Forward"/> gives the same bits as the steps and holds the
/// pattern of a block of queries only. Query i has position firstQuery + i; key j has position j, so keys may be a
/// cache with room to spare. Head h uses key head h / (heads / key heads). O(b h q kv d_head).
/// </summary>
[Kernel]
public static partial class Attention
{
    /// <summary>Attention scores, hook_attn_scores.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="q">F32 [b, q, h, d_head].</param>
    /// <param name="k">F32 [b, kv, hk, d_head]; hk divides h.</param>
    /// <param name="scale">Usually 1/sqrt(d_head).</param>
    /// <param name="firstQuery">Position of the first query: the number of keys before it.</param>
    /// <param name="window">Number of keys a query sees, itself included; 0: all before it.</param>
    /// <param name="softCap">Scores become cap tanh(score / cap); 0: no cap.</param>
    /// <param name="slopes">ALiBi: F32 [h], constant for the gradient; null: none.</param>
    /// <returns>F32 [b, h, q, kv]; -infinity where masked.</returns>
    /// <exception cref="ShapeException">The shapes do not fit.</exception>
    public static Tensor Scores(
        TensorScope scope, Tensor q, Tensor k, float scale, int firstQuery = 0, int window = 0, float softCap = 0, Tensor? slopes = null)
    {
        var s = HeadShape.Of(q, k);
        var rule = Rule(scale, firstQuery, window, softCap);
        CheckSlopes(s, rule, slopes);
        var scores = scope.New([s.Batch, s.Heads, s.Queries, s.Keys]);
        Outer(scope.Device, s, q, k, scores, rule, slopes);
        if (scope.Recorder is { } recorder)
        {
            bool needQ = recorder.Tracks(q), needK = recorder.Tracks(k);
            recorder.Record(scores, [q, k], ds => ScoresGradient(scope, s, q, k, scores, ds, rule, needQ, needK));
        }

        return scores;
    }

    /// <summary>Values weighted by an attention pattern, hook_z.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="pattern">F32 [b, h, q, kv].</param>
    /// <param name="v">F32 [b, kv, hk, d_head]; hk divides h.</param>
    /// <returns>F32 [b, q, h, d_head].</returns>
    /// <exception cref="ShapeException">The shapes do not fit.</exception>
    public static Tensor Mix(TensorScope scope, Tensor pattern, Tensor v)
    {
        var s = HeadShape.OfPattern(pattern, v);
        var z = scope.New([s.Batch, s.Queries, s.Heads, s.Width]);
        Weighted(scope.Device, s, pattern, v, z, null);
        if (scope.Recorder is { } recorder)
        {
            bool needPattern = recorder.Tracks(pattern), needV = recorder.Tracks(v);
            recorder.Record(z, [pattern, v], dz => MixGradient(scope, s, pattern, v, dz, needPattern, needV));
        }

        return z;
    }

    /// <summary>Scores, softmax and mix in one, without storing the pattern; the bits are those of the three steps.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="q">F32 [b, q, h, d_head].</param>
    /// <param name="k">F32 [b, kv, hk, d_head]; hk divides h. Keys after the last query are not looked at.</param>
    /// <param name="v">F32, k's shape.</param>
    /// <param name="scale">Usually 1/sqrt(d_head).</param>
    /// <param name="firstQuery">Position of the first query: the number of keys before it.</param>
    /// <param name="window">Number of keys a query sees, itself included; 0: all before it.</param>
    /// <param name="softCap">Scores become cap tanh(score / cap); 0: no cap.</param>
    /// <param name="slopes">ALiBi: F32 [h], constant for the gradient; null: none.</param>
    /// <returns>F32 [b, q, h, d_head].</returns>
    /// <exception cref="ShapeException">The shapes do not fit.</exception>
    public static Tensor Forward(
        TensorScope scope, Tensor q, Tensor k, Tensor v, float scale, int firstQuery = 0, int window = 0, float softCap = 0, Tensor? slopes = null)
    {
        var s = HeadShape.Of(q, k);
        if (v.Shape != k.Shape) throw new ShapeException($"attention: keys are {k.Shape}, values {v.Shape}");
        var rule = Rule(scale, firstQuery, window, softCap);
        CheckSlopes(s, rule, slopes);
        var z = scope.New(q.Shape);
        if (scope.Device is CpuDevice cpu) CpuForward(cpu, s, q, k, v, z, rule, slopes);
        else GpuForward((GpuDevice)scope.Device, s, q, k, v, z, rule, slopes);
        if (scope.Recorder is { } recorder)
        {
            bool needQ = recorder.Tracks(q), needK = recorder.Tracks(k), needV = recorder.Tracks(v);
            recorder.Record(z, [q, k, v], dz =>
            {
                // The pattern is computed again rather than kept from the forward pass: one layer's at a time.
                using var inner = new TensorScope(scope.Device);
                var scores = inner.New([s.Batch, s.Heads, s.Queries, s.Keys]);
                Outer(scope.Device, s, q, k, scores, rule, slopes);
                var pattern = Softmax.Rows(inner, scores);
                var parts = MixGradient(inner, s, pattern, v, dz, needQ || needK, needV);
                Tensor?[] qk = [null, null];
                if (parts[0] is { } dPattern)
                {
                    var ds = Softmax.Gradient(inner, pattern, dPattern);
                    inner.Release(dPattern);
                    inner.Release(pattern);
                    qk = ScoresGradient(inner, s, q, k, scores, ds, rule, needQ, needK);
                }

                Tensor?[] result = [qk[0], qk[1], parts[1]];
                foreach (var t in result) if (t is not null) scope.Own(inner.Keep(t));
                return result;
            });
        }

        return z;
    }

    internal static double[] ReferenceScores(double[] q, double[] k, in HeadShape s, in ScoreRule rule, double[]? slopes = null)
    {
        var scores = new double[(long)s.Batch * s.Heads * s.Queries * s.Keys];
        for (var at = 0; at < scores.Length; at++)
        {
            var (j, row) = (at % s.Keys, at / s.Keys);
            var (i, h, b) = (row % s.Queries, row / s.Queries % s.Heads, row / s.Queries / s.Heads);
            double dot = 0;
            for (var c = 0; c < s.Width; c++) dot += q[QueryAt(s, b, i, h) + c] * k[KeyAt(s, b, j, h) + c];
            dot *= rule.Scale;
            if (rule.SoftCap > 0) dot = rule.SoftCap * Math.Tanh(dot / rule.SoftCap);
            var position = rule.FirstQuery + i;
            if (slopes is not null) dot += slopes[h] * (j - position);
            scores[at] = j > position || (rule.Window > 0 && j <= position - rule.Window) ? double.NegativeInfinity : dot;
        }

        return scores;
    }

    internal static double[] ReferenceMix(double[] pattern, double[] v, in HeadShape s)
    {
        var z = new double[(long)s.Batch * s.Queries * s.Heads * s.Width];
        for (var at = 0; at < pattern.Length; at++)
        {
            var (j, row) = (at % s.Keys, at / s.Keys);
            var (i, h, b) = (row % s.Queries, row / s.Queries % s.Heads, row / s.Queries / s.Heads);
            for (var c = 0; c < s.Width; c++) z[QueryAt(s, b, i, h) + c] += pattern[at] * v[KeyAt(s, b, j, h) + c];
        }

        return z;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var (s, first, window, cap) in new (HeadShape, int, int, float)[]
        {
            (new(1, 1, 1, 1, 1, 1), 0, 0, 0), (new(0, 2, 2, 2, 2, 8), 0, 0, 0), (new(2, 3, 3, 2, 2, 5), 0, 0, 0),
            (new(1, 7, 7, 4, 2, 8), 0, 0, 2), (new(1, 9, 9, 2, 1, 17), 0, 4, 0), (new(1, 1, 20, 3, 1, 9), 17, 0, 0),
            (new(2, 2, 21, 1, 1, 12), 19, 6, 1.5f), (new(1, 3, 8, 2, 1, 4), 2, 0, 0), (new(2, 70, 70, 4, 2, 64), 0, 0, 0),
            (new(1, 150, 160, 2, 2, 33), 7, 40, 30), (new(1, 1, 300, 4, 1, 64), 299, 0, 0),
        })
        {
            var rule = new ScoreRule(0.3f, true, first, window, cap);
            Shape q = [s.Batch, s.Queries, s.Heads, s.Width], k = [s.Batch, s.Keys, s.KeyHeads, s.Width], p = [s.Batch, s.Heads, s.Queries, s.Keys];
            var small = s.Queries * s.Keys < 200;
            var tiny = s.Queries * s.Keys < 20;
            var label = $"q {q}, k {k}, from {first}, window {window}, cap {cap}";
            // -infinity minus -infinity has no finite difference: gradients of scores are checked through the softmax.
            yield return new KernelCase($"scores, {label}", [new(q), new(k)],
                (scope, t) => [Scores(scope, t[0], t[1], 0.3f, first, window, cap)], x => [ReferenceScores(x[0], x[1], s, rule)])
            { OnIlgpuCpu = tiny, Tolerance = 5e-6 };
            yield return new KernelCase($"mix, {label}", [new(p, Differentiable: small), new(k, Differentiable: small)],
                (scope, t) => [Mix(scope, t[0], t[1])], x => [ReferenceMix(x[0], x[1], s)])
            { OnIlgpuCpu = tiny, Tolerance = 5e-6 };
            yield return new KernelCase($"steps, {label}", [new(q, Differentiable: small), new(k, Differentiable: small), new(k, Differentiable: small)],
                (scope, t) => [Mix(scope, Softmax.Rows(scope, Scores(scope, t[0], t[1], 0.3f, first, window, cap)), t[2])],
                x => [ReferenceMix(Softmax.Reference(ReferenceScores(x[0], x[1], s, rule), s.Keys), x[2], s)])
            { OnIlgpuCpu = small };
            yield return new KernelCase($"fused, {label}", [new(q, Differentiable: small), new(k, Differentiable: small), new(k, Differentiable: small)],
                (scope, t) => [Forward(scope, t[0], t[1], t[2], 0.3f, first, window, cap)],
                x => [ReferenceMix(Softmax.Reference(ReferenceScores(x[0], x[1], s, rule), s.Keys), x[2], s)])
            { OnIlgpuCpu = small };
        }

        foreach (var c in AlibiCases()) yield return c;
    }

    /// <summary>ALiBi through the steps and fused, with grouped heads, a window, and keys before the first query.</summary>
    private static IEnumerable<KernelCase> AlibiCases()
    {
        foreach (var (s, first, window) in new (HeadShape, int, int)[]
        {
            (new(1, 1, 1, 1, 1, 1), 0, 0), (new(2, 5, 5, 3, 3, 4), 0, 0), (new(1, 3, 9, 4, 2, 5), 6, 0), (new(1, 6, 6, 2, 1, 3), 0, 3),
            (new(1, 90, 130, 6, 3, 33), 40, 0),
        })
        {
            var rule = new ScoreRule(0.3f, true, first, window, 0);
            Shape q = [s.Batch, s.Queries, s.Heads, s.Width], k = [s.Batch, s.Keys, s.KeyHeads, s.Width];
            var small = s.Queries * s.Keys < 200;
            var slopes = new KernelInput([s.Heads], Fill.Positive);
            yield return new KernelCase($"ALiBi scores, q {q}, k {k}, from {first}, window {window}", [new(q), new(k), slopes],
                (scope, t) => [Scores(scope, t[0], t[1], 0.3f, first, window, 0, t[2])], x => [ReferenceScores(x[0], x[1], s, rule, x[2])])
            { OnIlgpuCpu = small, Tolerance = 5e-6 };
            foreach (var fused in new[] { false, true })
            {
                yield return new KernelCase($"ALiBi {(fused ? "fused" : "steps")}, q {q}, k {k}, from {first}, window {window}",
                    [new(q, Differentiable: small), new(k, Differentiable: small), new(k, Differentiable: small), slopes],
                    (scope, t) => [fused
                        ? Forward(scope, t[0], t[1], t[2], 0.3f, first, window, 0, t[3])
                        : Mix(scope, Softmax.Rows(scope, Scores(scope, t[0], t[1], 0.3f, first, window, 0, t[3])), t[2])],
                    x => [ReferenceMix(Softmax.Reference(ReferenceScores(x[0], x[1], s, rule, x[3]), s.Keys), x[2], s)])
                { OnIlgpuCpu = small };
            }
        }
    }

    private static void CheckSlopes(in HeadShape s, in ScoreRule rule, Tensor? slopes)
    {
        if (slopes is null) return;
        if (slopes.Type != DType.F32 || slopes.Shape != [s.Heads]) throw new ShapeException($"attention: slopes are {slopes.Type} {slopes.Shape}, expected F32 [{s.Heads}]");
        if (rule.SoftCap > 0) throw new InvalidInputException($"attention: slopes and a soft cap of {rule.SoftCap} do not go together");
    }

    private static int QueryAt(in HeadShape s, int b, int i, int h) => ((((b * s.Queries) + i) * s.Heads) + h) * s.Width;

    private static int KeyAt(in HeadShape s, int b, int j, int h) => ((((b * s.Keys) + j) * s.KeyHeads) + (h / s.Group)) * s.Width;

    private static ScoreRule Rule(float scale, int firstQuery, int window, float softCap) =>
        firstQuery >= 0 && window >= 0 && softCap >= 0
            ? new ScoreRule(scale, true, firstQuery, window, softCap)
            : throw new InvalidInputException($"attention: first query {firstQuery}, window {window} and soft cap {softCap} must not be negative");

    /// <summary>dq = ds' k and dk = ds'^T q, where ds' = ds scale (1 - (score / cap)^2), 0 where masked.</summary>
    private static Tensor?[] ScoresGradient(
        TensorScope scope, HeadShape s, Tensor q, Tensor k, Tensor scores, Tensor ds, ScoreRule rule, bool needQ, bool needK)
    {
        using var inner = new TensorScope(scope.Device);
        var products = inner.New(scores.Shape);
        if (scope.Device is CpuDevice cpu) CpuProductGradient(cpu, s, scores, ds, products, rule);
        else GpuProductGradient((GpuDevice)scope.Device, scores, ds, products, rule);
        Tensor? dq = null, dk = null;
        if (needQ)
        {
            dq = scope.New(q.Shape);
            Weighted(scope.Device, s, products, k, dq, null);
        }

        if (needK)
        {
            dk = scope.New(k.Shape);
            WeightedTransposed(scope.Device, s, products, q, dk);
        }

        return [dq, dk];
    }

    /// <summary>dpattern = dz v^T and dv = pattern^T dz.</summary>
    private static Tensor?[] MixGradient(TensorScope scope, HeadShape s, Tensor pattern, Tensor v, Tensor dz, bool needPattern, bool needV)
    {
        Tensor? dPattern = null, dv = null;
        if (needPattern)
        {
            dPattern = scope.New(pattern.Shape);
            Outer(scope.Device, s, dz, v, dPattern, new ScoreRule(1, false, 0, 0, 0), null);
        }

        if (needV)
        {
            dv = scope.New(v.Shape);
            WeightedTransposed(scope.Device, s, pattern, dz, dv);
        }

        return [dPattern, dv];
    }

    /// <summary>target [b, h, q, kv] = rule(a [b, q, h, d] . b [b, kv, hk, d]), with slopes times distances added.</summary>
    private static void Outer(Device device, HeadShape s, Tensor a, Tensor b, Tensor target, ScoreRule rule, Tensor? slopes)
    {
        if (device is CpuDevice cpu) CpuOuter(cpu, s, a, b, target, rule, slopes);
        else GpuOuter((GpuDevice)device, s, a, b, target, rule, slopes);
    }

    /// <summary>
    /// target [b, q, h, d] = p [b, h, q, kv] v [b, kv, hk, d]. A rule says that p is zero where it masks.
    /// </summary>
    private static void Weighted(Device device, HeadShape s, Tensor p, Tensor v, Tensor target, ScoreRule? rule)
    {
        if (device is CpuDevice cpu) CpuWeighted(cpu, s, p, v, target);
        else GpuWeighted((GpuDevice)device, s, p, v, target, rule);
    }

    /// <summary>target [b, kv, hk, d] = sum over the group's heads and queries of p [b, h, q, kv] x [b, q, h, d].</summary>
    private static void WeightedTransposed(Device device, HeadShape s, Tensor p, Tensor x, Tensor target)
    {
        if (device is CpuDevice cpu) CpuWeightedTransposed(cpu, s, p, x, target);
        else GpuWeightedTransposed((GpuDevice)device, s, p, x, target);
    }

    /// <summary>Sizes of one attention.</summary>
    internal readonly record struct HeadShape(int Batch, int Queries, int Keys, int Heads, int KeyHeads, int Width)
    {
        /// <summary>Query heads that share a key head.</summary>
        internal int Group => Heads / KeyHeads;

        internal static HeadShape Of(Tensor q, Tensor k)
        {
            Shape a = q.Shape, b = k.Shape;
            if (a.Rank != 4 || b.Rank != 4 || a[0] != b[0] || a[3] != b[3] || a[3] == 0 || b[2] == 0 || a[2] % b[2] != 0)
            {
                throw new ShapeException(
                    $"attention: queries {a} and keys {b} do not fit; expected [b, q, h, d_head] and [b, kv, hk, d_head] with hk dividing h");
            }

            return new(a[0], a[1], b[1], a[2], b[2], a[3]);
        }

        internal static HeadShape OfPattern(Tensor pattern, Tensor v)
        {
            Shape a = pattern.Shape, b = v.Shape;
            if (a.Rank != 4 || b.Rank != 4 || a[0] != b[0] || a[3] != b[1] || b[3] == 0 || b[2] == 0 || a[1] % b[2] != 0)
            {
                throw new ShapeException(
                    $"attention: pattern {a} and values {b} do not fit; expected [b, h, q, kv] and [b, kv, hk, d_head] with hk dividing h");
            }

            return new(a[0], a[2], a[3], a[1], b[2], b[3]);
        }
    }
}
