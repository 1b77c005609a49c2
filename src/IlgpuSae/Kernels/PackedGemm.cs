using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>A matrix as <see cref="PackedGemm"/> reads it: memory, stride, element type, orientation.</summary>
/// <param name="data">First element; F32, BF16 or F16.</param>
/// <param name="stride">Elements from one stored row to the next.</param>
/// <param name="alongK">Whether a stored row runs along k (a as [m, k], b as [n, k]) or across it ([k, m], [k, n]).</param>
/// <param name="type">Element type; 16-bit types are widened while packing, which is exact.</param>
internal readonly unsafe struct GemmOperand(void* data, long stride, bool alongK, DType type = DType.F32)
{
    internal readonly void* Data = data;
    internal readonly long Stride = stride;
    internal readonly bool AlongK = alongK;
    internal readonly DType Type = type;
}

/// <summary>c[m, n] = sum over k of a(m, k) b(n, k), + bias[n], then max(0, .) if asked for.</summary>
internal unsafe struct GemmProblem
{
    internal int M;
    internal int N;
    internal int K;
    internal GemmOperand A;
    internal GemmOperand B;

    /// <summary>[n], or null.</summary>
    internal float* Bias;

    /// <summary>max(0, .) after the bias; <see cref="PackedGemm.Multiply"/> only. NaN stays NaN.</summary>
    internal bool Relu;
}

/// <summary>
/// Takes the finished tiles of a product one by one, so that a product of which little is wanted (the largest k of a
/// row, what passes a threshold) is never stored. A struct, so that the loop is compiled for it. It is copied: state
/// lies behind pointers or references. Row ranges are disjoint between threads, and for one row the calls come from
/// one thread at a time, ordered by column.
/// </summary>
internal unsafe interface ITileEpilogue
{
    /// <summary>Before the first tile of these rows.</summary>
    void BeginRows(int row, int rows);

    /// <summary>One tile, bias added: element (row + r, column + j) is sums[r * stride + j].</summary>
    /// <param name="row">First row.</param>
    /// <param name="rows">Valid rows, 1 .. MR.</param>
    /// <param name="column">First column, a multiple of NR.</param>
    /// <param name="columns">Valid columns, 1 .. NR; lanes from here to the next multiple of 16 may be read, not used.</param>
    /// <param name="sums">64-byte aligned; may be overwritten.</param>
    /// <param name="stride">Floats from row to row, a multiple of the vector width.</param>
    void Tile(int row, int rows, int column, int columns, float* sums, int stride);

    /// <summary>After the last tile of these rows, on the thread that ran it.</summary>
    void EndRows(int row, int rows);
}

/// <summary>
/// Packed, cache-blocked single-precision matrix products on the CPU's vector units, on raw pointers. Two entries:
/// <see cref="Multiply"/> stores the product, <see cref="ForEachTile{TEpilogue}"/> hands its tiles to an epilogue.
/// </summary>
/// <remarks>
/// <para>
/// The contract on bits: an element is ONE chain of fused multiply-adds, s = fma(a(m, k), b(n, k), s) for k = 0, 1, 2,
/// .. from s = +0, then s + bias, then the activation. Blocking over k stores s and goes on from it, which changes
/// nothing. So an element depends on its row of a, its row of b and k alone: not on m or n, tiles, threads, blocking,
/// vector width, transposition or on which path below computes it (a batch of one gives the bits of a batch of a
/// thousand). Only processors without fused multiply-add (x64 before 2013) round twice a step and differ.
/// </para>
/// <para>
/// The order of loops: rows of a in super-blocks, columns of b in chunks, both packed into panels of the
/// micro-kernel's width, k-major, by all threads; then pieces (block of rows) x (group of columns), claimed by the
/// threads; in a piece k-blocks, panels of b, panels of a. A block of a stays in L2, a chunk of b in L3. Scratch
/// comes from the device's pool by the call, so calls may be nested and concurrent.
/// </para>
/// </remarks>
internal static unsafe partial class PackedGemm
{
    /// <summary>Longest k-block: a panel of b (32 x 768 floats) takes a tenth of a 1 MB L2 cache.</summary>
    private const int LongestBlock = 768;

    /// <summary>Floats of a block of a (rows x k-block): 384 KB, in L2 beside a panel of b.</summary>
    private const int BlockFloats = 96 << 10;

    /// <summary>Floats of the packed super-block of a: 32 MB.</summary>
    private const long PackedAFloats = 8 << 20;

    /// <summary>Floats of the packed chunk of b: 12 MB, in L3.</summary>
    private const long PackedBFloats = 3 << 20;

    /// <summary>Fused multiply-adds below which a piece is not worth another thread (some 5 microseconds).</summary>
    private const long SmallestPiece = 1 << 18;

