using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace IlgpuSae.Kernels;

/// <summary>
/// Rows at regular distances in memory: row r lies at Base + (r / Group) Outer + (r mod Group) Inner. With grouped
/// heads, the rows that share keys are (query, head of the group).
/// </summary>
internal readonly unsafe struct StridedRows(float* start, long outer, long inner = 0, int group = 1)
{
    internal float* this[int row]
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => group == 1 ? start + (row * outer) : start + (row / group * outer) + (row % group * inner);
    }
}

/// <summary>Which keys a query sees, and what becomes of a product: score = cap tanh(scale q.k / cap).</summary>
/// <param name="Scale">Factor of the products.</param>
/// <param name="Causal">Whether keys after the query are masked.</param>
/// <param name="FirstQuery">Position of query 0.</param>
/// <param name="Window">Number of keys a query sees, itself included; 0: all.</param>
/// <param name="SoftCap">Bound of the scores; 0: none.</param>
internal readonly record struct ScoreRule(float Scale, bool Causal, int FirstQuery, int Window, float SoftCap)
{
    /// <summary>First key that query <paramref name="i"/> sees.</summary>
    internal int From(int i) => Causal && Window > 0 ? Math.Max(0, FirstQuery + i + 1 - Window) : 0;

    /// <summary>One past the last key that query <paramref name="i"/> sees.</summary>
    internal int To(int i, int keys) => Causal ? (int)Math.Min(keys, FirstQuery + (long)i + 1) : keys;
}

/// <summary>
/// The inner products of attention on the CPU, in registers: 6 rows by 16 columns. Every result is one chain of
/// multiply-adds in the order of the summed index, so its bits depend neither on the tiling nor on what is computed
/// beside it.
/// </summary>
internal static unsafe class AttentionTiles
{
    /// <summary>Rows of a register tile.</summary>
    internal const int Height = 6;

    /// <summary>Columns of a register tile.</summary>
    internal const int Width = 16;

    /// <summary>Values packed at a time: a column strip of them stays in the first-level cache.</summary>
    internal const int ValueBlock = 128;

    /// <summary>Rows between a prefetch and the use.</summary>
    private const int PrefetchRows = 8;

    /// <summary>Floats of scratch that <see cref="Scores"/> needs.</summary>
    internal static long KeyScratch(int d) => (long)Width * d;

    /// <summary>Floats of scratch that <see cref="Mix"/> needs.</summary>
    internal static long ValueScratch(int d) => (long)ValueBlock * ((d + Width - 1) / Width * Width);

