using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>The ILGPU side: one thread an element, for any size.</summary>
public static partial class Gemm
{
    private static void Gpu(
        GpuDevice device, (int M, int N, int K) sizes, Tensor a, Tensor b, Tensor? bias, bool transposeA, bool transposeB, Tensor y)
    {
        if (y.Count == 0) return;
        var (m, n, k) = sizes;
        var options = (transposeA ? 1 : 0) | (transposeB ? 2 : 0) | (bias is null ? 0 : 4) | (Code(a.Type) << 4) | (Code(b.Type) << 6);
        device.Launch(GpuKernel, (device.GridFor(y.Count), device.GroupSize),
            a.RawView(), b.RawView(), (bias ?? y).View<float>(), y.View<float>(), n, k, m, options);
    }

    private static int Code(DType type) => type == DType.F32 ? 0 : type == DType.BF16 ? 1 : 2;

    [GpuKernel]
    private static void GpuKernel(
        ArrayView<byte> a, ArrayView<byte> b, ArrayView<float> bias, ArrayView<float> y, int n, int k, int m, int options)
    {
        var typeA = (options >> 4) & 3;
        var typeB = (options >> 6) & 3;
        var step = (long)Grid.DimX * Group.DimX;
        for (var o = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; o < y.Length; o += step)
        {
            var i = o / n;
            var j = o - (i * n);
            long atA = i * k, stepA = 1, atB = j, stepB = n;
            if ((options & 1) != 0)
            {
                atA = i;
                stepA = m;
            }

            if ((options & 2) != 0)
            {
                atB = j * k;
                stepB = 1;
            }

            var sum = 0f;
            for (var l = 0; l < k; l++)
            {
                sum += Read(a, atA, typeA) * Read(b, atB, typeB);
                atA += stepA;
                atB += stepB;
            }

            if ((options & 4) != 0) sum += bias[j];
            y[o] = sum;
        }
    }

    /// <summary>Element <paramref name="i"/> of a tensor of type 0 (F32), 1 (BF16) or 2 (F16).</summary>
    private static float Read(ArrayView<byte> x, long i, int type)
    {
        if (type == 0) return x.Cast<float>()[i];
        var bits = (uint)x.Cast<ushort>()[i];
        if (type == 1) return Interop.IntAsFloat(bits << 16);

        // Half: a number 2^-112 too small, scaled by 2^112; infinities and NaNs get the largest exponent.
        var magnitude = (bits & 0x7FFFu) << 13;
        var value = Interop.FloatAsInt(Interop.IntAsFloat(magnitude) * 5.192296858534828e33f);
        if (magnitude >= 0x7C00u << 13) value |= 0x7F800000u;
        return Interop.IntAsFloat(value | ((bits & 0x8000u) << 16));
    }
}