    /// <summary>Panels of b that are packed together: where k runs across, 8 panels read 1 KB at a time.</summary>
    private const int PanelsAPack = 8;

    /// <summary>c = a b + bias.</summary>
    /// <param name="device">Threads and scratch.</param>
    /// <param name="problem">Sizes and operands.</param>
    /// <param name="c">The product, row-major; must not overlap the operands.</param>
    /// <param name="ldc">Floats from one row of <paramref name="c"/> to the next.</param>
    internal static void Multiply(CpuDevice device, in GemmProblem problem, float* c, long ldc)
    {
        if (problem.M == 0 || problem.N == 0) return;
        if (Vector512.IsHardwareAccelerated) Multiply<Avx512MicroKernel>(device, problem, c, ldc);
        else if (Vector256.IsHardwareAccelerated && Fma.IsSupported) Multiply<Vector256MicroKernel>(device, problem, c, ldc);
        else Multiply<Vector128MicroKernel>(device, problem, c, ldc);
    }

    /// <summary>Computes every tile of a b + bias once and hands it to <paramref name="epilogue"/>.</summary>
    /// <param name="device">Threads and scratch.</param>
    /// <param name="problem">Sizes and operands; <see cref="GemmProblem.Relu"/> is the epilogue's affair and ignored.</param>
    /// <param name="epilogue">Receives the tiles.</param>
    internal static void ForEachTile<TEpilogue>(CpuDevice device, in GemmProblem problem, TEpilogue epilogue)
        where TEpilogue : struct, ITileEpilogue
    {
        if (problem.M == 0) return;
        if (Vector512.IsHardwareAccelerated) Tiles<Avx512MicroKernel, TEpilogue>(device, problem, epilogue);
        else if (Vector256.IsHardwareAccelerated && Fma.IsSupported) Tiles<Vector256MicroKernel, TEpilogue>(device, problem, epilogue);
        else Tiles<Vector128MicroKernel, TEpilogue>(device, problem, epilogue);
    }

    private static void Multiply<TKernel>(CpuDevice device, GemmProblem problem, float* c, long ldc)
        where TKernel : IGemmMicroKernel
    {
        var plan = Plan.For<TKernel>(device, problem);
        var packedA = device.Rent(plan.ScratchA);
        var packedB = device.Rent(plan.ScratchB);
        try
        {
            var pa = (float*)packedA.HostAddress;
            var pb = (float*)packedB.HostAddress;
            for (var row = 0; row < problem.M; row += plan.SuperRows)
            {
                var rows = Math.Min(plan.SuperRows, problem.M - row);
                for (var column = 0; column < problem.N; column += plan.ChunkColumns)
                {
                    var columns = Math.Min(plan.ChunkColumns, problem.N - column);
                    Pack<TKernel>(device, problem, plan, (row, column == 0 ? rows : 0), pa,
                        (column, row == 0 || plan.ChunkColumns < problem.N ? columns : 0), pb);
                    var (row0, column0) = (row, column);
                    var down = Pieces(rows, plan.BlockRows);
                    var across = Pieces(columns, plan.GroupColumns);
                    device.Pool.For(down * across, (piece, _) =>
                    {
                        var i = piece % down * plan.BlockRows;
                        var j = piece / down * plan.GroupColumns;
                        Piece<TKernel>(problem, plan, (row0 + i, Math.Min(plan.BlockRows, rows - i)),
                            (column0 + j, Math.Min(plan.GroupColumns, columns - j)),
                            pa + ((long)i * problem.K), pb + ((long)j * problem.K), c, ldc);
                    });
                }
            }
        }
        finally
        {
            packedA.Release();
            packedB.Release();
        }
    }

    /// <summary>One block of rows times one group of columns, stored.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    [SkipLocalsInit]
    private static void Piece<TKernel>(
        in GemmProblem problem, in Plan plan, (int First, int Count) rows, (int First, int Count) columns,
        float* a, float* b, float* c, long ldc)
        where TKernel : IGemmMicroKernel
    {
        int mr = TKernel.Rows, nr = TKernel.Columns;
        var space = stackalloc float[(TKernel.Rows * TKernel.Columns) + 16];
        var tile = Align(space);
        var k = problem.K;
        var from = 0;
        do
        {
            var steps = Math.Min(plan.BlockSteps, k - from);
            var resume = from > 0;
            var last = from + steps >= k;
            for (var j = 0; j < columns.Count; j += nr)
            {
                var panelB = b + ((long)j * k) + ((long)from * nr);
                var n = Math.Min(nr, columns.Count - j);
                for (var i = 0; i < rows.Count; i += mr)
                {
                    var panelA = a + ((long)i * k) + ((long)from * mr);
                    var m = Math.Min(mr, rows.Count - i);
                    var target = c + ((rows.First + i) * ldc) + columns.First + j;
                    if (m == mr && n == nr)
                    {
                        TKernel.Run(steps, panelA, panelB, target, ldc, resume);
                    }
                    else
                    {
                        if (resume) Copy(target, ldc, tile, nr, m, n);
                        TKernel.Run(steps, panelA, panelB, tile, nr, resume);
                        Copy(tile, nr, target, ldc, m, n);
                    }

                    if (last && (problem.Bias != null || problem.Relu))
                        Finish(target, ldc, m, n, problem.Bias == null ? null : problem.Bias + columns.First + j, problem.Relu);
                }
            }

            from += steps;
        }
        while (from < k);
    }

