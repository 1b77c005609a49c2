using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Packing: rows of an operand into panels of the micro-kernel's width, k-major, so that the inner loop reads both
/// sides in order. Rows beyond the matrix are zeros.
/// </summary>
internal static unsafe partial class PackedGemm
{
    /// <summary>Steps along k that are widened at a time: 32 rows take 16 KB.</summary>
    private const int WidenSteps = 128;

    /// <summary>Floats that the calling thread packs alone (some 10 microseconds).</summary>
    private const long SmallestPack = 48 << 10;

    /// <summary>Widest panel of any micro-kernel, in floats.</summary>
    private const int WidestPanel = 64;

    /// <summary>Packs rows of a and columns of b, whichever has a count, in one pass of the threads.</summary>
    private static void Pack<TKernel>(
        CpuDevice device, GemmProblem problem, (int First, int Count) rows, float* targetA, (int First, int Count) columns, float* targetB)
        where TKernel : IGemmMicroKernel
    {
        var k = problem.K;
        var (firstA, countA) = rows;
        var (firstB, countB) = columns;
        var cutA = new Cut(countA, TKernel.Rows, PiecePanels(k, TKernel.Rows));
        var cutB = new Cut(countB, TKernel.Columns, PiecePanels(k, TKernel.Columns));
        void Run(int piece)
        {
            if (piece < cutA.Pieces)
            {
                var (i, n) = cutA[piece];
                PackPanels(problem.A, firstA + i, n, TKernel.Rows, k, targetA + ((long)i * k));
            }
            else
            {
                var (j, n) = cutB[piece - cutA.Pieces];
                PackPanels(problem.B, firstB + j, n, TKernel.Columns, k, targetB + ((long)j * k));
            }
        }

        var pieces = cutA.Pieces + cutB.Pieces;
        if (((long)countA + countB) * k <= SmallestPack)
        {
            for (var piece = 0; piece < pieces; piece++) Run(piece);
        }
        else
        {
            device.Pool.For(pieces, (piece, _) => Run(piece));
        }
    }

    /// <summary>Rows that are packed in one piece: about 512 KB, whole panels.</summary>
    private static int PiecePanels(int k, int width) => Math.Max(1, (128 << 10) / Math.Max(1, k * width)) * width;

    /// <summary>Packs rows <paramref name="first"/> .. first+count-1 of an operand into panels [k, width].</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void PackPanels(in GemmOperand x, int first, int count, int width, int k, float* target)
    {
        if (x.AlongK)
        {
            for (var i = 0; i < count; i += width)
                PackAlongK(x, first + i, Math.Min(width, count - i), width, k, target + ((long)i * k));
            return;
        }

        // Eight stored rows at a time through all panels: long reads of each row, and writes of whole cache lines.
        var size = x.Type.Size();
        for (var s = 0; s < k; s += 8)
        {
            var steps = Math.Min(8, k - s);
            for (var i = 0; i < count; i += width)
            {
                var from = (byte*)x.Data + (((s * x.Stride) + first + i) * size);
                var to = target + ((long)i * k) + ((long)s * width);
                PackAcross(from, x.Stride * size, x.Type, Math.Min(width, count - i), width, steps, to);
            }
        }
    }

