using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// The product of bfloat16 factors on tensor cores, where cuBLAS is missing: tiles of 128 x 128, eight warps of 64 x 32
/// sums each in registers, 32 along k a step, copied asynchronously into shared memory while the step before is
/// multiplied. Shared rows are 64 bytes in 16-byte pieces, permuted so that neither copies nor reads meet in a bank.
/// </summary>
public static partial class Gemm
{
    /// <summary>Words of shared memory a step takes: 128 rows of 16 words, for each factor.</summary>
    private const int StepWords = 2 * 128 * 16;

    /// <summary>Whether the tensor-core kernel can take a product: whole steps along k.</summary>
    internal static bool FitsTensorCores((int M, int N, int K) sizes) => sizes.K > 0 && sizes.K % 32 == 0;

    /// <summary>y = op(a) op(b) + bias from factors rounded to bfloat16.</summary>
    internal static void OnTensorCores(
        GpuDevice device, (int M, int N, int K) sizes, Tensor a, Tensor b, Tensor? bias, bool transposeA, bool transposeB, Tensor y)
    {
        var (m, n, k) = sizes;
        using var otherA = AlongK(device, a, m, k, transposed: transposeA);
        using var otherB = AlongK(device, b, n, k, transposed: !transposeB);
        var tiling = new GemmTiling { M = m, N = n, K = k, Options = bias is null ? 0 : GemmTiling.HasBias };
        device.Launch(TileBf16Kernel, (new Index3D((m + 127) / 128, (n + 127) / 128, 1), new Index3D(256, 1, 1)),
            (otherA ?? a).RawView().Cast<uint>(), (otherB ?? b).RawView().Cast<uint>(), (bias ?? y).View<float>(), y.View<float>(), tiling);
    }

    /// <summary>A factor as bfloat16 [rows, k]; null where it is that already. The caller disposes of it.</summary>
    internal static Tensor? AlongK(GpuDevice device, Tensor t, int rows, int k, bool transposed)
    {
        if (!transposed) return t.Type != DType.BF16 || Aligned(t) ? Narrowed(device, t) : CopyOf(device, t);
        var y = new Tensor(device, [rows, k], DType.BF16);
        device.Launch(NarrowTransposedKernel, (new Index3D((rows + 15) / 16, (k + 15) / 16, 1), new Index3D(256, 1, 1)),
            t.RawView(), y.RawView().Cast<ushort>(), rows, k, Code(t.Type));
        return y;
    }

    private static Tensor CopyOf(GpuDevice device, Tensor t)
    {
        var copy = new Tensor(device, t.Shape, t.Type);
        copy.CopyFrom(t);
        return copy;
    }

    /// <summary>y [rows, k] = x [k, rows] transposed and rounded to bfloat16; tiles of 16 x 16 through shared memory.</summary>
    [GpuKernel(GroupSize = 256)]
    private static void NarrowTransposedKernel(ArrayView<byte> x, ArrayView<ushort> y, int rows, int k, int type)
    {
        var tile = SharedMemory.Allocate<float>(16 * 17);
        var fast = Group.IdxX & 15;
        var slow = Group.IdxX >> 4;
        var row = (Grid.IdxX * 16) + fast;
        var depth = (Grid.IdxY * 16) + slow;
        if (row < rows && depth < k) tile[(slow * 17) + fast] = Read(x, ((long)depth * rows) + row, type);
        Group.Barrier();
        row = (Grid.IdxX * 16) + slow;
        depth = (Grid.IdxY * 16) + fast;
        if (row < rows && depth < k) y[((long)row * k) + depth] = Narrow(tile[(fast * 17) + slow]);
    }

