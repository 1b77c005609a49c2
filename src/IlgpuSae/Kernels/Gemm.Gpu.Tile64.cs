using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// The product in tiles of 64 x 64 for any sizes, strides and element types: 256 threads, each 4 x 4 sums in
/// registers, tiles of 16 along k in shared memory. What lies beyond a matrix counts as zero. Each sum runs over k in order.
/// </summary>
public static partial class Gemm
{
    /// <summary>Floats between rows of a shared tile: 64 and 4 more, which spread a transposing store over the banks.</summary>
    private const int SmallTileStride = 68;

    [GpuKernel(GroupSize = 256)]
    private static void Tile64Kernel(ArrayView<byte> a, ArrayView<byte> b, ArrayView<float> bias, ArrayView<float> y, GemmTiling s)
    {
        var sharedA = SharedMemory.Allocate<float>(16 * SmallTileStride);
        var sharedB = SharedMemory.Allocate<float>(16 * SmallTileStride);
        var tileA = sharedA.Cast<Float4>();
        var tileB = sharedB.Cast<Float4>();
        var t = Group.IdxX;
        var firstRow = Grid.IdxX * 64;
        var firstColumn = Grid.IdxY * 64;
        var from = Grid.IdxZ * s.KPerPart;
        var to = Math.Min(s.K, from + s.KPerPart);
        var alongKA = (s.Options & GemmTiling.TransposeA) == 0;
        var alongKB = (s.Options & GemmTiling.TransposeB) != 0;
        var typeA = (s.Options >> GemmTiling.TypeA) & 3;
        var typeB = (s.Options >> GemmTiling.TypeB) & 3;

        Float4 r0 = default, r1 = default, r2 = default, r3 = default;
        var row = (t >> 4) << 2;
        var column = (t & 15) << 2;
        for (var k = from; k < to; k += 16)
        {
            for (var e = t; e < 1024; e += 256)
            {
                Fetch(a, typeA, alongKA, sharedA, e, firstRow, s.M, s.StrideA, k, to);
                Fetch(b, typeB, alongKB, sharedB, e, firstColumn, s.N, s.StrideB, k, to);
            }

            Group.Barrier();
            for (var l = 0; l < 16; l++)
            {
                var x = tileA[((l * SmallTileStride) + row) >> 2];
                var w = tileB[((l * SmallTileStride) + column) >> 2];
                r0 = Plus(r0, x.X, w);
                r1 = Plus(r1, x.Y, w);
                r2 = Plus(r2, x.Z, w);
                r3 = Plus(r3, x.W, w);
            }

            Group.Barrier();
        }

        var at = ((long)Grid.IdxZ * s.M * s.N) + ((long)(firstRow + row) * s.N);
        column += firstColumn;
        row += firstRow;
        if (row < s.M) StoreGuarded(y, bias, s, at, column, r0);
        if (row + 1 < s.M) StoreGuarded(y, bias, s, at + s.N, column, r1);
        if (row + 2 < s.M) StoreGuarded(y, bias, s, at + (2L * s.N), column, r2);
        if (row + 3 < s.M) StoreGuarded(y, bias, s, at + (3L * s.N), column, r3);
    }

    /// <summary>Element e of a tile of an operand, 64 long and 16 deep: neighbouring threads read neighbouring memory.</summary>
    private static void Fetch(
        ArrayView<byte> x, int type, bool alongK, ArrayView<float> shared, int e, int first, int count, int stride, int k, int to)
    {
        var depth = alongK ? e & 15 : e >> 6;
        var place = alongK ? e >> 4 : e & 63;
        var value = 0f;
        if (first + place < count && k + depth < to)
            value = Read(x, alongK ? ((long)(first + place) * stride) + k + depth : ((long)(k + depth) * stride) + first + place, type);
        shared[(depth * SmallTileStride) + place] = value;
    }

    private static Float4 Plus(Float4 r, float a, Float4 b)
    {
        r.X += a * b.X;
        r.Y += a * b.Y;
        r.Z += a * b.Z;
        r.W += a * b.W;
        return r;
    }

    private static void StoreGuarded(ArrayView<float> y, ArrayView<float> bias, GemmTiling s, long at, int column, Float4 v)
    {
        StoreOne(y, bias, s, at, column, v.X);
        StoreOne(y, bias, s, at, column + 1, v.Y);
        StoreOne(y, bias, s, at, column + 2, v.Z);
        StoreOne(y, bias, s, at, column + 3, v.W);
    }

    private static void StoreOne(ArrayView<float> y, ArrayView<float> bias, GemmTiling s, long at, int column, float v)
    {
        if (column >= s.N) return;
        if ((s.Options & GemmTiling.HasBias) != 0) v += bias[column];
        y[at + column] = v;
    }
}
