using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// The entries of <see cref="SparseFeatures"/> ordered by feature, then by row: a stable counting sort, by which every
/// gradient of a feature's weights is gathered in a fixed order. O(nnz + d_sae); the result is unique, so it does not
/// depend on how the work was cut. Cached on the features: it is made once a step.
/// </summary>
[Kernel]
internal static class SparseTranspose
{
    private const int EntriesPerPiece = 1 << 16;

    /// <summary>The pattern of <paramref name="f"/> by feature, made on the first call.</summary>
    /// <param name="scope">Owns the result; must outlive every later use of <paramref name="f"/>.</param>
    /// <param name="f">Sparse features [n, d_sae].</param>
    internal static SparseColumns Of(TensorScope scope, SparseFeatures f)
    {
        if (f.ByColumn is { } known) return known;
        var columns = new SparseColumns(
            scope.New([f.Columns + 1], DType.I32), scope.New([f.EntryCount], DType.I32), scope.New([f.EntryCount], DType.I32));
        if (scope.Device is CpuDevice cpu) Cpu(scope, cpu, f, columns);
        else Gpu(scope, (GpuDevice)scope.Device, f, columns);
        f.ByColumn = columns;
        return columns;
    }

    internal static double[][] Reference(int columns, int[] rowOffsets, int[] indices)
    {
        var offsets = new double[columns + 1];
        var rows = new List<double>();
        var entries = new List<double>();
        for (var c = 0; c < columns; c++)
        {
            for (var r = 0; r + 1 < rowOffsets.Length; r++)
            {
                for (var e = rowOffsets[r]; e < rowOffsets[r + 1]; e++)
                {
                    if (indices[e] != c) continue;
                    rows.Add(r);
                    entries.Add(e);
                }
            }

            offsets[c + 1] = rows.Count;
        }

        return [offsets, [.. rows], [.. entries]];
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        (string Label, SparseCase Pattern, bool Small)[] patterns =
        [
            ("no rows", SparseCase.Random(0, 4, 0), true),
            ("no entries", SparseCase.Random(3, 5, 0), true),
            ("one entry", SparseCase.Random(1, 1, 1), true),
            ("odd sizes", SparseCase.Random(13, 37, 0.3), true),
            ("full", SparseCase.Random(5, 17, 1), true),
            ("several pieces", SparseCase.Random(3000, 300, 0.3), false),
        ];
        foreach (var (label, p, small) in patterns)
        {
            yield return new KernelCase(label, [p.OffsetsInput, p.IndicesInput],
                (scope, t) =>
                {
                    var c = Of(scope, p.Of(t[0], t[1], scope.Zeros([p.Count])));
                    return [c.ColumnOffsets, c.RowIndices, c.Entries];
                },
                _ => Reference(p.Columns, p.Offsets, p.Indices))
            { OnIlgpuCpu = small };
        }
    }

    /// <summary>Row ranges of about equal numbers of entries: the pieces of a parallel pass over all entries.</summary>
    internal static unsafe int[] RowPieces(int* rowOffsets, int rows, int maxPieces)
    {
        var entries = rowOffsets[rows];
        var pieces = Math.Max(1, Math.Min(maxPieces, entries / EntriesPerPiece));
        var bounds = new int[pieces + 1];
        var row = 0;
        for (var p = 1; p < pieces; p++)
        {
            var target = (long)entries * p / pieces;
            while (row < rows && rowOffsets[row] < target) row++;
            bounds[p] = row;
        }

        bounds[pieces] = rows;
        return bounds;
    }

    private static unsafe void Cpu(TensorScope scope, CpuDevice device, SparseFeatures f, SparseColumns result)
    {
        int* rowOffsets = f.RowOffsets.I32, indices = f.Indices.I32;
        int* offsets = result.ColumnOffsets.I32, rows = result.RowIndices.I32, entries = result.Entries.I32;
        var columns = f.Columns;
        var bounds = RowPieces(rowOffsets, f.Rows, device.Threads);
        var pieces = bounds.Length - 1;
        // One histogram a piece; after the prefix sum it holds where the piece's next entry of a column goes.
        var counts = scope.Zeros([pieces, Math.Max(1, columns)], DType.I32);
        var count = counts.I32;
        device.Pool.For(pieces, (p, _) =>
        {
            var mine = count + ((long)p * columns);
            for (var e = rowOffsets[bounds[p]]; e < rowOffsets[bounds[p + 1]]; e++) mine[indices[e]]++;
        });
        var next = 0;
        for (var c = 0; c < columns; c++)
        {
            offsets[c] = next;
            for (var p = 0; p < pieces; p++)
            {
                var n = count[((long)p * columns) + c];
                count[((long)p * columns) + c] = next;
                next += n;
            }
        }

        offsets[columns] = next;
        device.Pool.For(pieces, (p, _) =>
        {
            var mine = count + ((long)p * columns);
            for (var r = bounds[p]; r < bounds[p + 1]; r++)
            {
                for (var e = rowOffsets[r]; e < rowOffsets[r + 1]; e++)
                {
                    var at = mine[indices[e]]++;
                    rows[at] = r;
                    entries[at] = e;
                }
            }
        });
        scope.Release(counts);
    }