    /// <summary>
    /// target[r][j] = rule(q[r] . k[j]) for rows r0 .. r1 and keys j0 .. j1; masked scores are -infinity.
    /// j0 is a multiple of 16; whole tiles are stored, cut off at <paramref name="width"/> columns.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static void Scores(
        StridedRows q, int r0, int r1, int group, StridedRows k, int j0, int j1, int keys, int d, in ScoreRule rule,
        StridedRows target, long width, float* scratch)
    {
        var rows = stackalloc float*[Height];
        var tile = stackalloc float[Height * Width];
        for (var j = j0; j < j1; j += Width)
        {
            PackKeys(k, j, Math.Min(Width, keys - j), d, scratch);
            if (j + Width < j1) Prefetch(k, j + Width, Math.Min(Width, keys - j - Width), d);
            for (var r = r0; r < r1; r += Height)
            {
                var n = Math.Min(Height, r1 - r);
                if (j >= rule.To((r + n - 1) / group, keys) || j + Width <= rule.From(r / group))
                {
                    for (var i = 0; i < n; i++) Fill(target[r + i] + j, Math.Min(Width, width - j));
                    continue;
                }

                for (var i = 0; i < Height; i++) rows[i] = q[r + Math.Min(i, n - 1)];
                if (n == 1) SumOne(rows[0], scratch, d, tile, add: false);
                else SumTile(rows, scratch, d, tile, add: false);
                for (var i = 0; i < n; i++)
                {
                    var query = (r + i) / group;
                    Finish(tile + (i * Width), target[r + i] + j, j, Math.Min(Width, width - j), rule.From(query), rule.To(query, keys), rule);
                }
            }
        }
    }

    /// <summary>target[r] = sum over j0 .. j1 of p[r][j] v[j], for rows r0 .. r1.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static void Mix(StridedRows p, int r0, int r1, StridedRows v, int j0, int j1, int d, StridedRows target, float* scratch)
    {
        if (j1 <= j0)
        {
            for (var r = r0; r < r1; r++) new Span<float>(target[r], d).Clear();
            return;
        }

        for (var j = j0; j < j1; j += ValueBlock)
        {
            var n = Math.Min(ValueBlock, j1 - j);
            PackValues(v, j, n, d, scratch);
            Accumulate(p, j, r0, r1, scratch, n, d, target, j > j0);
        }
    }

    /// <summary>target[r] (+)= sum over n packed values of p[r][first + j] value[j].</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static void Accumulate(StridedRows p, int first, int r0, int r1, float* packed, int n, int d, StridedRows target, bool add)
    {
        var rows = stackalloc float*[Height];
        var tile = stackalloc float[Height * Width];
        for (var c = 0; c < d; c += Width)
        {
            var strip = packed + ((long)c * ValueBlock);
            for (var r = r0; r < r1; r += Height)
            {
                var height = Math.Min(Height, r1 - r);
                for (var i = 0; i < Height; i++) rows[i] = p[r + Math.Min(i, height - 1)] + first;
                // The tile's sums pass through memory before and after: a call between would cost them their registers.
                for (var i = 0; i < Height; i++)
                {
                    var begun = add && i < height ? target[r + i] + c : null;
                    (begun == null ? default : Lanes.Load(begun, d - c)).Store(tile + (i * Width));
                    (begun == null || d - c <= 8 ? default : Lanes.Load(begun + 8, d - c - 8)).Store(tile + (i * Width) + 8);
                }

                if (height == 1) SumOne(rows[0], strip, n, tile, add: true);
                else SumTile(rows, strip, n, tile, add: true);
                for (var i = 0; i < height; i++)
                {
                    var end = target[r + i] + c;
                    Lanes.Store(Vector256.Load(tile + (i * Width)), end, d - c);
                    if (d - c > 8) Lanes.Store(Vector256.Load(tile + (i * Width) + 8), end + 8, d - c - 8);
                }
            }
        }
    }

    /// <summary>Copies values into column strips of 16: [strip][value][16].</summary>
    internal static void PackValues(StridedRows v, int first, int n, int d, float* packed)
    {
        for (var j = 0; j < n; j++)
        {
            if (j + PrefetchRows < n) Prefetch(v, first + j + PrefetchRows, 1, d);
            var source = v[first + j];
            for (var c = 0; c < d; c += Width)
            {
                var target = packed + ((long)c * ValueBlock) + (j * Width);
                Lanes.Load(source + c, d - c).Store(target);
                (d - c > 8 ? Lanes.Load(source + c + 8, d - c - 8) : Vector256<float>.Zero).Store(target + 8);
            }
        }
    }

    /// <summary>
    /// Asks for rows ahead of their use: heads lie interleaved, so each row is in another page, where the processor's
    /// own prefetcher does not follow.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Prefetch(StridedRows rows, int first, int n, int d)
    {
        if (!Sse.IsSupported) return;
        for (var i = 0; i < n; i++)
        {
            var row = rows[first + i];
            for (var c = 0; c < d; c += 16) Sse.Prefetch0(row + c);
        }
    }

    /// <summary>Transposes 16 keys into [d][16]; missing ones repeat the last.</summary>
    private static void PackKeys(StridedRows k, int first, int n, int d, float* packed)
    {
        var rows = stackalloc float*[Width];
        for (var i = 0; i < Width; i++) rows[i] = k[first + Math.Min(i, n - 1)];
        var c = 0;
        if (Avx.IsSupported)
        {
            for (; c + 8 <= d; c += 8)
            {
                Transpose(rows, c, packed + (c * Width));
                Transpose(rows + 8, c, packed + (c * Width) + 8);
            }
        }

        for (; c < d; c++)
            for (var i = 0; i < Width; i++) packed[(c * Width) + i] = rows[i][c];
    }

    /// <summary>Eight columns of eight rows, transposed, to rows of 16.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Transpose(float** rows, int c, float* target)
    {
        Vector256<float> a0 = Vector256.Load(rows[0] + c), a1 = Vector256.Load(rows[1] + c), a2 = Vector256.Load(rows[2] + c), a3 = Vector256.Load(rows[3] + c);
        Vector256<float> a4 = Vector256.Load(rows[4] + c), a5 = Vector256.Load(rows[5] + c), a6 = Vector256.Load(rows[6] + c), a7 = Vector256.Load(rows[7] + c);
        Vector256<float> b0 = Avx.UnpackLow(a0, a1), b1 = Avx.UnpackHigh(a0, a1), b2 = Avx.UnpackLow(a2, a3), b3 = Avx.UnpackHigh(a2, a3);
        Vector256<float> b4 = Avx.UnpackLow(a4, a5), b5 = Avx.UnpackHigh(a4, a5), b6 = Avx.UnpackLow(a6, a7), b7 = Avx.UnpackHigh(a6, a7);
        Vector256<float> c0 = Avx.Shuffle(b0, b2, 0x44), c1 = Avx.Shuffle(b0, b2, 0xEE), c2 = Avx.Shuffle(b1, b3, 0x44), c3 = Avx.Shuffle(b1, b3, 0xEE);
        Vector256<float> c4 = Avx.Shuffle(b4, b6, 0x44), c5 = Avx.Shuffle(b4, b6, 0xEE), c6 = Avx.Shuffle(b5, b7, 0x44), c7 = Avx.Shuffle(b5, b7, 0xEE);
        Avx.Permute2x128(c0, c4, 0x20).Store(target);
        Avx.Permute2x128(c1, c5, 0x20).Store(target + Width);
        Avx.Permute2x128(c2, c6, 0x20).Store(target + (2 * Width));
        Avx.Permute2x128(c3, c7, 0x20).Store(target + (3 * Width));
        Avx.Permute2x128(c0, c4, 0x31).Store(target + (4 * Width));
        Avx.Permute2x128(c1, c5, 0x31).Store(target + (5 * Width));
        Avx.Permute2x128(c2, c6, 0x31).Store(target + (6 * Width));
        Avx.Permute2x128(c3, c7, 0x31).Store(target + (7 * Width));
    }

    /// <summary>tile (6 x 16) = or += the sum over j of rows[r][j] * strip[j], each element one chain in the order of j.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void SumTile(float** rows, float* strip, int n, float* tile, bool add)
    {
        Vector256<float> a0 = default, b0 = default, a1 = default, b1 = default, a2 = default, b2 = default;
        Vector256<float> a3 = default, b3 = default, a4 = default, b4 = default, a5 = default, b5 = default;
        if (add)
        {
            (a0, b0, a1, b1) = (Vector256.Load(tile), Vector256.Load(tile + 8), Vector256.Load(tile + 16), Vector256.Load(tile + 24));
            (a2, b2, a3, b3) = (Vector256.Load(tile + 32), Vector256.Load(tile + 40), Vector256.Load(tile + 48), Vector256.Load(tile + 56));
            (a4, b4, a5, b5) = (Vector256.Load(tile + 64), Vector256.Load(tile + 72), Vector256.Load(tile + 80), Vector256.Load(tile + 88));
        }

        float* p0 = rows[0], p1 = rows[1], p2 = rows[2], p3 = rows[3], p4 = rows[4], p5 = rows[5];
        for (long j = 0; j < n; j++)
        {
            Vector256<float> u = Vector256.Load(strip), v = Vector256.Load(strip + 8);
            strip += Width;
            var x = Vector256.Create(p0[j]);
            a0 = Vector256.MultiplyAddEstimate(x, u, a0);
            b0 = Vector256.MultiplyAddEstimate(x, v, b0);
            x = Vector256.Create(p1[j]);
            a1 = Vector256.MultiplyAddEstimate(x, u, a1);
            b1 = Vector256.MultiplyAddEstimate(x, v, b1);
            x = Vector256.Create(p2[j]);
            a2 = Vector256.MultiplyAddEstimate(x, u, a2);
            b2 = Vector256.MultiplyAddEstimate(x, v, b2);
            x = Vector256.Create(p3[j]);
            a3 = Vector256.MultiplyAddEstimate(x, u, a3);
            b3 = Vector256.MultiplyAddEstimate(x, v, b3);
            x = Vector256.Create(p4[j]);
            a4 = Vector256.MultiplyAddEstimate(x, u, a4);
            b4 = Vector256.MultiplyAddEstimate(x, v, b4);
            x = Vector256.Create(p5[j]);
            a5 = Vector256.MultiplyAddEstimate(x, u, a5);
            b5 = Vector256.MultiplyAddEstimate(x, v, b5);
        }

        a0.Store(tile);
        b0.Store(tile + 8);
        a1.Store(tile + 16);
        b1.Store(tile + 24);
        a2.Store(tile + 32);
        b2.Store(tile + 40);
        a3.Store(tile + 48);
        b3.Store(tile + 56);
        a4.Store(tile + 64);
        b4.Store(tile + 72);
        a5.Store(tile + 80);
        b5.Store(tile + 88);
    }

    /// <summary><see cref="SumTile"/> for one row: the same bits.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void SumOne(float* p, float* strip, int n, float* tile, bool add)
    {
        Vector256<float> a = add ? Vector256.Load(tile) : default, b = add ? Vector256.Load(tile + 8) : default;
        for (var j = 0; j < n; j++, strip += Width)
        {
            var x = Vector256.Create(p[j]);
            a = Vector256.MultiplyAddEstimate(x, Vector256.Load(strip), a);
            b = Vector256.MultiplyAddEstimate(x, Vector256.Load(strip + 8), b);
        }

        a.Store(tile);
        b.Store(tile + 8);
    }

    private static void Fill(float* target, long n)
    {
        for (var i = 0; i < n; i++) target[i] = float.NegativeInfinity;
    }

    /// <summary>Scales, caps and masks one row of a tile and stores its first <paramref name="n"/> columns.</summary>
    private static void Finish(float* tile, float* target, int j, long n, int from, int to, in ScoreRule rule)
    {
        var scale = Vector256.Create(rule.Scale);
        Vector256<float> a = Vector256.Load(tile) * scale, b = Vector256.Load(tile + 8) * scale;
        if (rule.SoftCap > 0)
        {
            var cap = Vector256.Create(rule.SoftCap);
            a = cap * CpuMath.Tanh(a / cap);
            b = cap * CpuMath.Tanh(b / cap);
        }

        if (j < from || j + Width > to)
        {
            var masked = Vector256.Create(float.NegativeInfinity);
            Vector256<int> index = Vector256<int>.Indices + Vector256.Create(j), low = Vector256.Create(from), high = Vector256.Create(to);
            a = Vector256.ConditionalSelect((Vector256.GreaterThanOrEqual(index, low) & Vector256.LessThan(index, high)).AsSingle(), a, masked);
            index += Vector256.Create(8);
            b = Vector256.ConditionalSelect((Vector256.GreaterThanOrEqual(index, low) & Vector256.LessThan(index, high)).AsSingle(), b, masked);
        }

        Lanes.Store(a, target, n);
        if (n > 8) Lanes.Store(b, target + 8, n - 8);
    }
}
