using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

public static partial class SparseDecode
{
    private static void Gpu(GpuDevice device, SparseFeatures f, Tensor wDec, Tensor? bDec, Tensor y)
    {
        // Without a bias the weights stand in for it: a view that is never read.
        device.Launch(ForwardKernel, (device.IsCuda ? f.Rows : Math.Min(f.Rows, 2), device.GroupSize),
            f.RowOffsets.View<int>(), f.Indices.View<int>(), f.Values.View<float>(), wDec.View<float>(), (bDec ?? wDec).View<float>(),
            y.View<float>(), f.Rows, wDec.Shape[1], bDec is null ? 0 : 1);
    }

    private static void GpuBackward(
        GpuDevice device, SparseFeatures f, SparseColumns columns, Tensor wDec, Tensor dy, Tensor? dValues, Tensor? dWeights)
    {
        var d = wDec.Shape[1];
        if (dValues is not null && f.EntryCount > 0)
        {
            device.Launch(ValuesKernel, (device.IsCuda ? f.Rows : Math.Min(f.Rows, 2), device.GroupSize),
                f.RowOffsets.View<int>(), f.Indices.View<int>(), wDec.View<float>(), dy.View<float>(), dValues.View<float>(), f.Rows, d);
        }

        if (dWeights is not null && dWeights.Count > 0) GpuGatherByFeature(device, f, columns, f.Values, dy, dWeights);
    }

    /// <summary>y[c] = sum over the entries of feature c, in row order, of factor * x[row].</summary>
    private static void GpuGatherByFeature(GpuDevice device, SparseFeatures f, SparseColumns columns, Tensor factors, Tensor x, Tensor y) =>
        device.Launch(GatherKernel, (device.IsCuda ? f.Columns : Math.Min(f.Columns, 2), device.GroupSize),
            columns.ColumnOffsets.View<int>(), columns.RowIndices.View<int>(), columns.Entries.View<int>(), factors.View<float>(),
            x.View<float>(), y.View<float>(), f.Columns, y.Shape[1]);

    /// <summary>A group a row.</summary>
    [GpuKernel]
    private static void ForwardKernel(
        ArrayView<int> offsets, ArrayView<int> indices, ArrayView<float> values, ArrayView<float> w, ArrayView<float> bias,
        ArrayView<float> y, int rows, int d, int hasBias)
    {
        for (var r = Grid.IdxX; r < rows; r += Grid.DimX)
        {
            int start = offsets[r], end = offsets[r + 1];
            for (var j = Group.IdxX; j < d; j += Group.DimX)
            {
                var sum = hasBias != 0 ? bias[j] : 0f;
                for (var e = start; e < end; e++) sum += values[e] * w[((long)indices[e] * d) + j];
                y[((long)r * d) + j] = sum;
            }
        }
    }

    /// <summary>A group a row: d(value) of each of its entries is one inner product.</summary>
    [GpuKernel]
    private static void ValuesKernel(
        ArrayView<int> offsets, ArrayView<int> indices, ArrayView<float> w, ArrayView<float> dy, ArrayView<float> dValues, int rows, int d)
    {
        var shared = SharedMemory.Allocate<float>(GroupScan.Room);
        for (var r = Grid.IdxX; r < rows; r += Grid.DimX)
        {
            var end = offsets[r + 1];
            for (var e = offsets[r]; e < end; e++)
            {
                var at = (long)indices[e] * d;
                var part = 0f;
                for (var j = Group.IdxX; j < d; j += Group.DimX) part += dy[((long)r * d) + j] * w[at + j];
                var sum = GpuMath.GroupSum(part, shared);
                if (Group.IdxX == 0) dValues[e] = sum;
            }
        }
    }

    /// <summary>A group a feature.</summary>
    [GpuKernel]
    private static void GatherKernel(
        ArrayView<int> offsets, ArrayView<int> rowIndices, ArrayView<int> entries, ArrayView<float> factors,
        ArrayView<float> x, ArrayView<float> y, int columns, int d)
    {
        for (var c = Grid.IdxX; c < columns; c += Grid.DimX)
        {
            int start = offsets[c], end = offsets[c + 1];
            for (var j = Group.IdxX; j < d; j += Group.DimX)
            {
                var sum = 0f;
                for (var e = start; e < end; e++) sum += factors[entries[e]] * x[((long)rowIndices[e] * d) + j];
                y[((long)c * d) + j] = sum;
            }
        }
    }
}
