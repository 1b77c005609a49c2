using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Products of up to <see cref="FewRows"/> rows, as in generation with a key-value cache: b is read once, straight from
/// memory, which is what limits them. The same chains as the packed paths: lanes are columns, steps along k in order.
/// </summary>
internal static unsafe partial class PackedGemm
{
    /// <summary>Most rows for which packing b costs more than it saves.</summary>
    private const int FewRows = 12;

    /// <summary>Columns that are finished together where k runs across: their chains stay in L1.</summary>
    private const int StripColumns = 1024;

    /// <summary>Whether <see cref="MultiplyFewRows"/> takes the product.</summary>
    private static bool IsFewRows(in GemmProblem p) => p.M <= FewRows && (!p.B.AlongK || (Avx.IsSupported && Fma.IsSupported));

    private static void MultiplyFewRows(CpuDevice device, in GemmProblem problem, float* c, long ldc)
    {
        switch (problem.B.Type)
        {
            case DType.F32: MultiplyFewRows<LoadF32>(device, problem, c, ldc); break;
            case DType.BF16: MultiplyFewRows<LoadBF16>(device, problem, c, ldc); break;
            default: MultiplyFewRows<LoadF16>(device, problem, c, ldc); break;
        }
    }

    private static void MultiplyFewRows<TLoad>(CpuDevice device, GemmProblem problem, float* c, long ldc)
        where TLoad : struct, ILoad
    {
        int k = problem.K, n = problem.N;
        var rowsOfA = device.Rent(Math.Max(1L, (long)problem.M * k * sizeof(float)));
        try
        {
            // a as rows of floats, whatever it was.
            var a = (float*)rowsOfA.HostAddress;
            for (var i = 0; i < problem.M; i++) PackPanels(problem.A, i, 1, 1, k, a + ((long)i * k));
            var unit = problem.B.AlongK ? 16 : 64;
            var most = problem.B.AlongK ? int.MaxValue / 2 : StripColumns;
            var worth = RoundUp((int)Math.Min(n, SmallestPiece / Math.Max(1, k * problem.M)) + 1, unit);
            var across = new Cut(n, unit, Math.Min(most, worth));
            device.Pool.For(across.Pieces, (piece, _) =>
            {
                var (first, count) = across[piece];
                if (problem.B.AlongK) RowsAlongK<TLoad>(problem, first, count, a, c, ldc);
                else RowsAcross<TLoad>(problem, first, count, a, c, ldc);
                Finish(c + first, ldc, problem.M, count, problem.Bias == null ? null : problem.Bias + first, problem.Relu);
            });
        }
        finally
        {
            rowsOfA.Release();
        }
    }

    /// <summary>b is [n, k]: eight of its rows at a time, transposed in registers, for four rows of a.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    [SkipLocalsInit]
    private static void RowsAlongK<TLoad>(in GemmProblem problem, int first, int count, float* a, float* c, long ldc)
        where TLoad : struct, ILoad
    {
        int k = problem.K, vector = k & ~7;
        var stride = problem.B.Stride;
        var data = problem.B.Data;
        var size = problem.B.Type.Size();
        var sums = stackalloc float[32];
        var at = stackalloc long[16];
        var wide = problem.M == 1 ? 16 : 8;
        for (var j = 0; j < count; j += wide)
        {
            // Beyond the last row the last one is read again; its sums are dropped.
            long row = first + j, last = first + count - 1;
            for (var r = 0; r < wide; r++) at[r] = Math.Min(row + r, last) * stride;
            for (var i = 0; i < problem.M; i += 4)
            {
                var rows = Math.Min(4, problem.M - i);
                var x = a + ((long)i * k);
                if (wide == 16) OneRow<TLoad>(data, at, vector, x, sums, size, 16 * stride * size);
                else FourRows<TLoad>(data, at, vector, x, rows > 1 ? k : 0, rows > 2 ? 2L * k : 0, rows > 3 ? 3L * k : 0, sums);
                for (var l = 0; l < rows; l++)
                    for (var r = 0; r < Math.Min(wide, count - j); r++)
                    {
                        var sum = sums[(l * 8) + r];
                        for (var s = vector; s < k; s++) sum = MathF.FusedMultiplyAdd(x[((long)l * k) + s], TLoad.One(data, at[r] + s), sum);
                        c[((i + l) * ldc) + row + r] = sum;
                    }
            }
        }
    }

