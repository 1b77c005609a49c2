using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>The implementations: by row forwards, by entry backwards.</summary>
public static partial class SparsePenalty
{
    private static unsafe void Cpu(CpuDevice device, SparseFeatures f, Tensor? norms, float p, bool root, Tensor rows)
    {
        int* offsets = f.RowOffsets.I32, indices = f.Indices.I32;
        float* v = f.Values.F32, w = norms is null ? null : norms.F32, sums = rows.F32;
        device.Pool.ForRange(f.Rows, PieceRows, (from, to) =>
        {
            for (var r = from; r < to; r++)
            {
                // In double: a row of a dense start of training has thousands of entries.
                var sum = 0.0;
                for (var e = offsets[r]; e < offsets[r + 1]; e++)
                {
                    var u = MathF.Abs(v[e]) * (w == null ? 1 : w[indices[e]]);
                    sum += p == 1 ? u : p == 2 ? (double)u * u : Math.Pow(u, p);
                }

                sums[r] = (float)(p == 1 || !root ? sum : p == 2 ? Math.Sqrt(sum) : Math.Pow(sum, 1.0 / p));
            }
        });
    }

    private static unsafe void CpuSlopes(
        CpuDevice device, SparseFeatures f, Tensor? norms, float p, bool root, Tensor rows, Tensor dy, Tensor? dValues, Tensor? perEntry)
    {
        int* offsets = f.RowOffsets.I32, indices = f.Indices.I32;
        float* v = f.Values.F32, w = norms is null ? null : norms.F32, sums = rows.F32;
        float* pdv = dValues is null ? null : dValues.F32, pe = perEntry is null ? null : perEntry.F32;
        var scale = *dy.F32 / f.Rows;
        device.Pool.ForRange(f.Rows, PieceRows, (from, to) =>
        {
            for (var r = from; r < to; r++)
            {
                for (var e = offsets[r]; e < offsets[r + 1]; e++)
                {
                    var norm = w == null ? 1 : w[indices[e]];
                    var u = MathF.Abs(v[e]) * norm;
                    var ratio = root ? u / sums[r] : u;
                    var slope = scale * (sums[r] == 0 ? 0 : p == 1 ? 1 : u == 0 ? 0 : p == 2 ? ratio : MathF.Pow(ratio, p - 1)) * (root ? 1 : p);
                    if (pdv != null) pdv[e] = slope * norm * (v[e] > 0 ? 1 : v[e] < 0 ? -1 : 0);
                    if (pe != null) pe[e] = slope * MathF.Abs(v[e]);
                }
            }
        });
    }

    private static void Gpu(GpuDevice device, SparseFeatures f, Tensor? norms, float p, bool root, Tensor rows) =>
        device.Launch(RowKernel, (device.IsCuda ? f.Rows : Math.Min(f.Rows, 2), device.GroupSize),
            f.RowOffsets.View<int>(), f.Indices.View<int>(), f.Values.View<float>(), (norms ?? rows).View<float>(),
            rows.View<float>(), (norms is null ? 0 : 1) | (root ? 8 : 0), p);

    private static void GpuSlopes(
        GpuDevice device, SparseFeatures f, Tensor? norms, float p, bool root, Tensor rows, Tensor dy, Tensor? dValues, Tensor? perEntry) =>
        device.Launch(SlopeKernel, (device.IsCuda ? f.Rows : Math.Min(f.Rows, 2), device.GroupSize),
            f.RowOffsets.View<int>(), f.Indices.View<int>(), f.Values.View<float>(), (norms ?? rows).View<float>(),
            rows.View<float>(), dy.View<float>(), (dValues ?? perEntry ?? rows).View<float>(), (perEntry ?? dValues ?? rows).View<float>(),
            (norms is null ? 0 : 1) | (dValues is null ? 0 : 2) | (perEntry is null ? 0 : 4) | (root ? 8 : 0), p);

    /// <summary>u^p for u >= 0.</summary>
    private static float Power(float u, float p)
    {
        if (p == 1f) return u;
        if (p == 2f) return u * u;
        // Below the smallest normal number the logarithm is not defined; the power is as good as 0.
        return u < 1.2e-38f ? 0f : GpuMath.Exp(p * GpuMath.Log(u));
    }

    /// <summary>options: 1 the features have norms, 8 with the root.</summary>
    [GpuKernel]
    private static void RowKernel(
        ArrayView<int> offsets, ArrayView<int> indices, ArrayView<float> values, ArrayView<float> norms, ArrayView<float> rows,
        int options, float p)
    {
        var shared = SharedMemory.Allocate<float>(GroupScan.Room);
        for (var r = (long)Grid.IdxX; r < rows.Length; r += Grid.DimX)
        {
            var part = 0f;
            for (var e = offsets[r] + Group.IdxX; e < offsets[r + 1]; e += Group.DimX)
            {
                var u = MathF.Abs(values[e]);
                if ((options & 1) != 0) u *= norms[indices[e]];
                part += Power(u, p);
            }

            var sum = GpuMath.GroupSum(part, shared);
            if (Group.IdxX == 0) rows[r] = (options & 8) == 0 ? sum : p == 2f ? MathF.Sqrt(sum) : Power(sum, 1f / p);
        }
    }

    /// <summary>options: 1 the features have norms, 2 the values' gradient is wanted, 4 that of the norms, 8 with the root.</summary>
    [GpuKernel]
    private static void SlopeKernel(
        ArrayView<int> offsets, ArrayView<int> indices, ArrayView<float> values, ArrayView<float> norms, ArrayView<float> rows,
        ArrayView<float> dy, ArrayView<float> dValues, ArrayView<float> perEntry, int options, float p)
    {
        var scale = dy[0] / rows.Length;
        for (var r = (long)Grid.IdxX; r < rows.Length; r += Grid.DimX)
        {
            var sum = rows[r];
            for (var e = offsets[r] + Group.IdxX; e < offsets[r + 1]; e += Group.DimX)
            {
                var v = values[e];
                var norm = (options & 1) != 0 ? norms[indices[e]] : 1f;
                var u = MathF.Abs(v) * norm;
                var slope = sum == 0f ? 0f : p == 1f ? scale : u == 0f ? 0f : (options & 8) != 0 ? scale * Power(u / sum, p - 1f) : scale * p * Power(u, p - 1f);
                if ((options & 2) != 0) dValues[e] = slope * norm * (v > 0f ? 1f : v < 0f ? -1f : 0f);
                if ((options & 4) != 0) perEntry[e] = slope * MathF.Abs(v);
            }
        }
    }
}
