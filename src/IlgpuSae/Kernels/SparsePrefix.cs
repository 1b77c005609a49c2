using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// The activations of the first features alone: entries whose feature is below a width, the others left out. A level of a
/// Matryoshka SAE. The gradient of a kept value is its own, that of the others 0. O(nnz).
/// </summary>
[Kernel]
public static class SparsePrefix
{
    private const int PieceRows = 64;

    /// <summary>The entries of features 0 .. width-1.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="f">Activations [n, d_sae].</param>
    /// <param name="width">0..d_sae.</param>
    /// <returns>Activations, [n, d_sae] still; differentiable in the values.</returns>
    /// <exception cref="ShapeException"><paramref name="width"/> is not between 0 and d_sae.</exception>
    public static SparseFeatures Of(TensorScope scope, SparseFeatures f, int width)
    {
        ArgumentNullException.ThrowIfNull(f);
        if (width < 0 || width > f.Columns) throw new ShapeException($"sparse prefix: width {width} is not between 0 and d_sae = {f.Columns}");
        var offsets = scope.Zeros([f.Rows + 1], DType.I32);
        Count(scope, f, width, offsets);
        var total = scope.Device is GpuDevice device ? SparseFromDense.ScanTotal(device, offsets) : CpuTotal(offsets);
        Tensor indices = scope.New([total], DType.I32), values = scope.New([total]);
        var y = new SparseFeatures(f.Columns, offsets, indices, values);
        Move(scope, f, y, f.Values, values, back: false);
        scope.Recorder?.Record(values, [f.Values], dy =>
        {
            var dv = scope.Zeros([f.EntryCount]);
            Move(scope, f, y, dv, dy, back: true);
            return [dv];
        });
        return y;
    }

    internal static double[] Reference(SparseCase f, double[] values, int width) => f.Dense([.. values.Select((v, e) => f.Indices[e] < width ? v : 0)]);

    internal static IEnumerable<KernelCase> Cases()
    {
        (SparseCase F, int Width)[] cases =
        [
            (SparseCase.Random(0, 3, 0), 2), (SparseCase.Random(2, 3, 0), 2), (SparseCase.Random(1, 1, 1), 1),
            (SparseCase.Random(17, 23, 0.3), 9), (SparseCase.Random(17, 23, 0.3), 0), (SparseCase.Random(17, 23, 0.3), 23),
        ];
        foreach (var (f, width) in cases)
        {
            yield return new KernelCase($"{width} of [{f.Rows}, {f.Columns}]", [f.OffsetsInput, f.IndicesInput, new([f.Count], Differentiable: true)],
                (scope, t) => [DenseFeatures.Of(scope, Of(scope, f.Of(t[0], t[1], t[2]), width))], x => [Reference(f, x[2], width)]);
        }
    }

    private static void Count(TensorScope scope, SparseFeatures f, int width, Tensor offsets)
    {
        if (f.Rows == 0) return;
        if (scope.Device is CpuDevice cpu) CpuCount(cpu, f, width, offsets);
        else
        {
            var device = (GpuDevice)scope.Device;
            device.Launch(CountKernel, (device.GridFor(f.Rows), device.GroupSize), f.RowOffsets.View<int>(), f.Indices.View<int>(), offsets.View<int>(), f.Rows, width);
        }
    }

    /// <summary>Copies the first entries of each row, indices too if they go forwards.</summary>
    private static void Move(TensorScope scope, SparseFeatures whole, SparseFeatures part, Tensor wholeValues, Tensor partValues, bool back)
    {
        if (part.EntryCount == 0) return;
        if (scope.Device is CpuDevice cpu) CpuMove(cpu, whole, part, wholeValues, partValues, back);
        else
        {
            var device = (GpuDevice)scope.Device;
            device.Launch(MoveKernel, (device.IsCuda ? whole.Rows : Math.Min(whole.Rows, 2), device.GroupSize),
                whole.RowOffsets.View<int>(), whole.Indices.View<int>(), wholeValues.View<float>(),
                part.RowOffsets.View<int>(), part.Indices.View<int>(), partValues.View<float>(), whole.Rows, back ? 1 : 0);
        }
    }

    private static unsafe int CpuTotal(Tensor offsets)
    {
        ScanOffsets.Cpu(offsets);
        return offsets.I32[offsets.Count - 1];
    }

    private static unsafe void CpuCount(CpuDevice device, SparseFeatures f, int width, Tensor offsets)
    {
        int* start = f.RowOffsets.I32, indices = f.Indices.I32, counts = offsets.I32;
        device.Pool.ForRange(f.Rows, PieceRows, (from, to) =>
        {
            for (var r = from; r < to; r++) counts[r + 1] = Before(indices, start[r], start[r + 1], width) - start[r];
        });
    }

    /// <summary>First entry of a row whose feature is at least width: features ascend.</summary>
    private static unsafe int Before(int* indices, int first, int end, int width)
    {
        while (first < end)
        {
            var middle = first + ((end - first) >> 1);
            if (indices[middle] < width) first = middle + 1;
            else end = middle;
        }

        return first;
    }

    private static unsafe void CpuMove(CpuDevice device, SparseFeatures whole, SparseFeatures part, Tensor wholeValues, Tensor partValues, bool back)
    {
        int* start = whole.RowOffsets.I32, from0 = whole.Indices.I32, target = part.RowOffsets.I32, to0 = part.Indices.I32;
        float* a = wholeValues.F32, b = partValues.F32;
        device.Pool.ForRange(whole.Rows, PieceRows, (from, to) =>
        {
            for (var r = from; r < to; r++)
            {
                var bytes = (target[r + 1] - target[r]) * 4L;
                if (back)
                {
                    Buffer.MemoryCopy(b + target[r], a + start[r], bytes, bytes);
                    continue;
                }

                Buffer.MemoryCopy(a + start[r], b + target[r], bytes, bytes);
                Buffer.MemoryCopy(from0 + start[r], to0 + target[r], bytes, bytes);
            }
        });
    }

    /// <summary>A thread a row.</summary>
    [GpuKernel]
    private static void CountKernel(ArrayView<int> start, ArrayView<int> indices, ArrayView<int> offsets, int rows, int width)
    {
        for (var r = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; r < rows; r += (long)Grid.DimX * Group.DimX)
        {
            int first = start[r], end = start[r + 1];
            while (first < end)
            {
                var middle = first + ((end - first) >> 1);
                if (indices[middle] < width) first = middle + 1;
                else end = middle;
            }

            offsets[r + 1] = first - start[r];
        }
    }

    /// <summary>A group a row.</summary>
    [GpuKernel]
    private static void MoveKernel(
        ArrayView<int> start, ArrayView<int> indices, ArrayView<float> values, ArrayView<int> target, ArrayView<int> partIndices,
        ArrayView<float> partValues, int rows, int back)
    {
        for (var r = Grid.IdxX; r < rows; r += Grid.DimX)
        {
            for (var e = target[r] + Group.IdxX; e < target[r + 1]; e += Group.DimX)
            {
                var source = start[r] + (e - target[r]);
                if (back != 0) values[source] = partValues[e];
                else
                {
                    partValues[e] = values[source];
                    partIndices[e] = indices[source];
                }
            }
        }
    }
}