    private static void Copy(float* source, long sourceStride, float* target, long targetStride, int rows, int columns)
    {
        for (var i = 0; i < rows; i++, source += sourceStride, target += targetStride)
            for (var j = 0; j < columns; j++) target[j] = source[j];
    }

    /// <summary>Adds the bias to a tile and applies the activation, in place.</summary>
    private static void Finish(float* c, long ldc, int rows, int columns, float* bias, bool relu)
    {
        for (var i = 0; i < rows; i++, c += ldc)
        {
            var j = 0;
            for (; j + 8 <= columns; j += 8)
            {
                var v = Vector256.Load(c + j);
                if (bias != null) v += Vector256.Load(bias + j);
                if (relu) v = Vector256.ConditionalSelect(Vector256.LessThan(v, Vector256<float>.Zero), Vector256<float>.Zero, v);
                v.Store(c + j);
            }

            for (; j < columns; j++)
            {
                var v = c[j];
                if (bias != null) v += bias[j];
                c[j] = relu && v < 0 ? 0 : v;
            }
        }
    }

    private static float* Align(float* p) => (float*)(((nint)p + 63) & ~63);

    private static int Pieces(int count, int size) => (int)(((long)count + size - 1) / size);

    private static int RoundUp(int count, int unit) => checked(Pieces(count, unit) * unit);

    /// <summary>How a problem is cut. Decides speed alone, never a bit of the result.</summary>
    private readonly struct Plan
    {
        /// <summary>Rows of a that are packed at a time.</summary>
        internal int SuperRows { get; private init; }

        /// <summary>Columns of b that are packed at a time.</summary>
        internal int ChunkColumns { get; private init; }

        /// <summary>Rows of a piece.</summary>
        internal int BlockRows { get; private init; }

        /// <summary>Columns of a piece.</summary>
        internal int GroupColumns { get; private init; }

        /// <summary>Steps along k at a time.</summary>
        internal int BlockSteps { get; private init; }

        /// <summary>Bytes of packed a.</summary>
        internal long ScratchA { get; private init; }

        /// <summary>Bytes of packed b.</summary>
        internal long ScratchB { get; private init; }

        internal static Plan For<TKernel>(CpuDevice device, in GemmProblem p)
            where TKernel : IGemmMicroKernel
        {
            int mr = TKernel.Rows, nr = TKernel.Columns;
            var k = Math.Max(1, p.K);
            var blocks = Pieces(k, LongestBlock);
            var steps = Math.Min(k, RoundUp(Pieces(k, blocks), 8));
            var super = (int)Math.Min(RoundUp(p.M, mr), Math.Max(1, PackedAFloats / k / mr) * mr);
            var chunk = (int)Math.Min(RoundUp(p.N, nr), Math.Max(1, PackedBFloats / k / nr) * nr);
            var block = Math.Min(super, Math.Max(1, BlockFloats / steps / mr) * mr);
            var group = Math.Min(chunk, RoundUp(512, nr));

            // Small products: halve the pieces until each thread has some, as long as they are worth a thread.
            var wanted = device.Threads * 4L;
            while ((long)Pieces(Math.Min(super, p.M), block) * Pieces(Math.Min(chunk, p.N), group) < wanted
                && (long)block * group * k >= 2 * SmallestPiece)
            {
                if (group > nr && (group > 4 * nr || block <= 2 * mr)) group = RoundUp(group / 2, nr);
                else if (block > mr) block = RoundUp(block / 2, mr);
                else break;
            }

            // Too small to share: one piece.
            if ((long)p.M * p.N * k < 2 * SmallestPiece) (block, group) = (super, chunk);
            return new Plan
            {
                SuperRows = super,
                ChunkColumns = chunk,
                BlockRows = block,
                GroupColumns = group,
                BlockSteps = steps,
                ScratchA = (long)super * k * sizeof(float),
                ScratchB = (long)chunk * k * sizeof(float),
            };
        }
    }
}
