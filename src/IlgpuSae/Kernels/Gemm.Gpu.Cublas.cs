using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>The product by cuBLAS: factors are brought to one type, the bias is what the product is added to.</summary>
public static partial class Gemm
{
    private static void WithCublas(
        Cublas cublas, GpuDevice device, (int M, int N, int K) sizes, Tensor a, Tensor b, Tensor? bias, bool transposeA, bool transposeB, Tensor y)
    {
        var narrow = device.Precision == MatmulPrecision.Bf16;
        using var otherA = narrow ? Narrowed(device, a) : Widened(device, a);
        using var otherB = narrow ? Narrowed(device, b) : Widened(device, b);
        if (bias is not null)
        {
            device.Launch(FillRowsKernel, (device.GridFor(y.Count), device.GroupSize), bias.View<float>(), y.View<float>(), sizes.N);
        }

        cublas.Multiply(sizes, otherA ?? a, otherB ?? b, transposeA, transposeB, bias is null ? 0 : 1, y);
    }

    /// <summary>A copy in BF16; null where the tensor is BF16. The caller disposes of it.</summary>
    private static Tensor? Narrowed(GpuDevice device, Tensor t)
    {
        if (t.Type == DType.BF16) return null;
        var narrow = new Tensor(device, t.Shape, DType.BF16);
        device.Launch(NarrowKernel, (device.GridFor(t.Count), device.GroupSize), t.RawView(), narrow.RawView().Cast<ushort>(), Code(t.Type));
        return narrow;
    }

    [GpuKernel]
    private static void NarrowKernel(ArrayView<byte> x, ArrayView<ushort> y, int type)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += step) y[i] = Narrow(Read(x, i, type));
    }

    /// <summary>The nearest bfloat16, ties to even; a NaN stays one.</summary>
    private static ushort Narrow(float value)
    {
        var bits = Interop.FloatAsInt(value);
        var rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
        if ((bits & 0x7FFFFFFFu) > 0x7F800000u) rounded = (bits >> 16) | 0x40u;
        return (ushort)rounded;
    }

    /// <summary>Every row of y becomes the bias.</summary>
    [GpuKernel]
    private static void FillRowsKernel(ArrayView<float> bias, ArrayView<float> y, int n)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += step) y[i] = bias[i % n];
    }
}
