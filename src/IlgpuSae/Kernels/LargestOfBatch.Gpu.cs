using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

public static partial class LargestOfBatch
{
    private static (Tensor Indices, Tensor Values, Tensor Sources) Gpu(TensorScope scope, GpuDevice device, SparseFeatures f, long count, Tensor offsets)
    {
        var n = f.Rows;
        var limit = scope.New([2], DType.I32);
        var ties = scope.Zeros([n + 1], DType.I32);
        device.Launch(LimitKernel, (1, device.GroupSize), f.Values.View<float>(), limit.View<int>(), (int)Math.Min(count, f.EntryCount));
        var grid = device.GridFor(n);
        device.Launch(TiesKernel, (grid, device.GroupSize), f.RowOffsets.View<int>(), f.Values.View<float>(), limit.View<int>(), ties.View<int>(), n);
        ScanOffsets.Gpu(device, ties);
        device.Launch(CountKernel, (grid, device.GroupSize),
            f.RowOffsets.View<int>(), f.Values.View<float>(), limit.View<int>(), ties.View<int>(), offsets.View<int>(), n);
        var total = SparseFromDense.ScanTotal(device, offsets);
        Tensor indices = scope.New([total], DType.I32), values = scope.New([total]), sources = scope.New([total], DType.I32);
        if (total > 0)
        {
            device.Launch(FillKernel, (grid, device.GroupSize),
                f.RowOffsets.View<int>(), f.Indices.View<int>(), f.Values.View<float>(), limit.View<int>(), ties.View<int>(), offsets.View<int>(),
                indices.View<int>(), values.View<float>(), sources.View<int>(), n);
        }

        scope.Release(limit);
        scope.Release(ties);
        return (indices, values, sources);
    }

    private static void GpuScatter(GpuDevice device, Tensor sources, Tensor dy, Tensor dv) =>
        device.Launch(ScatterKernel, (device.GridFor(sources.Count), device.GroupSize), sources.View<int>(), dy.View<float>(), dv.View<float>());

    private static uint GpuKey(float value) => value <= 0f ? 0u : Interop.FloatAsInt(value);

    /// <summary>One group: limit[0] = key of the count-th largest value, limit[1] = how many that have it are kept.</summary>
    [GpuKernel]
    private static void LimitKernel(ArrayView<float> values, ArrayView<int> limit, int count)
    {
        var counts = SharedMemory.Allocate<int>(256);
        var state = SharedMemory.Allocate<int>(2);
        var key = 0u;
        var wanted = count;
        for (var shift = 24; shift >= 0; shift -= 8)
        {
            for (var i = Group.IdxX; i < 256; i += Group.DimX) counts[i] = 0;
            Group.Barrier();
            // A shift by 32 is none on the hardware: the first round compares nothing.
            var mask = shift == 24 ? 0u : 0xFFFFFFFFu << (shift + 8);
            for (var e = (long)Group.IdxX; e < values.Length; e += Group.DimX)
            {
                var mine = GpuKey(values[e]);
                var digit = (int)((mine >> shift) & 255u);
                if ((mine & mask) == key && digit != 0) Atomic.Add(ref counts[digit], 1);
            }

            Group.Barrier();
            if (Group.IdxX == 0)
            {
                var digit = 255;
                var above = 0;
                while (digit > 0 && above + counts[digit] < wanted)
                {
                    above += counts[digit];
                    digit--;
                }

                state[0] = digit;
                state[1] = wanted - above;
            }

            Group.Barrier();
            key |= (uint)state[0] << shift;
            wanted = state[1];
            Group.Barrier();
        }

        if (Group.IdxX == 0)
        {
            // Nothing wanted: no key is above this limit. A key of 0: fewer are positive than were asked for.
            limit[0] = count == 0 ? -1 : (int)key;
            limit[1] = count == 0 || key == 0u ? 0 : wanted;
        }
    }

    /// <summary>ties[r + 1] = number of entries of row r that equal the limit; a thread a row.</summary>
    [GpuKernel]
    private static void TiesKernel(ArrayView<int> rowOffsets, ArrayView<float> values, ArrayView<int> limit, ArrayView<int> ties, int rows)
    {
        var least = (uint)limit[0];
        for (var r = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; r < rows; r += (long)Grid.DimX * Group.DimX)
        {
            var equal = 0;
            for (var e = rowOffsets[r]; e < rowOffsets[r + 1]; e++) equal += GpuKey(values[e]) == least ? 1 : 0;
            ties[r + 1] = equal;
        }
    }

    /// <summary>offsets[r + 1] = number of kept entries of row r; ties are running sums now. A thread a row.</summary>
    [GpuKernel]
    private static void CountKernel(
        ArrayView<int> rowOffsets, ArrayView<float> values, ArrayView<int> limit, ArrayView<int> ties, ArrayView<int> offsets, int rows)
    {
        var least = (uint)limit[0];
        for (var r = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; r < rows; r += (long)Grid.DimX * Group.DimX)
        {
            var above = 0;
            for (var e = rowOffsets[r]; e < rowOffsets[r + 1]; e++) above += GpuKey(values[e]) > least ? 1 : 0;
            var free = IntrinsicMath.Max(0, limit[1] - ties[r]);
            offsets[r + 1] = above + IntrinsicMath.Min(ties[r + 1] - ties[r], free);
        }
    }

    /// <summary>Writes the kept entries of a row in order; a thread a row.</summary>
    [GpuKernel]
    private static void FillKernel(
        ArrayView<int> rowOffsets, ArrayView<int> fromIndices, ArrayView<float> fromValues, ArrayView<int> limit, ArrayView<int> ties,
        ArrayView<int> offsets, ArrayView<int> indices, ArrayView<float> values, ArrayView<int> sources, int rows)
    {
        var least = (uint)limit[0];
        for (var r = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; r < rows; r += (long)Grid.DimX * Group.DimX)
        {
            var at = offsets[r];
            var free = limit[1] - ties[r];
            for (var e = rowOffsets[r]; e < rowOffsets[r + 1]; e++)
            {
                var value = fromValues[e];
                var key = GpuKey(value);
                var tie = key == least;
                if (key > least || (tie && free > 0))
                {
                    indices[at] = fromIndices[e];
                    values[at] = value;
                    sources[at] = e;
                    at++;
                }

                if (tie) free--;
            }
        }
    }

    [GpuKernel]
    private static void ScatterKernel(ArrayView<int> sources, ArrayView<float> dy, ArrayView<float> dv)
    {
        for (var e = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; e < sources.Length; e += (long)Grid.DimX * Group.DimX) dv[sources[e]] = dy[e];
    }
}