    private static void Gpu(TensorScope scope, GpuDevice device, SparseFeatures f, SparseColumns result)
    {
        // A group takes a piece of rows in order. The entries of one row lie in different columns, so a group's
        // threads never meet, and a barrier after each row keeps the sort stable.
        var pieces = Math.Max(1, Math.Min(f.Rows, device.IsCuda ? 128 : 3));
        var columns = f.Columns;
        var counts = scope.Zeros([pieces, Math.Max(1, columns)], DType.I32);
        if (f.EntryCount > 0)
        {
            device.Launch(CountKernel, (pieces, device.GroupSize),
                f.RowOffsets.View<int>(), f.Indices.View<int>(), counts.View<int>(), f.Rows, columns);
        }

        device.Launch(StartsKernel, (device.GridFor(columns + 1), device.GroupSize),
            counts.View<int>(), result.ColumnOffsets.View<int>(), pieces, columns);
        ScanOffsets.Gpu(device, result.ColumnOffsets);
        if (f.EntryCount > 0)
        {
            device.Launch(FillKernel, (pieces, device.GroupSize),
                f.RowOffsets.View<int>(), f.Indices.View<int>(), counts.View<int>(), result.ColumnOffsets.View<int>(),
                result.RowIndices.View<int>(), result.Entries.View<int>(), f.Rows, columns);
        }

        scope.Release(counts);
    }

    [GpuKernel]
    private static void CountKernel(ArrayView<int> rowOffsets, ArrayView<int> indices, ArrayView<int> counts, int rows, int columns)
    {
        var perPiece = (rows + Grid.DimX - 1) / Grid.DimX;
        var end = IntrinsicMath.Min(rows, (Grid.IdxX + 1) * perPiece);
        var mine = (long)Grid.IdxX * columns;
        for (var r = Grid.IdxX * perPiece; r < end; r++)
        {
            for (var e = rowOffsets[r] + Group.IdxX; e < rowOffsets[r + 1]; e += Group.DimX) counts[mine + indices[e]] += 1;
            Group.Barrier();
        }
    }

    /// <summary>Turns a column's counts into where each piece starts within it; offsets[c + 1] becomes its total.</summary>
    [GpuKernel]
    private static void StartsKernel(ArrayView<int> counts, ArrayView<int> offsets, int pieces, int columns)
    {
        for (var c = (Grid.IdxX * Group.DimX) + Group.IdxX; c <= columns; c += Grid.DimX * Group.DimX)
        {
            var sum = 0;
            // Column d_sae does not exist: its thread sets the first offset.
            for (var p = 0; p < (c < columns ? pieces : 0); p++)
            {
                var n = counts[((long)p * columns) + c];
                counts[((long)p * columns) + c] = sum;
                sum += n;
            }

            offsets[c < columns ? c + 1 : 0] = sum;
        }
    }

    [GpuKernel]
    private static void FillKernel(
        ArrayView<int> rowOffsets, ArrayView<int> indices, ArrayView<int> counts, ArrayView<int> offsets,
        ArrayView<int> rowIndices, ArrayView<int> entries, int rows, int columns)
    {
        var perPiece = (rows + Grid.DimX - 1) / Grid.DimX;
        var end = IntrinsicMath.Min(rows, (Grid.IdxX + 1) * perPiece);
        var mine = (long)Grid.IdxX * columns;
        for (var r = Grid.IdxX * perPiece; r < end; r++)
        {
            for (var e = rowOffsets[r] + Group.IdxX; e < rowOffsets[r + 1]; e += Group.DimX)
            {
                var c = indices[e];
                var at = offsets[c] + counts[mine + c];
                counts[mine + c] += 1;
                rowIndices[at] = r;
                entries[at] = e;
            }

            Group.Barrier();
        }
    }
}
