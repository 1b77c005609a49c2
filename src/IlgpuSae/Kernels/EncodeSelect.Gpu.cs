using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

public static partial class EncodeSelect
{
    private static SparseFeatures Gpu(TensorScope scope, Tensor x, Tensor wEnc, Tensor bEnc, int k, Tensor? scale)
    {
        var device = (GpuDevice)scope.Device;
        var pre = scope.New([x.Shape[0], wEnc.Shape[0]]);
        if (pre.Count > 0)
        {
            device.Launch(PreKernel, (device.GridFor(pre.Count), device.GroupSize),
                x.View<float>(), wEnc.View<float>(), bEnc.View<float>(), (scale ?? bEnc).View<float>(), pre.View<float>(),
                wEnc.Shape[0], wEnc.Shape[1], scale is null ? 0 : 1);
        }

        var f = k == 0 ? SparseFromDense.Positive(scope, pre) : TopKSelect.Rows(scope, pre, k, relu: true);
        scope.Release(pre);
        return f;
    }

    private static void GpuCenter(GpuDevice device, Tensor x, Tensor center, Tensor y)
    {
        if (y.Count == 0) return;
        device.Launch(CenterKernel, (device.GridFor(y.Count), device.GroupSize), x.View<float>(), center.View<float>(), y.View<float>());
    }

    private static void GpuBackward(GpuDevice device, SparseFeatures g, SparseColumns columns, Tensor x, Tensor? dw, Tensor db)
    {
        if (dw is not null && dw.Count > 0) SparseDecode.GpuGatherByFeature(device, g, columns, g.Values, x, dw);
        if (db.Count == 0) return;
        device.Launch(BiasKernel, (device.GridFor(db.Count), device.GroupSize),
            columns.ColumnOffsets.View<int>(), columns.Entries.View<int>(), g.Values.View<float>(), db.View<float>());
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

        var y = ColumnSum.Of(scope, parts);
        scope.Release(parts);
        return y;
    }

    [GpuKernel]
    private static void PreKernel(
        ArrayView<float> x, ArrayView<float> w, ArrayView<float> bias, ArrayView<float> scale, ArrayView<float> pre, int m, int d, int scaled)
    {
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < pre.Length; i += (long)Grid.DimX * Group.DimX)
        {
            var r = i / m;
            var c = i - (r * m);
            var sum = 0f;
            for (var j = 0; j < d; j++) sum += x[(r * d) + j] * w[(c * d) + j];
            sum += bias[c];
            pre[i] = scaled != 0 ? sum * scale[c] : sum;
        }
    }

    [GpuKernel]
    private static void CenterKernel(ArrayView<float> x, ArrayView<float> center, ArrayView<float> y)
    {
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += (long)Grid.DimX * Group.DimX)
            y[i] = x[i] - center[i % center.Length];
    }

    /// <summary>d(b_enc): a thread a feature, its entries in row order.</summary>
    [GpuKernel]
    private static void BiasKernel(ArrayView<int> offsets, ArrayView<int> entries, ArrayView<float> values, ArrayView<float> db)
    {
        for (var c = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; c < db.Length; c += (long)Grid.DimX * Group.DimX)
        {
            var sum = 0f;
            for (var e = offsets[c]; e < offsets[c + 1]; e++) sum += values[entries[e]];
            db[c] = sum;
        }
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
