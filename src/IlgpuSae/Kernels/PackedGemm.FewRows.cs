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
    private const int FewRows = 4;

    /// <summary>Columns that are finished together where k runs across: their chains stay in L1.</summary>
    private const int StripColumns = 1024;

    /// <summary>Loads eight elements as floats; one a stored type.</summary>
    private interface ILoad
    {
        static abstract Vector256<float> Eight(void* data, long index);

        static abstract float One(void* data, long index);
    }

    private readonly struct LoadF32 : ILoad
    {
        public static Vector256<float> Eight(void* data, long index) => Vector256.Load((float*)data + index);

        public static float One(void* data, long index) => ((float*)data)[index];
    }

    private readonly struct LoadBF16 : ILoad
    {
        public static Vector256<float> Eight(void* data, long index)
        {
            var (low, high) = Vector128.Widen(Vector128.Load((ushort*)data + index));
            return (Vector256.Create(low, high) << 16).AsSingle();
        }

        public static float One(void* data, long index) => BitConverter.UInt32BitsToSingle((uint)((ushort*)data)[index] << 16);
    }

    private readonly struct LoadF16 : ILoad
    {
        public static Vector256<float> Eight(void* data, long index)
        {
            var (low, high) = Vector128.Widen(Vector128.Load((ushort*)data + index));
            return Vector256.Create(WidenHalf(low), WidenHalf(high));
        }

        public static float One(void* data, long index) => (float)((Half*)data)[index];
    }

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

    /// <summary>b is [n, k]: 16 of its rows at a time, transposed in registers.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    [SkipLocalsInit]
    private static void RowsAlongK<TLoad>(in GemmProblem problem, int first, int count, float* a, float* c, long ldc)
        where TLoad : struct, ILoad
    {
        int k = problem.K, vector = k & ~7;
        var stride = problem.B.Stride;
        var data = problem.B.Data;
        var sums = stackalloc float[16];
        var at = stackalloc long[16];
        for (var j = 0; j < count; j += 16)
        {
            // Beyond the last row the last one is read again; its sums are dropped.
            long row = first + j, last = first + count - 1;
            for (var r = 0; r < 16; r++) at[r] = Math.Min(row + r, last) * stride;
            for (var i = 0; i < problem.M; i++)
            {
                var x = a + ((long)i * k);
                Vector256<float> s0 = default, s1 = default;
                for (var s = 0; s < vector; s += 8)
                {
                    s0 = EightSteps<TLoad>(data, at, s, x, s0);
                    s1 = EightSteps<TLoad>(data, at + 8, s, x, s1);
                }

                s0.Store(sums);
                s1.Store(sums + 8);
                for (var r = 0; r < Math.Min(16, count - j); r++)
                {
                    var sum = sums[r];
                    for (var s = vector; s < k; s++) sum = MathF.FusedMultiplyAdd(x[s], TLoad.One(data, at[r] + s), sum);
                    c[(i * ldc) + row + r] = sum;
                }
            }
        }
    }

    /// <summary>Eight rows of b by eight steps along k: transposed, then eight links of eight chains.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<float> EightSteps<TLoad>(void* b, long* at, int s, float* a, Vector256<float> sum)
        where TLoad : struct, ILoad
    {
        var r0 = TLoad.Eight(b, at[0] + s);
        var r1 = TLoad.Eight(b, at[1] + s);
        var r2 = TLoad.Eight(b, at[2] + s);
        var r3 = TLoad.Eight(b, at[3] + s);
        var r4 = TLoad.Eight(b, at[4] + s);
        var r5 = TLoad.Eight(b, at[5] + s);
        var r6 = TLoad.Eight(b, at[6] + s);
        var r7 = TLoad.Eight(b, at[7] + s);
        Transpose8(ref r0, ref r1, ref r2, ref r3, ref r4, ref r5, ref r6, ref r7);
        sum = Fma.MultiplyAdd(Vector256.Create(a[s]), r0, sum);
        sum = Fma.MultiplyAdd(Vector256.Create(a[s + 1]), r1, sum);
        sum = Fma.MultiplyAdd(Vector256.Create(a[s + 2]), r2, sum);
        sum = Fma.MultiplyAdd(Vector256.Create(a[s + 3]), r3, sum);
        sum = Fma.MultiplyAdd(Vector256.Create(a[s + 4]), r4, sum);
        sum = Fma.MultiplyAdd(Vector256.Create(a[s + 5]), r5, sum);
        sum = Fma.MultiplyAdd(Vector256.Create(a[s + 6]), r6, sum);
        return Fma.MultiplyAdd(Vector256.Create(a[s + 7]), r7, sum);
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
