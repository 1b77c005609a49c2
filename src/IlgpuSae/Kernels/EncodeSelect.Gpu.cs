using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// The ILGPU side: the product of a block of rows, then the selection from it while it lies in the second-level cache; the
/// whole matrix of pre-activations [n, d_sae] never exists.
/// </summary>
public static partial class EncodeSelect
{
    /// <summary>Pre-activations held at a time on CUDA: about the second-level cache of an H100 or H200 (50 MB).</summary>
    private const long BlockBytes = 48 << 20;

    private static SparseFeatures Gpu(TensorScope scope, Tensor x, Tensor wEnc, Tensor? bEnc, Selection selection)
    {
        var device = (GpuDevice)scope.Device;
        return selection.Keep switch
        {
            Keep.Positive or Keep.Above => GpuAbove(scope, device, x, wEnc, bEnc, selection),
            Keep.Largest => GpuTopK(scope, device, x, wEnc, bEnc, selection, Ranking.Positive),
            _ => GpuTopK(scope, device, x, wEnc, bEnc, selection, Ranking.Magnitude),
        };
    }

    /// <summary>Rows of a block: whole tiles of the product; a few on ILGPU's CPU accelerator.</summary>
    private static int BlockRows(GpuDevice device, int columns) =>
        device.IsCuda ? (int)Math.Max(128, Math.Min(1 << 20, BlockBytes / (4L * Math.Max(1, columns))) & ~127L) : 4;

    private static Tensor PreActivations(TensorScope scope, Tensor x, int row, int rows, Tensor wEnc, Tensor? bEnc, Tensor? scale)
    {
        using var block = x.Slice(row, rows);
        var pre = Gemm.Multiply(scope, block, wEnc, bEnc, transposeB: true);
        if (scale is null) return pre;
        var scaled = MultiplyRow.Forward(scope, pre, scale);
        scope.Release(pre);
        return scaled;
    }

    /// <summary>The number of entries above the limits is known only block by block: blocks are selected, then joined.</summary>
    private static SparseFeatures GpuAbove(TensorScope scope, GpuDevice device, Tensor x, Tensor wEnc, Tensor? bEnc, Selection selection)
    {
        int n = x.Shape[0], step = BlockRows(device, wEnc.Shape[0]);
        var blocks = new List<SparseFeatures>();
        for (var row = 0; row == 0 || row < n; row += step)
        {
            var pre = PreActivations(scope, x, row, Math.Min(step, n - row), wEnc, bEnc, selection.Scale);
            blocks.Add(selection.Limits is null ? SparseFromDense.Positive(scope, pre) : SelectAbove.Of(scope, pre, selection.Limits));
            scope.Release(pre);
        }

        if (blocks.Count == 1) return blocks[0];
        var total = blocks.Aggregate(0, (sum, b) => checked(sum + b.EntryCount));
        Tensor offsets = scope.New([n + 1], DType.I32), indices = scope.New([total], DType.I32), values = scope.New([total]);
        int firstRow = 0, firstEntry = 0;
        foreach (var b in blocks)
        {
            device.Launch(JoinKernel, (device.GridFor(Math.Max(b.EntryCount, b.Rows + 1)), device.GroupSize),
                b.RowOffsets.View<int>(), b.Indices.View<int>(), b.Values.View<float>(),
                offsets.View<int>(), indices.View<int>(), values.View<float>(), firstRow, firstEntry);
            firstRow += b.Rows;
            firstEntry += b.EntryCount;
            scope.Release(b.RowOffsets);
            scope.Release(b.Indices);
            scope.Release(b.Values);
        }

        return new SparseFeatures(wEnc.Shape[0], offsets, indices, values);
    }