    /// <summary>Sixteen rows of b with one of a; sixteen steps at a time, so that each cache line is read once.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void OneRow<TLoad>(void* b, long* at, int steps, float* a, float* sums, int size, long ahead)
        where TLoad : struct, ILoad
    {
        Vector256<float> s0 = default, s1 = default;
        var s = 0;
        for (; s + 16 <= steps; s += 16)
        {
            // The sixteen rows after these, at the same place: hardware prefetchers lose the many short streams. A
            // prefetch beyond the matrix does nothing.
            if (Sse.IsSupported)
                for (var r = 0; r < 16; r++) Sse.Prefetch1((byte*)b + ((at[r] + s) * size) + ahead);
            s0 = EightSteps<TLoad>(b, at, s, a, s0);
            s0 = EightSteps<TLoad>(b, at, s + 8, a, s0);
            s1 = EightSteps<TLoad>(b, at + 8, s, a, s1);
            s1 = EightSteps<TLoad>(b, at + 8, s + 8, a, s1);
        }

        if (s < steps)
        {
            s0 = EightSteps<TLoad>(b, at, s, a, s0);
            s1 = EightSteps<TLoad>(b, at + 8, s, a, s1);
        }

        s0.Store(sums);
        s1.Store(sums + 8);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<float> EightSteps<TLoad>(void* b, long* at, int s, float* a, Vector256<float> sum)
        where TLoad : struct, ILoad
    {
        Load8<TLoad>(b, at, s, out var r0, out var r1, out var r2, out var r3, out var r4, out var r5, out var r6, out var r7);
        sum = Fma.MultiplyAdd(Vector256.Create(a[s]), r0, sum);
        sum = Fma.MultiplyAdd(Vector256.Create(a[s + 1]), r1, sum);
        sum = Fma.MultiplyAdd(Vector256.Create(a[s + 2]), r2, sum);
        sum = Fma.MultiplyAdd(Vector256.Create(a[s + 3]), r3, sum);
        sum = Fma.MultiplyAdd(Vector256.Create(a[s + 4]), r4, sum);
        sum = Fma.MultiplyAdd(Vector256.Create(a[s + 5]), r5, sum);
        sum = Fma.MultiplyAdd(Vector256.Create(a[s + 6]), r6, sum);
        return Fma.MultiplyAdd(Vector256.Create(a[s + 7]), r7, sum);
    }

    /// <summary>Eight rows of b with four of a, which lie at a, a + a1, a + a2 and a + a3.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void FourRows<TLoad>(void* b, long* at, int steps, float* a, long a1, long a2, long a3, float* sums)
        where TLoad : struct, ILoad
    {
        Vector256<float> s0 = default, s1 = default, s2 = default, s3 = default;
        for (var s = 0; s < steps; s += 8)
        {
            Load8<TLoad>(b, at, s, out var r0, out var r1, out var r2, out var r3, out var r4, out var r5, out var r6, out var r7);
            Link(a + s, a1, a2, a3, r0, ref s0, ref s1, ref s2, ref s3);
            Link(a + s + 1, a1, a2, a3, r1, ref s0, ref s1, ref s2, ref s3);
            Link(a + s + 2, a1, a2, a3, r2, ref s0, ref s1, ref s2, ref s3);
            Link(a + s + 3, a1, a2, a3, r3, ref s0, ref s1, ref s2, ref s3);
            Link(a + s + 4, a1, a2, a3, r4, ref s0, ref s1, ref s2, ref s3);
            Link(a + s + 5, a1, a2, a3, r5, ref s0, ref s1, ref s2, ref s3);
            Link(a + s + 6, a1, a2, a3, r6, ref s0, ref s1, ref s2, ref s3);
            Link(a + s + 7, a1, a2, a3, r7, ref s0, ref s1, ref s2, ref s3);
        }

        s0.Store(sums);
        s1.Store(sums + 8);
        s2.Store(sums + 16);
        s3.Store(sums + 24);
    }

    /// <summary>One step along k of four rows' chains.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Link(
        float* a, long a1, long a2, long a3, Vector256<float> b,
        ref Vector256<float> s0, ref Vector256<float> s1, ref Vector256<float> s2, ref Vector256<float> s3)
    {
        s0 = Fma.MultiplyAdd(Vector256.Create(*a), b, s0);
        s1 = Fma.MultiplyAdd(Vector256.Create(a[a1]), b, s1);
        s2 = Fma.MultiplyAdd(Vector256.Create(a[a2]), b, s2);
        s3 = Fma.MultiplyAdd(Vector256.Create(a[a3]), b, s3);
    }

