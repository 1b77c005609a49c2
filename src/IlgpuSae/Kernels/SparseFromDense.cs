using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Sparse features from a dense matrix: the elements that are not zero (a NaN is not), or for ReLU the positive ones and
/// NaN. O(n d_sae). The gradient of the dense matrix is that of the value where one is stored, 0 elsewhere.
/// </summary>
[Kernel]
public static partial class SparseFromDense
{
    /// <summary>The elements that are not zero.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="dense">F32 [n, d_sae].</param>
    /// <returns>Sparse features [n, d_sae]; differentiable in <paramref name="dense"/>.</returns>
    /// <exception cref="ShapeException"><paramref name="dense"/> is not a matrix.</exception>
    public static SparseFeatures Of(TensorScope scope, Tensor dense) => Select(scope, dense, positive: false);

    /// <summary>ReLU: the elements above zero, and NaN.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="dense">F32 [n, d_sae].</param>
    internal static SparseFeatures Positive(TensorScope scope, Tensor dense) => Select(scope, dense, positive: true);

    internal static double[] Reference(double[] dense, bool positive) => positive ? [.. dense.Select(v => v <= 0 ? 0 : v)] : (double[])dense.Clone();

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var positive in new[] { false, true })
        {
            foreach (var shape in new Shape[] { [0, 4], [3, 1], [5, 37], [2, 100] })
            {
                yield return new KernelCase($"{shape}, positive {positive}", [new(shape, Differentiable: true)],
                    (scope, t) => [DenseFeatures.Of(scope, Select(scope, t[0], positive))],
                    x => [Reference(x[0], positive)]);
            }

            yield return new KernelCase($"zeros, NaN and infinities, positive {positive}",
                [new([2, 4], Fill.Given, Values: [0, double.NaN, -1, 0, double.NegativeInfinity, double.PositiveInfinity, -0.0, 2])],
                (scope, t) =>
                {
                    var f = Select(scope, t[0], positive);
                    return [f.RowOffsets, f.Indices, f.Values];
                },
                _ => positive
                    ? [[0, 1, 3], [1, 1, 3], [double.NaN, double.PositiveInfinity, 2]]
                    : [[0, 2, 5], [1, 2, 0, 1, 3], [double.NaN, -1, double.NegativeInfinity, double.PositiveInfinity, 2]]);
        }
    }

    /// <summary>d(dense) from d(values): each at its place, 0 elsewhere.</summary>
    internal static Tensor Scatter(TensorScope scope, SparseFeatures f, Tensor dValues) => DenseFeatures.Of(scope, f.With(dValues));

    private static SparseFeatures Select(TensorScope scope, Tensor dense, bool positive)
    {
        if (dense.Shape.Rank != 2) throw new ShapeException($"sparse features: {dense.Shape} is not a matrix [n, d_sae]");
        var f = scope.Device is CpuDevice cpu ? Cpu(scope, cpu, dense, positive) : Gpu(scope, (GpuDevice)scope.Device, dense, positive);
        scope.Recorder?.Record(f.Values, [dense], dv => [Scatter(scope, f, dv)]);
        return f;
    }

    private static unsafe SparseFeatures Cpu(TensorScope scope, CpuDevice device, Tensor dense, bool positive)
    {
        int n = dense.Shape[0], m = dense.Shape[1];
        var offsets = scope.New([n + 1], DType.I32);
        var start = offsets.I32;
        var x = dense.F32;
        start[0] = 0;
        device.Pool.ForRange(n, 8, (from, to) =>
        {
            for (var r = from; r < to; r++)
            {
                var count = 0;
                for (var c = 0; c < m; c++)
                {
                    var v = x[(r * m) + c];
                    if (positive ? !(v <= 0) : v != 0) count++;
                }

                start[r + 1] = count;
            }
        });
        ScanOffsets.Cpu(offsets);
        var indices = scope.New([start[n]], DType.I32);
        var values = scope.New([start[n]]);
        int* pi = indices.I32;
        var pv = values.F32;
        device.Pool.ForRange(n, 8, (from, to) =>
        {
            for (var r = from; r < to; r++)
            {
                var at = start[r];
                for (var c = 0; c < m; c++)
                {
                    var v = x[(r * m) + c];
                    if (positive ? v <= 0 : v == 0) continue;
                    pi[at] = c;
                    pv[at++] = v;
                }
            }
        });
        return new SparseFeatures(m, offsets, indices, values);
    }

    private static SparseFeatures Gpu(TensorScope scope, GpuDevice device, Tensor dense, bool positive)
    {
        int n = dense.Shape[0], m = dense.Shape[1];
        var offsets = scope.Zeros([n + 1], DType.I32);
        var grid = device.IsCuda ? n : Math.Min(n, 2);
        if (dense.Count > 0)
            device.Launch(CountKernel, (grid, device.GroupSize), dense.View<float>(), offsets.View<int>(), n, m, positive ? 1 : 0);
        var total = ScanTotal(device, offsets);
        var indices = scope.New([total], DType.I32);
        var values = scope.New([total]);
        if (total > 0)
        {
            device.Launch(FillKernel, (grid, device.GroupSize),
                dense.View<float>(), offsets.View<int>(), indices.View<int>(), values.View<float>(), n, m, positive ? 1 : 0);
        }

        return new SparseFeatures(m, offsets, indices, values);
    }

    /// <summary>Turns counts into offsets and returns their end: the one number for which the host must wait.</summary>
    internal static int ScanTotal(GpuDevice device, Tensor offsets)
    {
        ScanOffsets.Gpu(device, offsets);
        using var last = offsets.Slice(checked((int)offsets.Count - 1), 1);
        return last.ToArray<int>()[0];
    }

    private static int Selected(float value, int positive) => (positive != 0 ? !(value <= 0f) : value != 0f) ? 1 : 0;

    /// <summary>offsets[r + 1] = number of selected elements of row r; a group a row.</summary>
    [GpuKernel]
    private static void CountKernel(ArrayView<float> dense, ArrayView<int> offsets, int rows, int columns, int positive)
    {
        var shared = SharedMemory.Allocate<int>(GroupScan.Room);
        for (var r = Grid.IdxX; r < rows; r += Grid.DimX)
        {
            var count = 0;
            for (var c = Group.IdxX; c < columns; c += Group.DimX) count += Selected(dense[((long)r * columns) + c], positive);
            GroupScan.Before(shared, count, out var total);
            if (Group.IdxX == 0) offsets[r + 1] = total;
        }
    }

    /// <summary>Writes the selected elements of a row in order; a group a row, a tile of the group's size at a time.</summary>
    [GpuKernel]
    private static void FillKernel(
        ArrayView<float> dense, ArrayView<int> offsets, ArrayView<int> indices, ArrayView<float> values, int rows, int columns, int positive)
    {
        var shared = SharedMemory.Allocate<int>(GroupScan.Room);
        for (var r = Grid.IdxX; r < rows; r += Grid.DimX)
        {
            var at = offsets[r];
            for (var tile = 0; tile < columns; tile += Group.DimX)
            {
                var c = tile + Group.IdxX;
                var value = c < columns ? dense[((long)r * columns) + c] : 0f;
                var mine = Selected(value, positive);
                var before = GroupScan.Before(shared, mine, out var total);
                if (mine != 0)
                {
                    indices[at + before] = c;
                    values[at + before] = value;
                }

                at += total;
            }
        }
    }
}
