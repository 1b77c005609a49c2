using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

public static partial class EncodeSelect
{
    private static SparseFeatures Gpu(TensorScope scope, Tensor x, Tensor wEnc, Tensor bEnc, int k, Tensor? scale)
    {
        var pre = Gemm.Multiply(scope, x, wEnc, bEnc, transposeB: true);
        if (scale is not null)
        {
            var scaled = MultiplyRow.Forward(scope, pre, scale);
            scope.Release(pre);
            pre = scaled;
        }

        var f = k == 0 ? SparseFromDense.Positive(scope, pre) : TopKSelect.Rows(scope, pre, k, relu: true);
        scope.Release(pre);
        return f;
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
