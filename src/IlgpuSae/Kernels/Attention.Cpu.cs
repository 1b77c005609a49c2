using System.Runtime.Intrinsics;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// The CPU side. A piece of work is a block of the rows (query, head of the group) that share a key head; block sizes
/// follow from the shapes and change no bits.
/// </summary>
public static partial class Attention
{
    /// <summary>Floats of scores a block of rows may take: what stays in the second-level cache.</summary>
    private const int ScoreFloats = 1 << 16;

    private static unsafe void CpuForward(CpuDevice device, HeadShape s, Tensor q, Tensor k, Tensor v, Tensor z, ScoreRule rule, Tensor? slopes)
    {
        if (z.Count == 0) return;
        // 16 more than needed: rows a power of two apart would share their places in the cache.
        var width = ((s.Keys + 15L) / 16 * 16) + 16;
        var rows = s.Queries * s.Group;
        var block = BlockRows(width, rows);
        long keyScratch = AttentionTiles.KeyScratch(s.Width), valueScratch = AttentionTiles.ValueScratch(s.Width);
        var perThread = keyScratch + valueScratch + (block * width);
        using var scratch = new Tensor(device, [device.Threads, checked((int)perThread)]);
        float* pq = q.F32, pk = k.F32, pv = v.F32, pz = z.F32, ps = scratch.F32, slope = slopes is null ? null : slopes.F32;
        var blocks = (rows + block - 1) / block;
        device.Pool.For(checked(s.Batch * s.KeyHeads * blocks), (piece, thread) =>
        {
            // Late queries see most keys: they come first, so that no thread is left alone with them.
            var r0 = (blocks - 1 - (piece % blocks)) * block;
            var r1 = Math.Min(rows, r0 + block);
            var (batch, head) = Math.DivRem(piece / blocks, s.KeyHeads);
            var mine = ps + (thread * perThread);
            float* values = mine + keyScratch, scores = values + valueScratch;
            var to = rule.To((r1 - 1) / s.Group, s.Keys);
            var from = Math.Min(rule.From(r0 / s.Group), to) & ~15;
            var block0 = new StridedRows(scores - (r0 * width), width);
            AttentionTiles.Scores(QueryRows(pq, s, batch, head), r0, r1, s.Group, KeyRows(pk, s, batch, head), from, to, s.Keys, s.Width, rule, block0, width, mine);
            if (slope != null) AddDistances(block0, r0, r1, from, to, slope + (head * s.Group), s.Group, rule);
            for (var r = r0; r < r1; r++) Softmax.Row(block0[r], block0[r], from, to);
            AttentionTiles.Mix(block0, r0, r1, KeyRows(pv, s, batch, head), from, to, s.Width, QueryRows(pz, s, batch, head), values);
        });
    }

    private static unsafe void CpuOuter(CpuDevice device, HeadShape s, Tensor a, Tensor b, Tensor target, ScoreRule rule, Tensor? slopes)
    {
        if (target.Count == 0) return;
        var rows = s.Queries * s.Group;
        var block = BlockRows(s.Keys, rows);
        var blocks = (rows + block - 1) / block;
        var perThread = AttentionTiles.KeyScratch(s.Width);
        using var scratch = new Tensor(device, [device.Threads, checked((int)perThread)]);
        float* pa = a.F32, pb = b.F32, pt = target.F32, ps = scratch.F32, slope = slopes is null ? null : slopes.F32;
        device.Pool.For(checked(s.Batch * s.KeyHeads * blocks), (piece, thread) =>
        {
            var r0 = piece % blocks * block;
            var (batch, head) = Math.DivRem(piece / blocks, s.KeyHeads);
            var r1 = Math.Min(rows, r0 + block);
            var scores = ScoreRows(pt, s, batch, head);
            AttentionTiles.Scores(QueryRows(pa, s, batch, head), r0, r1, s.Group, KeyRows(pb, s, batch, head),
                0, s.Keys, s.Keys, s.Width, rule, scores, s.Keys, ps + (thread * perThread));
            if (slope != null) AddDistances(scores, r0, r1, 0, s.Keys, slope + (head * s.Group), s.Group, rule);
        });
    }

    private static unsafe void CpuWeighted(CpuDevice device, HeadShape s, Tensor p, Tensor v, Tensor target)
    {
        if (target.Count == 0) return;
        var rows = s.Queries * s.Group;
        var block = BlockRows(s.Keys, rows);
        var blocks = (rows + block - 1) / block;
        var perThread = AttentionTiles.ValueScratch(s.Width);
        using var scratch = new Tensor(device, [device.Threads, checked((int)perThread)]);
        float* pp = p.F32, pv = v.F32, pt = target.F32, ps = scratch.F32;
        device.Pool.For(checked(s.Batch * s.KeyHeads * blocks), (piece, thread) =>
        {
            var r0 = piece % blocks * block;
            var (batch, head) = Math.DivRem(piece / blocks, s.KeyHeads);
            AttentionTiles.Mix(ScoreRows(pp, s, batch, head), r0, Math.Min(rows, r0 + block), KeyRows(pv, s, batch, head), 0, s.Keys, s.Width,
                QueryRows(pt, s, batch, head), ps + (thread * perThread));
        });
    }

