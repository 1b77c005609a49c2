using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>Sizes, distances and the epilogue of a <see cref="HeadProduct"/>; distances are in elements.</summary>
internal struct HeadProductShape
{
    /// <summary>Rows, columns and summed length of one product.</summary>
    internal int Rows, Columns, Inner;

    /// <summary>Batch entries and heads of the result; how many products a head of the result sums.</summary>
    internal int Batch, Heads, Repeat;

    /// <summary>Heads of the sum that share a head of A, of B.</summary>
    internal int GroupA, GroupB;

    /// <summary>Distances in A.</summary>
    internal long BatchA, HeadA, RowA, InnerA;

    /// <summary>Distances in B.</summary>
    internal long BatchB, HeadB, InnerB, ColumnB;

    /// <summary>Distances in the result, whose columns are adjacent.</summary>
    internal long BatchC, HeadC, RowC;

    /// <summary>Factor of the products.</summary>
    internal float Scale;

    /// <summary>Bound of the results; 0: none.</summary>
    internal float SoftCap;

    /// <summary>1: a column beyond FirstQuery + row, or Window or more before it, is -infinity.</summary>
    internal int Mask;

    /// <summary>Position of row 0.</summary>
    internal int FirstQuery;

    /// <summary>Columns a row sees; 0: all.</summary>
    internal int Window;

    /// <summary>1: A is zero where the summed index is beyond FirstQuery + row, so the sum ends there.</summary>
    internal int CausalInner;
}

/// <summary>
/// The matrix products of attention on ILGPU devices: for every batch entry and head,
/// C[r, c] = scale sum_i A[r, i] B[i, c] with any distances, optionally capped and masked. A group computes a square
/// tile, each thread 4 by 4 of it, through shared memory; sums run in the order of i.
/// </summary>
internal static class HeadProduct
{
    /// <summary>Summed indices a step.</summary>
    private const int Depth = 16;

    /// <summary>Largest side of a tile (256 threads).</summary>
    private const int MaxSide = 64;

    internal static void Launch(GpuDevice device, Tensor a, Tensor b, Tensor c, HeadProductShape shape)
    {
        var side = device.GroupSize >= 256 ? 16 : 4;
        var tile = 4 * side;
        var grid = new Index3D(Tiles(shape.Columns, tile), Tiles(shape.Rows, tile), Math.Min(65535, shape.Batch * shape.Heads));
        device.Launch(Kernel, new KernelConfig(grid, new Index3D(side * side, 1, 1)), a.View<float>(), b.View<float>(), c.View<float>(), shape, side == 16 ? 4 : 2);
    }

    private static int Tiles(int n, int tile) => (n + tile - 1) / tile;

