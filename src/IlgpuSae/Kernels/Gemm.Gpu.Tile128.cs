using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>What a tiled product must know besides its memory.</summary>
internal struct GemmTiling
{
    /// <summary>Option: a is stored [k, m].</summary>
    internal const int TransposeA = 1;

    /// <summary>Option: b is stored [n, k].</summary>
    internal const int TransposeB = 2;

    /// <summary>Option: a bias is added to every row.</summary>
    internal const int HasBias = 4;

    /// <summary>First bit of a's element type, 0 F32, 1 BF16, 2 F16.</summary>
    internal const int TypeA = 4;

    /// <summary>First bit of b's element type.</summary>
    internal const int TypeB = 6;

    public int M;
    public int N;
    public int K;

    /// <summary>Elements between rows of a as stored.</summary>
    public int StrideA;

    /// <summary>Elements between rows of b as stored.</summary>
    public int StrideB;

    /// <summary>Length of k that the groups of one z take; a multiple of 8.</summary>
    public int KPerPart;
    public int Options;
}

/// <summary>
/// The product in tiles of 128 x 128: 256 threads, each 8 x 8 sums in registers (4 rows and 4 columns, twice, 64 apart, so
/// that shared memory is read in 16-byte pieces without bank conflicts); tiles of 8 along k are double-buffered in
/// shared memory, the next one is on its way while one is used. Each sum runs over k in order.
/// </summary>
public static partial class Gemm
{
    /// <summary>Floats between rows of a shared tile: 128 and 4 more, which spread a transposing store over the banks.</summary>
    private const int TileStride = 132;

    private const int TileFloats = 8 * TileStride;

    [GpuKernel(GroupSize = 256)]
    private static void Tile128NnKernel(ArrayView<float> a, ArrayView<float> b, ArrayView<float> bias, ArrayView<float> y, GemmTiling s) =>
        Tile128(a, b, bias, y, s, true, false);

    [GpuKernel(GroupSize = 256)]
    private static void Tile128NtKernel(ArrayView<float> a, ArrayView<float> b, ArrayView<float> bias, ArrayView<float> y, GemmTiling s) =>
        Tile128(a, b, bias, y, s, true, true);

    [GpuKernel(GroupSize = 256)]
    private static void Tile128TnKernel(ArrayView<float> a, ArrayView<float> b, ArrayView<float> bias, ArrayView<float> y, GemmTiling s) =>
        Tile128(a, b, bias, y, s, false, false);

    [GpuKernel(GroupSize = 256)]
    private static void Tile128TtKernel(ArrayView<float> a, ArrayView<float> b, ArrayView<float> bias, ArrayView<float> y, GemmTiling s) =>
        Tile128(a, b, bias, y, s, false, true);

    /// <summary>
    /// The kernel of each layout (n: as it is, t: transposed): with the layout known only at run time, the assembler
    /// keeps a whole tile in registers across the branch. k, the strides and, where they run along m or n, m and n are
    /// multiples of 4, k of 8, and addresses of 16 bytes. Rows and columns beyond the matrix repeat its last ones and
    /// are not stored.
    /// </summary>
    private static void Tile128(
        ArrayView<float> a, ArrayView<float> b, ArrayView<float> bias, ArrayView<float> y, GemmTiling s, bool alongKA, bool alongKB)
    {
        var sharedA = SharedMemory.Allocate<float>(2 * TileFloats);
        var sharedB = SharedMemory.Allocate<float>(2 * TileFloats);
        var a4 = a.Cast<Float4>();
        var b4 = b.Cast<Float4>();
        var tileA = sharedA.Cast<Float4>();
        var tileB = sharedB.Cast<Float4>();
        var t = Group.IdxX;
        var firstRow = Grid.IdxX * 128;
        var firstColumn = Grid.IdxY * 128;
        var from = Grid.IdxZ * s.KPerPart;
        var to = Math.Min(s.K, from + s.KPerPart);

        // An operand stored along k is transposed on its way into shared memory; the other kind is copied.
        var atA = First(alongKA, t, firstRow, s.M, s.StrideA, from);
        var atB = First(alongKB, t, firstColumn, s.N, s.StrideB, from);
        var stepA = alongKA ? 2L : 2L * s.StrideA;
        var stepB = alongKB ? 2L : 2L * s.StrideB;
        var putA = alongKA ? (((t & 1) << 2) * TileStride) + (t >> 1) : ((t >> 5) * TileStride) + ((t & 31) << 2);
        var putB = alongKB ? (((t & 1) << 2) * TileStride) + (t >> 1) : ((t >> 5) * TileStride) + ((t & 31) << 2);
        var nextA = a4[atA];
        var nextB = b4[atB];
        Put(sharedA, tileA, putA, alongKA, nextA);
        Put(sharedB, tileB, putB, alongKB, nextB);
        Group.Barrier();

        Row8 r0 = default, r1 = default, r2 = default, r3 = default, r4 = default, r5 = default, r6 = default, r7 = default;
        var row = (t >> 4) << 2;
        var column = (t & 15) << 2;
        var current = 0;
        for (var k = from; k < to; k += 8)
        {
            var more = k + 8 < to;
            if (more)
            {
                atA += stepA;
                atB += stepB;
                nextA = a4[atA];
                nextB = b4[atB];
            }

            // Unrolled by hand: with a loop here ILGPU's text keeps the assembler from overlapping the steps.
            var i = (current + row) >> 2;
            var j = (current + column) >> 2;
            Step(tileA, tileB, i, j, ref r0, ref r1, ref r2, ref r3, ref r4, ref r5, ref r6, ref r7);
            Step(tileA, tileB, i + 33, j + 33, ref r0, ref r1, ref r2, ref r3, ref r4, ref r5, ref r6, ref r7);
            Step(tileA, tileB, i + 66, j + 66, ref r0, ref r1, ref r2, ref r3, ref r4, ref r5, ref r6, ref r7);
            Step(tileA, tileB, i + 99, j + 99, ref r0, ref r1, ref r2, ref r3, ref r4, ref r5, ref r6, ref r7);
            Step(tileA, tileB, i + 132, j + 132, ref r0, ref r1, ref r2, ref r3, ref r4, ref r5, ref r6, ref r7);
            Step(tileA, tileB, i + 165, j + 165, ref r0, ref r1, ref r2, ref r3, ref r4, ref r5, ref r6, ref r7);
            Step(tileA, tileB, i + 198, j + 198, ref r0, ref r1, ref r2, ref r3, ref r4, ref r5, ref r6, ref r7);
            Step(tileA, tileB, i + 231, j + 231, ref r0, ref r1, ref r2, ref r3, ref r4, ref r5, ref r6, ref r7);
            current = TileFloats - current;
            if (more)
            {
                Put(sharedA, tileA, current + putA, alongKA, nextA);
                Put(sharedB, tileB, current + putB, alongKB, nextB);
            }

            Group.Barrier();
        }

        var part = (long)Grid.IdxZ * s.M * s.N;
        row += firstRow;
        column += firstColumn;
        StoreRow(y, bias, s, part, row, column, r0);
        StoreRow(y, bias, s, part, row + 1, column, r1);
        StoreRow(y, bias, s, part, row + 2, column, r2);
        StoreRow(y, bias, s, part, row + 3, column, r3);
        StoreRow(y, bias, s, part, row + 64, column, r4);
        StoreRow(y, bias, s, part, row + 65, column, r5);
        StoreRow(y, bias, s, part, row + 66, column, r6);
        StoreRow(y, bias, s, part, row + 67, column, r7);
    }

