using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Sparse features from a dense matrix by a limit a feature: the elements above their column's limit, and NaN. JumpReLU
/// with its thresholds as limits. O(n d_sae). The gradient of the dense matrix is that of the value where one is kept,
/// 0 elsewhere; the limits are constants.
/// </summary>
[Kernel]
public static class SelectAbove
{
    /// <summary>The elements above their column's limit.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="dense">F32 [n, d_sae].</param>
    /// <param name="limits">F32 [d_sae].</param>
    /// <returns>Sparse features [n, d_sae]; differentiable in <paramref name="dense"/>.</returns>
    /// <exception cref="ShapeException">The sizes do not fit.</exception>
    public static SparseFeatures Of(TensorScope scope, Tensor dense, Tensor limits)
    {
        if (dense.Shape.Rank != 2) throw new ShapeException($"select above: {dense.Shape} is not a matrix [n, d_sae]");
        if (limits.Count != dense.Shape[1]) throw new ShapeException($"select above: {limits.Shape} limits for {dense.Shape}");
        var f = scope.Device is CpuDevice cpu ? Cpu(scope, cpu, dense, limits) : Gpu(scope, (GpuDevice)scope.Device, dense, limits);
        scope.Recorder?.Record(f.Values, [dense], dv => [SparseFromDense.Scatter(scope, f, dv)]);
        return f;
    }

    internal static double[] Reference(double[] dense, double[] limits)
    {
        var y = new double[dense.Length];
        for (var i = 0; i < y.Length; i++) y[i] = dense[i] <= limits[i % limits.Length] ? 0 : dense[i];
        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var shape in new Shape[] { [0, 4], [3, 1], [5, 37], [2, 100] })
        {
            yield return new KernelCase(shape.ToString(), [new(shape, Differentiable: true), new([shape[1]])],
                (scope, t) => [DenseFeatures.Of(scope, Of(scope, t[0], t[1]))], x => [Reference(x[0], x[1])]);
        }

        yield return new KernelCase("equal, below, NaN and infinities, a limit below zero",
            [
                new([2, 3], Fill.Given, Values: [1, 2, double.NaN, 1.5, double.NegativeInfinity, -0.5]),
                new([3], Fill.Given, Values: [1, 3, -1]),
            ],
            (scope, t) =>
            {
                var f = Of(scope, t[0], t[1]);
                return [f.RowOffsets, f.Indices, f.Values];
            },
            _ => [[0, 1, 3], [2, 0, 2], [double.NaN, 1.5, -0.5]]);
    }

    private static unsafe SparseFeatures Cpu(TensorScope scope, CpuDevice device, Tensor dense, Tensor limits)
    {
        int n = dense.Shape[0], m = dense.Shape[1];
        var offsets = scope.New([n + 1], DType.I32);
        var start = offsets.I32;
        float* x = dense.F32, limit = limits.F32;
        start[0] = 0;
        device.Pool.ForRange(n, 8, (from, to) =>
        {
            for (var r = from; r < to; r++)
            {
                var count = 0;
                for (var c = 0; c < m; c++) count += x[(r * m) + c] <= limit[c] ? 0 : 1;
                start[r + 1] = count;
            }
        });
        ScanOffsets.Cpu(offsets);
        var indices = scope.New([start[n]], DType.I32);
        var values = scope.New([start[n]]);
        var pi = indices.I32;
        var pv = values.F32;
        device.Pool.ForRange(n, 8, (from, to) =>
        {
            for (var r = from; r < to; r++)
            {
                var at = start[r];
                for (var c = 0; c < m; c++)
                {
                    var v = x[(r * m) + c];
                    if (v <= limit[c]) continue;
                    pi[at] = c;
                    pv[at++] = v;
                }
            }
        });
        return new SparseFeatures(m, offsets, indices, values);
    }

    private static SparseFeatures Gpu(TensorScope scope, GpuDevice device, Tensor dense, Tensor limits)
    {
        int n = dense.Shape[0], m = dense.Shape[1];
        var offsets = scope.Zeros([n + 1], DType.I32);
        var grid = device.IsCuda ? n : Math.Min(n, 2);
        if (dense.Count > 0)
            device.Launch(CountKernel, (grid, device.GroupSize), dense.View<float>(), limits.View<float>(), offsets.View<int>(), n, m);
        var total = SparseFromDense.ScanTotal(device, offsets);
        var indices = scope.New([total], DType.I32);
        var values = scope.New([total]);
        if (total > 0)
        {
            device.Launch(FillKernel, (grid, device.GroupSize),
                dense.View<float>(), limits.View<float>(), offsets.View<int>(), indices.View<int>(), values.View<float>(), n, m);
        }

        return new SparseFeatures(m, offsets, indices, values);
    }

    /// <summary>offsets[r + 1] = number of elements of row r above their limits; a group a row.</summary>
    [GpuKernel]
    private static void CountKernel(ArrayView<float> dense, ArrayView<float> limits, ArrayView<int> offsets, int rows, int columns)
    {
        var shared = SharedMemory.Allocate<int>(GroupScan.Room);
        for (var r = Grid.IdxX; r < rows; r += Grid.DimX)
        {
            var count = 0;
            for (var c = Group.IdxX; c < columns; c += Group.DimX) count += dense[((long)r * columns) + c] <= limits[c] ? 0 : 1;
            GroupScan.Before(shared, count, out var total);
            if (Group.IdxX == 0) offsets[r + 1] = total;
        }
    }

    /// <summary>Writes the kept elements of a row in order; a group a row, a tile of the group's size at a time.</summary>
    [GpuKernel]
    private static void FillKernel(
        ArrayView<float> dense, ArrayView<float> limits, ArrayView<int> offsets, ArrayView<int> indices, ArrayView<float> values, int rows, int columns)
    {
        var shared = SharedMemory.Allocate<int>(GroupScan.Room);
        for (var r = Grid.IdxX; r < rows; r += Grid.DimX)
        {
            var at = offsets[r];
            for (var tile = 0; tile < columns; tile += Group.DimX)
            {
                var c = tile + Group.IdxX;
                var value = c < columns ? dense[((long)r * columns) + c] : 0f;
                var mine = c < columns && !(value <= limits[c]) ? 1 : 0;
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