    /// <summary>a [m, k] and b [n, k] as pairs of bfloat16; rows beyond a matrix repeat its last one and are not stored.</summary>
    [GpuKernel(GroupSize = 256, MinGroups = 2)]
    private static void TileBf16Kernel(ArrayView<uint> a, ArrayView<uint> b, ArrayView<float> bias, ArrayView<float> y, GemmTiling s)
    {
        var shared = SharedMemory.Allocate<uint>(2 * StepWords);
        var t = Group.IdxX;
        var lane = t & 31;
        var warp = t >> 5;
        var warpRow = (warp >> 2) << 6;
        var warpColumn = (warp & 3) << 5;
        var firstRow = Grid.IdxX * 128;
        var firstColumn = Grid.IdxY * 128;

        // Each thread copies a piece of rows t/4 and t/4 + 64 of both factors.
        var words = (long)(s.K >> 1);
        var copyRow = t >> 2;
        var piece = t & 3;
        var fromA0 = (Math.Min(firstRow + copyRow, s.M - 1) * words) + (piece << 2);
        var fromA1 = (Math.Min(firstRow + copyRow + 64, s.M - 1) * words) + (piece << 2);
        var fromB0 = (Math.Min(firstColumn + copyRow, s.N - 1) * words) + (piece << 2);
        var fromB1 = (Math.Min(firstColumn + copyRow + 64, s.N - 1) * words) + (piece << 2);
        var to = Place(copyRow, piece);
        TensorCore.CopyAsync(shared, to, a, fromA0);
        TensorCore.CopyAsync(shared, to + 1024, a, fromA1);
        TensorCore.CopyAsync(shared, to + 2048, b, fromB0);
        TensorCore.CopyAsync(shared, to + 3072, b, fromB1);
        TensorCore.CommitCopies(0);

        Sums16x32 c0 = default, c1 = default, c2 = default, c3 = default;
        var rowOfA = warpRow + (lane & 15);
        var pieceOfA = lane >> 4;
        var rowOfB = warpColumn + (lane & 7) + ((lane >> 4) << 3);
        var pieceOfB = (lane >> 3) & 1;
        var current = 0;
        for (var k = 0; k < s.K; k += 32)
        {
            fromA0 += 16;
            fromA1 += 16;
            fromB0 += 16;
            fromB1 += 16;
            var next = StepWords - current;
            if (k + 32 < s.K)
            {
                TensorCore.CopyAsync(shared, next + to, a, fromA0);
                TensorCore.CopyAsync(shared, next + to + 1024, a, fromA1);
                TensorCore.CopyAsync(shared, next + to + 2048, b, fromB0);
                TensorCore.CopyAsync(shared, next + to + 3072, b, fromB1);
            }

            TensorCore.CommitCopies(0);
            TensorCore.WaitForAllButOne(0);
            Group.Barrier();
            HalfStep(shared, current, rowOfA, pieceOfA, rowOfB, pieceOfB, ref c0, ref c1, ref c2, ref c3);
            HalfStep(shared, current, rowOfA, pieceOfA + 2, rowOfB, pieceOfB + 2, ref c0, ref c1, ref c2, ref c3);
            Group.Barrier();
            current = next;
        }

        var row = firstRow + warpRow + (lane >> 2);
        var column = firstColumn + warpColumn + ((lane & 3) << 1);
        StoreSums(y, bias, s, row, column, c0);
        StoreSums(y, bias, s, row + 16, column, c1);
        StoreSums(y, bias, s, row + 32, column, c2);
        StoreSums(y, bias, s, row + 48, column, c3);
    }

    /// <summary>Where a 16-byte piece of a row lies in shared memory.</summary>
    private static int Place(int row, int piece) => (row << 4) + ((piece ^ ((row >> 1) & 3)) << 2);

    /// <summary>16 along k: four fragments of a times four of b.</summary>
    private static void HalfStep(
        ArrayView<uint> shared, int at, int rowOfA, int pieceOfA, int rowOfB, int pieceOfB,
        ref Sums16x32 c0, ref Sums16x32 c1, ref Sums16x32 c2, ref Sums16x32 c3)
    {
        var b0 = TensorCore.LoadMatrices(shared, at + 2048 + Place(rowOfB, pieceOfB));
        var b1 = TensorCore.LoadMatrices(shared, at + 2048 + Place(rowOfB + 16, pieceOfB));
        c0 = c0.Plus(TensorCore.LoadMatrices(shared, at + Place(rowOfA, pieceOfA)), b0, b1);
        c1 = c1.Plus(TensorCore.LoadMatrices(shared, at + Place(rowOfA + 16, pieceOfA)), b0, b1);
        c2 = c2.Plus(TensorCore.LoadMatrices(shared, at + Place(rowOfA + 32, pieceOfA)), b0, b1);
        c3 = c3.Plus(TensorCore.LoadMatrices(shared, at + Place(rowOfA + 48, pieceOfA)), b0, b1);
    }

    private static void StoreSums(ArrayView<float> y, ArrayView<float> bias, GemmTiling s, int row, int column, Sums16x32 c)
    {
        StoreFragment(y, bias, s, row, column, c.C0);
        StoreFragment(y, bias, s, row, column + 8, c.C1);
        StoreFragment(y, bias, s, row, column + 16, c.C2);
        StoreFragment(y, bias, s, row, column + 24, c.C3);
    }

    private static void StoreFragment(ArrayView<float> y, ArrayView<float> bias, GemmTiling s, int row, int column, Float4 v)
    {
        var at = (long)row * s.N;
        if (row < s.M)
        {
            StoreOne(y, bias, s, at, column, v.X);
            StoreOne(y, bias, s, at, column + 1, v.Y);
        }

        if (row + 8 < s.M)
        {
            StoreOne(y, bias, s, at + (8L * s.N), column, v.Z);
            StoreOne(y, bias, s, at + (8L * s.N), column + 1, v.W);
        }
    }

    /// <summary>Sums of 16 rows and 32 columns, four fragments of 8 columns; a lane's share.</summary>
    private struct Sums16x32
    {
        public Float4 C0;
        public Float4 C1;
        public Float4 C2;
        public Float4 C3;

        public readonly Sums16x32 Plus(Word4 a, Word4 b0, Word4 b1)
        {
            var r = this;
            r.C0 = TensorCore.MultiplyAdd(C0, a, b0.X, b0.Y);
            r.C1 = TensorCore.MultiplyAdd(C1, a, b0.Z, b0.W);
            r.C2 = TensorCore.MultiplyAdd(C2, a, b1.X, b1.Y);
            r.C3 = TensorCore.MultiplyAdd(C3, a, b1.Z, b1.W);
            return r;
        }
    }
}
