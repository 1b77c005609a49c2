using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>The ILGPU side: the products of attention are <see cref="HeadProduct"/>, the rest is elementwise.</summary>
public static partial class Attention
{
    /// <summary>Bytes of pattern that the fused form holds at a time.</summary>
    private const long PatternBytes = 512L << 20;

    /// <summary>Whole batch entries at a time, as many as the pattern has room for; the steps' own kernels, hence their bits.</summary>
    private static void GpuForward(GpuDevice device, HeadShape s, Tensor q, Tensor k, Tensor v, Tensor z, ScoreRule rule, Tensor? slopes)
    {
        if (z.Count == 0) return;
        var perBatch = (long)s.Heads * s.Queries * s.Keys * sizeof(float);
        var count = (int)Math.Clamp(PatternBytes / Math.Max(1, perBatch), 1, s.Batch);
        for (var from = 0; from < s.Batch; from += count)
        {
            var n = Math.Min(count, s.Batch - from);
            var part = s with { Batch = n };
            using Tensor pq = q.Slice(from, n), pk = k.Slice(from, n), pv = v.Slice(from, n), pz = z.Slice(from, n);
            using var scope = new TensorScope(device);
            var scores = scope.New([n, s.Heads, s.Queries, s.Keys]);
            GpuOuter(device, part, pq, pk, scores, rule, slopes);
            var pattern = Softmax.Rows(scope, scores);
            GpuWeighted(device, part, pattern, pv, pz, rule);
        }
    }

    private static void GpuOuter(GpuDevice device, HeadShape s, Tensor a, Tensor b, Tensor target, ScoreRule rule, Tensor? slopes)
    {
        if (target.Count == 0) return;
        HeadProduct.Launch(device, a, b, target, new HeadProductShape
        {
            Rows = s.Queries,
            Columns = s.Keys,
            Inner = s.Width,
            Batch = s.Batch,
            Heads = s.Heads,
            Repeat = 1,
            GroupA = 1,
            GroupB = s.Group,
            BatchA = (long)s.Queries * s.Heads * s.Width,
            HeadA = s.Width,
            RowA = (long)s.Heads * s.Width,
            InnerA = 1,
            BatchB = (long)s.Keys * s.KeyHeads * s.Width,
            HeadB = s.Width,
            InnerB = 1,
            ColumnB = (long)s.KeyHeads * s.Width,
            BatchC = (long)s.Heads * s.Queries * s.Keys,
            HeadC = (long)s.Queries * s.Keys,
            RowC = s.Keys,
            Scale = rule.Scale,
            Mask = rule.Causal ? 1 : 0,
            FirstQuery = rule.FirstQuery,
            Window = rule.Window,
            SoftCap = rule.SoftCap,
        });
        if (slopes is null) return;
        device.Launch(DistanceKernel, (device.GridFor(target.Count), device.GroupSize), target.View<float>(), slopes.View<float>(),
            s.Heads, s.Queries, s.Keys, rule.FirstQuery);
    }

    private static void GpuWeighted(GpuDevice device, HeadShape s, Tensor p, Tensor v, Tensor target, ScoreRule? rule)
    {
        if (target.Count == 0) return;
        HeadProduct.Launch(device, p, v, target, new HeadProductShape
        {
            Rows = s.Queries,
            Columns = s.Width,
            Inner = s.Keys,
            Batch = s.Batch,
            Heads = s.Heads,
            Repeat = 1,
            GroupA = 1,
            GroupB = s.Group,
            BatchA = (long)s.Heads * s.Queries * s.Keys,
            HeadA = (long)s.Queries * s.Keys,
            RowA = s.Keys,
            InnerA = 1,
            BatchB = (long)s.Keys * s.KeyHeads * s.Width,
            HeadB = s.Width,
            InnerB = (long)s.KeyHeads * s.Width,
            ColumnB = 1,
            BatchC = (long)s.Queries * s.Heads * s.Width,
            HeadC = s.Width,
            RowC = (long)s.Heads * s.Width,
            Scale = 1,
            FirstQuery = rule?.FirstQuery ?? 0,
            CausalInner = rule is { Causal: true } ? 1 : 0,
        });
    }

    private static void GpuWeightedTransposed(GpuDevice device, HeadShape s, Tensor p, Tensor x, Tensor target)
    {
        if (target.Count == 0) return;
        HeadProduct.Launch(device, p, x, target, new HeadProductShape
        {
            Rows = s.Keys,
            Columns = s.Width,
            Inner = s.Queries,
            Batch = s.Batch,
            Heads = s.KeyHeads,
            Repeat = s.Group,
            GroupA = 1,
            GroupB = 1,
            BatchA = (long)s.Heads * s.Queries * s.Keys,
            HeadA = (long)s.Queries * s.Keys,
            RowA = 1,
            InnerA = s.Keys,
            BatchB = (long)s.Queries * s.Heads * s.Width,
            HeadB = s.Width,
            InnerB = (long)s.Heads * s.Width,
            ColumnB = 1,
            BatchC = (long)s.Keys * s.KeyHeads * s.Width,
            HeadC = s.Width,
            RowC = (long)s.KeyHeads * s.Width,
            Scale = 1,
        });
    }

    private static void GpuProductGradient(GpuDevice device, Tensor scores, Tensor ds, Tensor target, ScoreRule rule)
    {
        if (target.Count == 0) return;
        device.Launch(ProductGradientKernel, (device.GridFor(target.Count), device.GroupSize), scores.View<float>(), ds.View<float>(), target.View<float>(),
            rule.Scale, rule.SoftCap > 0 ? 1 / rule.SoftCap : 0);
    }

    /// <summary>score += slope of the head * (key - query's position); -infinity stays.</summary>
    [GpuKernel]
    private static void DistanceKernel(ArrayView<float> scores, ArrayView<float> slopes, int heads, int queries, int keys, int firstQuery)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < scores.Length; i += step)
        {
            var row = i / keys;
            var key = (int)(i - (row * keys));
            var headRow = row / queries;
            var query = (int)(row - (headRow * queries));
            scores[i] += slopes[headRow % heads] * (key - firstQuery - query);
        }
    }

    [GpuKernel]
    private static void ProductGradientKernel(ArrayView<float> scores, ArrayView<float> ds, ArrayView<float> target, float scale, float inverseCap)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < target.Length; i += step)
        {
            var score = scores[i];
            var value = 0f;
            if (score > float.NegativeInfinity)
            {
                var share = score * inverseCap;
                value = ds[i] * scale * (1f - (share * share));
            }

            target[i] = value;
        }
    }
}