    [GpuKernel(GroupSize = 256)]
    private static void Kernel(ArrayView<float> a, ArrayView<float> b, ArrayView<float> c, HeadProductShape s, int sideBits)
    {
        // One column of slack: rows of a tile start in different banks.
        var tileA = SharedMemory.Allocate<float>(Depth * (MaxSide + 1));
        var tileB = SharedMemory.Allocate<float>(Depth * (MaxSide + 1));
        var side = 1 << sideBits;
        var tileBits = sideBits + 2;
        var tile = 1 << tileBits;
        var tx = Group.IdxX & (side - 1);
        var ty = Group.IdxX >> sideBits;
        var row0 = Grid.IdxY << tileBits;
        var column0 = Grid.IdxX << tileBits;
        var inner = s.Inner;
        if (s.CausalInner != 0)
        {
            var end = s.FirstQuery + row0 + tile;
            if (end < inner) inner = end;
        }

        // Nothing to compute where the mask covers the whole tile.
        if (s.Mask != 0)
        {
            if (column0 > s.FirstQuery + row0 + tile - 1) inner = 0;
            if (s.Window > 0 && column0 + tile - 1 <= s.FirstQuery + row0 - s.Window) inner = 0;
        }

        for (var z = Grid.IdxZ; z < s.Batch * s.Heads; z += Grid.DimZ)
        {
            var batch = z / s.Heads;
            var head = z - (batch * s.Heads);
            float c00 = 0, c01 = 0, c02 = 0, c03 = 0, c10 = 0, c11 = 0, c12 = 0, c13 = 0;
            float c20 = 0, c21 = 0, c22 = 0, c23 = 0, c30 = 0, c31 = 0, c32 = 0, c33 = 0;
            for (var repeat = 0; repeat < s.Repeat; repeat++)
            {
                var h = (head * s.Repeat) + repeat;
                var startA = (batch * s.BatchA) + (h / s.GroupA * s.HeadA);
                var startB = (batch * s.BatchB) + (h / s.GroupB * s.HeadB);
                for (var i0 = 0; i0 < inner; i0 += Depth)
                {
                    // Neighbouring threads read neighbouring addresses, whichever index is the near one.
                    for (var t = Group.IdxX; t < tile * Depth; t += Group.DimX)
                    {
                        var i = s.InnerA == 1 ? t & (Depth - 1) : t >> tileBits;
                        var r = s.InnerA == 1 ? t >> 4 : t & (tile - 1);
                        var inside = row0 + r < s.Rows && i0 + i < inner;
                        tileA[(i * (MaxSide + 1)) + r] = inside ? a[startA + ((row0 + r) * s.RowA) + ((i0 + i) * s.InnerA)] : 0f;
                    }

                    for (var t = Group.IdxX; t < tile * Depth; t += Group.DimX)
                    {
                        var i = s.InnerB == 1 ? t & (Depth - 1) : t >> tileBits;
                        var r = s.InnerB == 1 ? t >> 4 : t & (tile - 1);
                        var inside = column0 + r < s.Columns && i0 + i < inner;
                        tileB[(i * (MaxSide + 1)) + r] = inside ? b[startB + ((column0 + r) * s.ColumnB) + ((i0 + i) * s.InnerB)] : 0f;
                    }

                    Group.Barrier();
                    for (var i = 0; i < Depth; i++)
                    {
                        // Rows and columns a tile's side apart: no two threads of a warp read different words of a bank.
                        var at = i * (MaxSide + 1);
                        float a0 = tileA[at + ty], a1 = tileA[at + ty + side], a2 = tileA[at + ty + (2 * side)], a3 = tileA[at + ty + (3 * side)];
                        float b0 = tileB[at + tx], b1 = tileB[at + tx + side], b2 = tileB[at + tx + (2 * side)], b3 = tileB[at + tx + (3 * side)];
                        c00 += a0 * b0;
                        c01 += a0 * b1;
                        c02 += a0 * b2;
                        c03 += a0 * b3;
                        c10 += a1 * b0;
                        c11 += a1 * b1;
                        c12 += a1 * b2;
                        c13 += a1 * b3;
                        c20 += a2 * b0;
                        c21 += a2 * b1;
                        c22 += a2 * b2;
                        c23 += a2 * b3;
                        c30 += a3 * b0;
                        c31 += a3 * b1;
                        c32 += a3 * b2;
                        c33 += a3 * b3;
                    }

                    Group.Barrier();
                }
            }

            var start = (batch * s.BatchC) + (head * s.HeadC);
            int r0 = row0 + ty, column = column0 + tx;
            Store(c, start, r0, column, c00, s);
            Store(c, start, r0, column + side, c01, s);
            Store(c, start, r0, column + (2 * side), c02, s);
            Store(c, start, r0, column + (3 * side), c03, s);
            Store(c, start, r0 + side, column, c10, s);
            Store(c, start, r0 + side, column + side, c11, s);
            Store(c, start, r0 + side, column + (2 * side), c12, s);
            Store(c, start, r0 + side, column + (3 * side), c13, s);
            Store(c, start, r0 + (2 * side), column, c20, s);
            Store(c, start, r0 + (2 * side), column + side, c21, s);
            Store(c, start, r0 + (2 * side), column + (2 * side), c22, s);
            Store(c, start, r0 + (2 * side), column + (3 * side), c23, s);
            Store(c, start, r0 + (3 * side), column, c30, s);
            Store(c, start, r0 + (3 * side), column + side, c31, s);
            Store(c, start, r0 + (3 * side), column + (2 * side), c32, s);
            Store(c, start, r0 + (3 * side), column + (3 * side), c33, s);
        }
    }

    private static void Store(ArrayView<float> c, long start, int row, int column, float sum, HeadProductShape s)
    {
        if (row >= s.Rows || column >= s.Columns) return;
        var value = sum * s.Scale;
        if (s.SoftCap > 0) value = s.SoftCap * GpuMath.Tanh(value / s.SoftCap);
        if (s.Mask != 0)
        {
            var position = s.FirstQuery + row;
            if (column > position || (s.Window > 0 && column <= position - s.Window)) value = float.NegativeInfinity;
        }

        c[start + (row * s.RowC) + column] = value;
    }
}