    /// <summary>target[s, r] = source[s, r] for r below <paramref name="count"/>, 0 up to <paramref name="width"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void PackAcross(byte* source, long strideBytes, DType type, int count, int width, int steps, float* target)
    {
        for (var s = 0; s < steps; s++, source += strideBytes, target += width)
        {
            if (type == DType.F32 && count == width && width >= 8)
            {
                // Eights, the last of which may overlap the one before.
                var row = (float*)source;
                var i = 0;
                for (; i + 8 <= width; i += 8) Vector256.Load(row + i).Store(target + i);
                if (i < width) Vector256.Load(row + width - 8).Store(target + width - 8);
                continue;
            }

            Widen(source, type, target, count);
            for (var r = count; r < width; r++) target[r] = 0;
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    [SkipLocalsInit]
    private static void PackAlongK(in GemmOperand x, int first, int count, int width, int k, float* target)
    {
        if (x.Type == DType.F32)
        {
            Transpose((float*)x.Data + (first * x.Stride), x.Stride, count, width, k, target, fromMemory: true);
            return;
        }

        var wide = stackalloc float[WidestPanel * WidenSteps];
        var size = x.Type.Size();
        for (var s = 0; s < k; s += WidenSteps)
        {
            var steps = Math.Min(WidenSteps, k - s);
            for (var r = 0; r < count; r++)
                Widen((byte*)x.Data + ((((first + r) * x.Stride) + s) * size), x.Type, wide + (r * WidenSteps), steps);
            Transpose(wide, WidenSteps, count, width, steps, target + ((long)s * width), fromMemory: false);
        }
    }

    /// <summary>target[s, r] = source[r, s] for r below <paramref name="rows"/>, 0 up to <paramref name="width"/>.</summary>
    [SkipLocalsInit]
    private static void Transpose(float* source, long stride, int rows, int width, int steps, float* target, bool fromMemory)
    {
        var s = 0;
        if (Avx.IsSupported && width <= WidestPanel)
        {
            // Where the width is no multiple of 8, a store runs into the next step's first floats: those are written
            // afterwards, so groups of rows go from the last to the first, and the panel's end goes through a spill.
            var ragged = width % 8 != 0;
            for (; s + 16 < steps || (!ragged && s + 16 == steps); s += 16)
            {
                // Sixteen steps are the cache lines of the rows read: strides may be such that few rows fit in L1. The next
                // panel's are asked for: hardware prefetchers lose the many short streams.
                var to = target + ((long)s * width);
                for (var g = (width - 1) / 8 * 8; g >= 0; g -= 8)
                {
                    var from = source + (g * stride) + s;
                    if (Sse.IsSupported && fromMemory)
                        for (var r = 0; r < Math.Min(8, width - g); r++) Sse.Prefetch1(from + ((width + r) * stride));
                    Transpose8(from, stride, rows - g, to + g, width);
                    Transpose8(from + 8, stride, rows - g, to + (8 * width) + g, width);
                }
            }

            var spill = stackalloc float[(8 * WidestPanel) + 8];
            for (; s + 8 <= steps; s += 8)
            {
                var to = target + ((long)s * width);
                var exact = ragged && s + 8 >= steps;
                var block = exact ? spill : to;
                for (var g = (width - 1) / 8 * 8; g >= 0; g -= 8)
                    Transpose8(source + (g * stride) + s, stride, rows - g, block + g, width);
                if (exact) Buffer.MemoryCopy(spill, to, 8L * width * sizeof(float), 8L * width * sizeof(float));
            }
        }

        for (; s < steps; s++)
        {
            var to = target + ((long)s * width);
            for (var r = 0; r < rows; r++) to[r] = source[(r * stride) + s];
            for (var r = rows; r < width; r++) to[r] = 0;
        }
    }

    /// <summary>An 8 x 8 transpose in registers; rows from <paramref name="rows"/> on count as zeros.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Transpose8(float* s, long stride, int rows, float* d, int width)
    {
        Vector256<float> r0, r1, r2, r3, r4, r5, r6, r7;
        if (rows >= 8)
        {
            r0 = Vector256.Load(s);
            r1 = Vector256.Load(s + stride);
            r2 = Vector256.Load(s + (2 * stride));
            r3 = Vector256.Load(s + (3 * stride));
            s += 4 * stride;
            r4 = Vector256.Load(s);
            r5 = Vector256.Load(s + stride);
            r6 = Vector256.Load(s + (2 * stride));
            r7 = Vector256.Load(s + (3 * stride));
        }
        else
        {
            var zero = Vector256<float>.Zero;
            r0 = rows > 0 ? Vector256.Load(s) : zero;
            r1 = rows > 1 ? Vector256.Load(s + stride) : zero;
            r2 = rows > 2 ? Vector256.Load(s + (2 * stride)) : zero;
            r3 = rows > 3 ? Vector256.Load(s + (3 * stride)) : zero;
            r4 = rows > 4 ? Vector256.Load(s + (4 * stride)) : zero;
            r5 = rows > 5 ? Vector256.Load(s + (5 * stride)) : zero;
            r6 = rows > 6 ? Vector256.Load(s + (6 * stride)) : zero;
            r7 = zero;
        }

        Transpose8(ref r0, ref r1, ref r2, ref r3, ref r4, ref r5, ref r6, ref r7);
        r0.Store(d);
        r1.Store(d + width);
        r2.Store(d + (2 * width));
        r3.Store(d + (3 * width));
        d += 4 * width;
        r4.Store(d);
        r5.Store(d + width);
        r6.Store(d + (2 * width));
        r7.Store(d + (3 * width));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Transpose8(
        ref Vector256<float> r0, ref Vector256<float> r1, ref Vector256<float> r2, ref Vector256<float> r3,
        ref Vector256<float> r4, ref Vector256<float> r5, ref Vector256<float> r6, ref Vector256<float> r7)
    {
        var t0 = Avx.UnpackLow(r0, r1);
        var t1 = Avx.UnpackHigh(r0, r1);
        var t2 = Avx.UnpackLow(r2, r3);
        var t3 = Avx.UnpackHigh(r2, r3);
        var t4 = Avx.UnpackLow(r4, r5);
        var t5 = Avx.UnpackHigh(r4, r5);
        var t6 = Avx.UnpackLow(r6, r7);
        var t7 = Avx.UnpackHigh(r6, r7);
        var u0 = Avx.Shuffle(t0, t2, 0x44);
        var u1 = Avx.Shuffle(t0, t2, 0xEE);
        var u2 = Avx.Shuffle(t1, t3, 0x44);
        var u3 = Avx.Shuffle(t1, t3, 0xEE);
        var u4 = Avx.Shuffle(t4, t6, 0x44);
        var u5 = Avx.Shuffle(t4, t6, 0xEE);
        var u6 = Avx.Shuffle(t5, t7, 0x44);
        var u7 = Avx.Shuffle(t5, t7, 0xEE);
        r0 = Avx.Permute2x128(u0, u4, 0x20);
        r1 = Avx.Permute2x128(u1, u5, 0x20);
        r2 = Avx.Permute2x128(u2, u6, 0x20);
        r3 = Avx.Permute2x128(u3, u7, 0x20);
        r4 = Avx.Permute2x128(u0, u4, 0x31);
        r5 = Avx.Permute2x128(u1, u5, 0x31);
        r6 = Avx.Permute2x128(u2, u6, 0x31);
        r7 = Avx.Permute2x128(u3, u7, 0x31);
    }

    /// <summary>Copies <paramref name="count"/> elements as floats; exact for every type.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Widen(void* source, DType type, float* target, int count)
    {
        var i = 0;
        if (type == DType.F32)
        {
            var s = (float*)source;
            for (; i + 8 <= count; i += 8) Vector256.Load(s + i).Store(target + i);
            for (; i < count; i++) target[i] = s[i];
        }
        else if (type == DType.BF16)
        {
            for (; i + 8 <= count; i += 8) LoadBF16.Eight(source, i).Store(target + i);
            for (; i < count; i++) target[i] = LoadBF16.One(source, i);
        }
        else
        {
            for (; i + 8 <= count; i += 8) LoadF16.Eight(source, i).Store(target + i);
            for (; i < count; i++) target[i] = LoadF16.One(source, i);
        }
    }
}
