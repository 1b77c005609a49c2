using System.Runtime.CompilerServices;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>The entry that hands finished tiles to an epilogue.</summary>
internal static unsafe partial class PackedGemm
{
    /// <summary>
    /// As <see cref="Multiply"/>, but a piece is a block of rows times a whole chunk, since an epilogue sees a row's
    /// columns in order from one thread.
    /// </summary>
    private static void Tiles<TKernel, TEpilogue>(CpuDevice device, GemmProblem problem, TEpilogue epilogue)
        where TKernel : IGemmMicroKernel
        where TEpilogue : struct, ITileEpilogue
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
                var down = new Cut(rows, TKernel.Rows, plan.BlockRows, device.Threads);
                var column = 0;
                do
                {
                    var columns = Math.Min(plan.ChunkColumns, problem.N - column);
                    Pack<TKernel>(device, problem, (row, column == 0 ? rows : 0), pa,
                        (column, row == 0 || plan.ChunkColumns < problem.N ? columns : 0), pb);
                    var (row0, column0) = (row, column);
                    device.Pool.For(down.Pieces, (piece, _) =>
                    {
                        var (i, count) = down[piece];
                        if (column0 == 0) epilogue.BeginRows(row0 + i, count);
                        TilePiece<TKernel, TEpilogue>(device, problem, plan.BlockSteps, (row0 + i, count), (column0, columns),
                            pa + ((long)i * problem.K), pb, epilogue);
                        if (column0 + columns == problem.N) epilogue.EndRows(row0 + i, count);
                    });
                    column += columns;
                }
                while (column < problem.N);
            }
        }
        finally
        {
            packedA.Release();
            packedB.Release();
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    [SkipLocalsInit]
    private static void TilePiece<TKernel, TEpilogue>(
        CpuDevice device, in GemmProblem problem, int blockSteps, (int First, int Count) rows, (int First, int Count) columns,
        float* a, float* b, TEpilogue epilogue)
        where TKernel : IGemmMicroKernel
        where TEpilogue : struct, ITileEpilogue
    {
        int mr = TKernel.Rows, nr = TKernel.Columns;
        var k = problem.K;

        // One k-block: every tile is born and consumed in L1. Several: the chains of a group of columns wait in a
        // buffer from one k-block to the next.
        var whole = blockSteps >= k;
        var groupColumns = whole ? nr : RoundUp(512, nr);
        var waiting = device.Rent((long)RoundUp(rows.Count, mr) * groupColumns * sizeof(float));
        try
        {
            var buffer = (float*)waiting.HostAddress;
            for (var group = 0; group < columns.Count; group += groupColumns)
            {
                var groupEnd = Math.Min(columns.Count, group + groupColumns);
                var from = 0;
                do
                {
                    var steps = Math.Min(blockSteps, k - from);
                    var last = from + steps >= k;
                    for (var j = group; j < groupEnd; j += nr)
                    {
                        var panelB = b + ((long)j * k) + ((long)from * nr);
                        var n = Math.Min(nr, columns.Count - j);
                        for (var i = 0; i < rows.Count; i += mr)
                        {
                            var tile = whole ? buffer : buffer + ((long)i * groupColumns) + (j - group);
                            TKernel.Run(steps, a + ((long)i * k) + ((long)from * mr), panelB, tile, groupColumns, from > 0);
                            if (!last) continue;
                            var m = Math.Min(mr, rows.Count - i);
                            if (problem.Bias != null) Finish(tile, groupColumns, m, n, problem.Bias + columns.First + j, false);
                            epilogue.Tile(rows.First + i, m, columns.First + j, n, tile, groupColumns);
                        }
                    }

                    from += steps;
                }
                while (from < k);
            }
        }
        finally
        {
            waiting.Release();
        }
    }
}