    /// <summary>
    /// Every row has room for k entries, so that no block waits for the host; rows with fewer are moved together at the
    /// end.
    /// </summary>
    private static SparseFeatures GpuTopK(
        TensorScope scope, GpuDevice device, Tensor x, Tensor wEnc, Tensor? bEnc, Selection selection, Ranking ranking)
    {
        int n = x.Shape[0], m = wEnc.Shape[0], k = (int)selection.Count, step = BlockRows(device, m), full = checked(n * k);
        var counts = scope.Zeros([n + 1], DType.I32);
        Tensor indices = scope.New([full], DType.I32), values = scope.New([full]);
        for (var row = 0; row < n; row += step)
        {
            var pre = PreActivations(scope, x, row, Math.Min(step, n - row), wEnc, bEnc, selection.Scale);
            TopKSelect.GpuInto(scope, device, pre, k, ranking, row, counts, indices, values);
            scope.Release(pre);
        }

        var total = SparseFromDense.ScanTotal(device, counts);
        if (total == full) return new SparseFeatures(m, counts, indices, values);
        Tensor packedIndices = scope.New([total], DType.I32), packedValues = scope.New([total]);
        device.Launch(PackKernel, (device.GridFor((long)n * device.GroupSize), device.GroupSize),
            counts.View<int>(), indices.View<int>(), values.View<float>(), packedIndices.View<int>(), packedValues.View<float>(), n, k);
        scope.Release(indices);
        scope.Release(values);
        return new SparseFeatures(m, counts, packedIndices, packedValues);
    }

    /// <summary>Copies a block's entries and offsets to their places in the whole.</summary>
    [GpuKernel]
    private static void JoinKernel(
        ArrayView<int> blockOffsets, ArrayView<int> blockIndices, ArrayView<float> blockValues,
        ArrayView<int> offsets, ArrayView<int> indices, ArrayView<float> values, int firstRow, int firstEntry)
    {
        var step = (long)Grid.DimX * Group.DimX;
        var first = ((long)Grid.IdxX * Group.DimX) + Group.IdxX;
        for (var i = first; i < blockOffsets.Length; i += step) offsets[firstRow + i] = firstEntry + blockOffsets[i];
        for (var i = first; i < blockValues.Length; i += step)
        {
            indices[firstEntry + i] = blockIndices[i];
            values[firstEntry + i] = blockValues[i];
        }
    }

    /// <summary>Moves rows from room for k entries each to where their offsets say; a group a row.</summary>
    [GpuKernel]
    private static void PackKernel(
        ArrayView<int> offsets, ArrayView<int> roomIndices, ArrayView<float> roomValues, ArrayView<int> indices, ArrayView<float> values, int rows, int k)
    {
        for (var r = Grid.IdxX; r < rows; r += Grid.DimX)
        {
            var at = offsets[r];
            var count = offsets[r + 1] - at;
            for (var e = Group.IdxX; e < count; e += Group.DimX)
            {
                indices[at + e] = roomIndices[((long)r * k) + e];
                values[at + e] = roomValues[((long)r * k) + e];
            }
        }
    }

    private static Tensor GpuMix(TensorScope scope, Tensor db, Tensor wEnc)
    {
        var device = (GpuDevice)scope.Device;
        var parts = scope.New([(wEnc.Shape[0] + MixFeatures - 1) / MixFeatures, wEnc.Shape[1]]);
        if (parts.Count > 0)
        {
            device.Launch(MixKernel, (device.GridFor(parts.Count), device.GroupSize),
                db.View<float>(), wEnc.View<float>(), parts.View<float>(), wEnc.Shape[1], MixFeatures);
        }

        var y = SumRows.Of(scope, parts, [wEnc.Shape[1]]);
        scope.Release(parts);
        return y;
    }

    /// <summary>parts[b, j] = - sum over a block of features of db W_enc[., j].</summary>
    [GpuKernel]
    private static void MixKernel(ArrayView<float> db, ArrayView<float> w, ArrayView<float> parts, int d, int features)
    {
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < parts.Length; i += (long)Grid.DimX * Group.DimX)
        {
            var block = i / d;
            var j = i - (block * d);
            var end = IntrinsicMath.Min(db.Length, (block + 1) * features);
            var sum = 0f;
            for (var c = block * features; c < end; c++) sum -= db[c] * w[(c * d) + j];
            parts[i] = sum;
        }
    }
}