    /// <summary>Steps s .. s+7 of eight rows of b, transposed: rk holds step s + k of all eight.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Load8<TLoad>(
        void* b, long* at, int s,
        out Vector256<float> r0, out Vector256<float> r1, out Vector256<float> r2, out Vector256<float> r3,
        out Vector256<float> r4, out Vector256<float> r5, out Vector256<float> r6, out Vector256<float> r7)
        where TLoad : struct, ILoad
    {
        r0 = TLoad.Eight(b, at[0] + s);
        r1 = TLoad.Eight(b, at[1] + s);
        r2 = TLoad.Eight(b, at[2] + s);
        r3 = TLoad.Eight(b, at[3] + s);
        r4 = TLoad.Eight(b, at[4] + s);
        r5 = TLoad.Eight(b, at[5] + s);
        r6 = TLoad.Eight(b, at[6] + s);
        r7 = TLoad.Eight(b, at[7] + s);
        Transpose8(ref r0, ref r1, ref r2, ref r3, ref r4, ref r5, ref r6, ref r7);
    }

    /// <summary>b is [k, n]: four of its rows at a time are added to a strip of c.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void RowsAcross<TLoad>(in GemmProblem problem, int first, int count, float* a, float* c, long ldc)
        where TLoad : struct, ILoad
    {
        var k = problem.K;
        var stride = problem.B.Stride;
        var data = problem.B.Data;
        for (var i = 0; i < problem.M; i++) new Span<float>(c + (i * ldc) + first, count).Clear();
        for (var s = 0; s < k; s += 4)
        {
            var steps = Math.Min(4, k - s);
            long b0 = (s * stride) + first, b1 = b0 + stride, b2 = b1 + stride, b3 = b2 + stride;
            for (var i = 0; i < problem.M; i++)
            {
                var x = a + ((long)i * k) + s;
                var y = c + (i * ldc) + first;
                var j = 0;
                if (steps == 4)
                {
                    var (x0, x1, x2, x3) = (Vector256.Create(x[0]), Vector256.Create(x[1]), Vector256.Create(x[2]), Vector256.Create(x[3]));
                    for (; j + 8 <= count; j += 8)
                    {
                        var sum = Vector256.Load(y + j);
                        sum = Vector256.MultiplyAddEstimate(x0, TLoad.Eight(data, b0 + j), sum);
                        sum = Vector256.MultiplyAddEstimate(x1, TLoad.Eight(data, b1 + j), sum);
                        sum = Vector256.MultiplyAddEstimate(x2, TLoad.Eight(data, b2 + j), sum);
                        Vector256.MultiplyAddEstimate(x3, TLoad.Eight(data, b3 + j), sum).Store(y + j);
                    }
                }

                for (; j < count; j++)
                    for (var l = 0; l < steps; l++) y[j] = float.MultiplyAddEstimate(x[l], TLoad.One(data, b0 + (l * stride) + j), y[j]);
            }
        }
    }
}