    /// <summary>The 16-byte piece of an operand that a thread loads first.</summary>
    private static long First(bool alongK, int thread, int first, int count, int stride, int k)
    {
        if (alongK) return (((long)Math.Min(first + (thread >> 1), count - 1) * stride) + k + ((thread & 1) << 2)) >> 2;
        return (((long)(k + (thread >> 5)) * stride) + Math.Min(first + ((thread & 31) << 2), count - 4)) >> 2;
    }

    private static void Put(ArrayView<float> shared, ArrayView<Float4> shared4, int at, bool alongK, Float4 v)
    {
        if (alongK)
        {
            shared[at] = v.X;
            shared[at + TileStride] = v.Y;
            shared[at + (2 * TileStride)] = v.Z;
            shared[at + (3 * TileStride)] = v.W;
        }
        else
        {
            shared4[at >> 2] = v;
        }
    }

    private static void Step(
        ArrayView<Float4> a, ArrayView<Float4> b, int i, int j,
        ref Row8 r0, ref Row8 r1, ref Row8 r2, ref Row8 r3, ref Row8 r4, ref Row8 r5, ref Row8 r6, ref Row8 r7)
    {
        var a0 = a[i];
        var a1 = a[i + 16];
        var b0 = b[j];
        var b1 = b[j + 16];
        r0 = r0.Plus(a0.X, b0, b1);
        r1 = r1.Plus(a0.Y, b0, b1);
        r2 = r2.Plus(a0.Z, b0, b1);
        r3 = r3.Plus(a0.W, b0, b1);
        r4 = r4.Plus(a1.X, b0, b1);
        r5 = r5.Plus(a1.Y, b0, b1);
        r6 = r6.Plus(a1.Z, b0, b1);
        r7 = r7.Plus(a1.W, b0, b1);
    }

    private static void StoreRow(ArrayView<float> y, ArrayView<float> bias, GemmTiling s, long part, int row, int column, Row8 r)
    {
        if (row >= s.M) return;
        var at = part + ((long)row * s.N);
        Store4(y, bias, s, at, column, r.First);
        Store4(y, bias, s, at, column + 64, r.Second);
    }

    private static void Store4(ArrayView<float> y, ArrayView<float> bias, GemmTiling s, long at, int column, Float4 v)
    {
        if (column >= s.N) return;
        var last = s.N - 1;
        if ((s.Options & GemmTiling.HasBias) != 0)
        {
            v.X += bias[column];
            v.Y += bias[Math.Min(column + 1, last)];
            v.Z += bias[Math.Min(column + 2, last)];
            v.W += bias[Math.Min(column + 3, last)];
        }

        if ((s.N & 3) == 0)
        {
            y.Cast<Float4>()[(at + column) >> 2] = v;
            return;
        }

        y[at + column] = v.X;
        if (column + 1 < s.N) y[at + column + 1] = v.Y;
        if (column + 2 < s.N) y[at + column + 2] = v.Z;
        if (column + 3 < s.N) y[at + column + 3] = v.W;
    }

    /// <summary>Eight sums of one row: columns c .. c+3 and c+64 .. c+67.</summary>
    private struct Row8
    {
        public Float4 First;
        public Float4 Second;

        public readonly Row8 Plus(float a, Float4 b0, Float4 b1)
        {
            var r = this;
            r.First.X += a * b0.X;
            r.First.Y += a * b0.Y;
            r.First.Z += a * b0.Z;
            r.First.W += a * b0.W;
            r.Second.X += a * b1.X;
            r.Second.Y += a * b1.Y;
            r.Second.Z += a * b1.Z;
            r.Second.W += a * b1.W;
            return r;
        }
    }
}