    /// <summary>Blocks of keys; the coefficients are transposed into scratch, and all rows added in order.</summary>
    private static unsafe void CpuWeightedTransposed(CpuDevice device, HeadShape s, Tensor p, Tensor x, Tensor target)
    {
        const int Keys = 10 * AttentionTiles.Height, Rows = AttentionTiles.ValueBlock;
        if (target.Count == 0) return;
        var rows = s.Queries * s.Group;
        if (rows == 0)
        {
            target.Clear();
            return;
        }

        var blocks = (s.Keys + Keys - 1) / Keys;
        var valueScratch = AttentionTiles.ValueScratch(s.Width);
        var perThread = valueScratch + (Keys * Rows);
        using var scratch = new Tensor(device, [device.Threads, checked((int)perThread)]);
        float* pp = p.F32, px = x.F32, pt = target.F32, ps = scratch.F32;
        device.Pool.For(checked(s.Batch * s.KeyHeads * blocks), (piece, thread) =>
        {
            var j0 = piece % blocks * Keys;
            var j1 = Math.Min(s.Keys, j0 + Keys);
            var (batch, head) = Math.DivRem(piece / blocks, s.KeyHeads);
            float* values = ps + (thread * perThread), turned = values + valueScratch;
            var coefficients = ScoreRows(pp, s, batch, head);
            var source = QueryRows(px, s, batch, head);
            var byKey = new StridedRows(turned - ((long)j0 * Rows), Rows);
            for (var r0 = 0; r0 < rows; r0 += Rows)
            {
                var n = Math.Min(Rows, rows - r0);
                for (var r = 0; r < n; r++)
                {
                    var row = coefficients[r0 + r];
                    for (var j = j0; j < j1; j++) turned[((j - j0) * Rows) + r] = row[j];
                }

                AttentionTiles.PackValues(source, r0, n, s.Width, values);
                AttentionTiles.Accumulate(byKey, 0, j0, j1, values, n, s.Width, KeyRows(pt, s, batch, head), r0 > 0);
            }
        });
    }

    /// <summary>d(product) = d(score) scale (1 - (score / cap)^2), 0 where the score is masked.</summary>
    private static unsafe void CpuProductGradient(CpuDevice device, HeadShape s, Tensor scores, Tensor ds, Tensor target, ScoreRule rule)
    {
        if (target.Count == 0) return;
        float* pc = scores.F32, pd = ds.F32, pt = target.F32;
        long n = s.Keys;
        Lanes.ForRows(device, target.Count / n, n, r =>
        {
            float* c = pc + (r * n), d = pd + (r * n), t = pt + (r * n);
            Vector256<float> scale = Vector256.Create(rule.Scale), one = Vector256<float>.One;
            var inverse = Vector256.Create(rule.SoftCap > 0 ? 1 / rule.SoftCap : 0);
            for (long j = 0; j < n; j += 8)
            {
                var score = Lanes.Load(c + j, n - j);
                var seen = Vector256.GreaterThan(score, Vector256.Create(float.NegativeInfinity));
                var share = (score & seen) * inverse;
                Lanes.Store((Lanes.Load(d + j, n - j) * scale * (one - (share * share))) & seen, t + j, n - j);
            }
        });
    }

    /// <summary>scores[r][j] += slope of r's head times (j - position of r's query), for keys from .. to; masked ones stay -infinity.</summary>
    private static unsafe void AddDistances(StridedRows scores, int r0, int r1, int from, int to, float* slopes, int group, ScoreRule rule)
    {
        for (var r = r0; r < r1; r++)
        {
            var (query, member) = Math.DivRem(r, group);
            var slope = Vector256.Create(slopes[member]);
            var first = Vector256<int>.Indices - Vector256.Create(rule.FirstQuery + query);
            var row = scores[r];
            for (var j = from; j < to; j += 8)
                Lanes.Store(Lanes.Load(row + j, to - j) + (slope * Vector256.ConvertToSingle(first + Vector256.Create(j))), row + j, to - j);
        }
    }

    private static int BlockRows(long width, int rows)
    {
        var most = (int)Math.Clamp(ScoreFloats / Math.Max(1, width) / AttentionTiles.Height, 1, 10) * AttentionTiles.Height;
        return Math.Max(1, Math.Min(most, rows));
    }

    private static unsafe StridedRows QueryRows(float* x, HeadShape s, int batch, int keyHead) =>
        new(x + ((((long)batch * s.Queries * s.Heads) + ((long)keyHead * s.Group)) * s.Width), (long)s.Heads * s.Width, s.Width, s.Group);

    private static unsafe StridedRows KeyRows(float* x, HeadShape s, int batch, int keyHead) =>
        new(x + ((((long)batch * s.Keys * s.KeyHeads) + keyHead) * s.Width), (long)s.KeyHeads * s.Width);

    private static unsafe StridedRows ScoreRows(float* x, HeadShape s, int batch, int keyHead) =>
        new(x + ((((long)batch * s.Heads) + ((long)keyHead * s.Group)) * s.Queries * s.Keys), s.Keys, (long)s.Queries * s.Keys, s.Group);
}
