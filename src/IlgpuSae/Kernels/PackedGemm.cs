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

    /// <summary>The same operand without its first <paramref name="k"/> steps along k.</summary>
    internal GemmOperand From(int k) =>
        new((byte*)Data + ((AlongK ? k : k * Stride) * Type.Size()), Stride, AlongK, Type);
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

    /// <summary>Whether c already holds the chains of earlier steps along k.</summary>
    internal bool Resume;
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

    /// <summary>Longest product that is packed whole along k.</summary>
    private const int LongestStage = 4096;

    /// <summary>Floats of b that a piece packs for itself: 256 KB, read back from L2.</summary>
    private const int PieceFloats = 64 << 10;

    /// <summary>Floats of the packed super-block of a: 16 MB.</summary>
    private const long PackedAFloats = 4 << 20;

    /// <summary>Floats of the packed chunk of b: 12 MB, in L3.</summary>
    private const long PackedBFloats = 3 << 20;

    /// <summary>Fused multiply-adds below which one pass of the threads is better than two (a millisecond).</summary>
    private const long SharedWork = 1 << 26;

    /// <summary>Fused multiply-adds below which a piece is not worth another thread (some 5 microseconds).</summary>
    private const long SmallestPiece = 1 << 18;


    /// <summary>c = a b + bias.</summary>
    /// <param name="device">Threads and scratch.</param>
    /// <param name="problem">Sizes and operands.</param>
    /// <param name="c">The product, row-major; must not overlap the operands.</param>
    /// <param name="ldc">Floats from one row of <paramref name="c"/> to the next.</param>
    internal static void Multiply(CpuDevice device, in GemmProblem problem, float* c, long ldc)
    {
        if (problem.M == 0 || problem.N == 0) return;
        if (IsFewRows(problem)) MultiplyFewRows(device, problem, c, ldc);
        else if (Vector512.IsHardwareAccelerated) Multiply<Avx512MicroKernel>(device, problem, c, ldc);
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

    /// <summary>Cuts very long products along k, so that packed operands stay small; the chains wait in c.</summary>
    private static void Multiply<TKernel>(CpuDevice device, in GemmProblem problem, float* c, long ldc)
        where TKernel : IGemmMicroKernel
    {
        var stages = Math.Max(1, Pieces(problem.K, LongestStage));
        for (var stage = 0; stage < stages; stage++)
        {
            var from = (int)((long)problem.K * stage / stages);
            var part = problem;
            part.K = (int)((long)problem.K * (stage + 1) / stages) - from;
            part.A = problem.A.From(from);
            part.B = problem.B.From(from);
            part.Resume = stage > 0;
            if (stage < stages - 1)
            {
                part.Bias = null;
                part.Relu = false;
            }

            var plan = Plan.For<TKernel>(device, part);
            if (plan.SharesA) MultiplyShared<TKernel>(device, part, plan, c, ldc);
            else if (plan.SharesB) MultiplyRows<TKernel>(device, part, plan, c, ldc);
            else MultiplyColumns<TKernel>(device, part, plan, c, ldc);
        }
    }

    /// <summary>Both operands packed by all threads first: the general case.</summary>
    private static void MultiplyShared<TKernel>(CpuDevice device, GemmProblem problem, Plan plan, float* c, long ldc)
        where TKernel : IGemmMicroKernel
    {
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
                    Pack<TKernel>(device, problem, (row, column == 0 ? rows : 0), pa,
                        (column, row == 0 || plan.ChunkColumns < problem.N ? columns : 0), pb);
                    var (row0, column0) = (row, column);
                    var down = new Cut(rows, TKernel.Rows, plan.BlockRows);
                    var across = new Cut(columns, TKernel.Columns, plan.GroupColumns);
                    device.Pool.For(down.Pieces * across.Pieces, (piece, _) =>
                    {
                        var (i, m) = down[piece % down.Pieces];
                        var (j, n) = across[piece / down.Pieces];
                        Piece<TKernel>(problem, plan.BlockSteps, (row0 + i, m), (column0 + j, n),
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

    /// <summary>All of b packed first; each piece packs its own rows of a, which then never leave its core's cache.</summary>
    private static void MultiplyRows<TKernel>(CpuDevice device, GemmProblem problem, Plan plan, float* c, long ldc)
        where TKernel : IGemmMicroKernel
    {
        var packedB = device.Rent(plan.ScratchB);
        try
        {
            var pb = (float*)packedB.HostAddress;
            Pack<TKernel>(device, problem, (0, 0), null, (0, problem.N), pb);
            var down = new Cut(problem.M, TKernel.Rows, plan.BlockRows);
            device.Pool.For(down.Pieces, (piece, _) =>
            {
                var (i, m) = down[piece];
                var packedA = device.Rent((long)RoundUp(m, TKernel.Rows) * problem.K * sizeof(float));
                try
                {
                    var pa = (float*)packedA.HostAddress;
                    PackPanels(problem.A, i, m, TKernel.Rows, problem.K, pa);
                    Piece<TKernel>(problem, plan.BlockSteps, (i, m), (0, problem.N), pa, pb, c, ldc);
                }
                finally
                {
                    packedA.Release();
                }
            });
        }
        finally
        {
            packedB.Release();
        }
    }

    /// <summary>Few rows: all of a packed first; each piece packs its own columns of b and uses them at once.</summary>
    private static void MultiplyColumns<TKernel>(CpuDevice device, GemmProblem problem, Plan plan, float* c, long ldc)
        where TKernel : IGemmMicroKernel
    {
        var packedA = device.Rent(plan.ScratchA);
        try
        {
            var pa = (float*)packedA.HostAddress;
            Pack<TKernel>(device, problem, (0, problem.M), pa, (0, 0), null);
            var across = new Cut(problem.N, TKernel.Columns, plan.GroupColumns);
            device.Pool.For(across.Pieces, (piece, _) =>
            {
                var (j, n) = across[piece];
                var packedB = device.Rent((long)RoundUp(n, TKernel.Columns) * problem.K * sizeof(float));
                try
                {
                    var pb = (float*)packedB.HostAddress;
                    PackPanels(problem.B, j, n, TKernel.Columns, problem.K, pb);
                    Piece<TKernel>(problem, plan.BlockSteps, (0, problem.M), (j, n), pa, pb, c, ldc);
                }
                finally
                {
                    packedB.Release();
                }
            });
        }
        finally
        {
            packedA.Release();
        }
    }

    /// <summary>One block of rows times one group of columns, stored.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    [SkipLocalsInit]
    private static void Piece<TKernel>(
        in GemmProblem problem, int blockSteps, (int First, int Count) rows, (int First, int Count) columns,
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
            var steps = Math.Min(blockSteps, k - from);
            var resume = problem.Resume || from > 0;
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
}
