using ILGPU;
using ILGPU.Runtime;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// The ILGPU side. On CUDA: cuBLAS where the machine has it; else tensor cores where bfloat16 factors are allowed, tiles of 128 x 128 where sizes and addresses allow
/// loads of 16 bytes, else tiles of 64 x 64 for anything. On ILGPU's CPU accelerator one thread an element: barriers
/// cost more there than tiles save.
/// </summary>
public static partial class Gemm
{
    /// <summary>Length of k below which a product is not split into parts.</summary>
    private const int SmallestPart = 256;

    /// <summary>y = op(a) op(b) + bias on a GPU; y is [m, n] in memory.</summary>
    internal static void Gpu(
        GpuDevice device, (int M, int N, int K) sizes, Tensor a, Tensor b, Tensor? bias, bool transposeA, bool transposeB, Tensor y)
    {
        if (y.Count == 0) return;
        if (!device.IsCuda) Plain(device, sizes, a, b, bias, transposeA, transposeB, y);
        else if (sizes.K > 0 && Cublas.Of(device) is { } cublas) WithCublas(cublas, device, sizes, a, b, bias, transposeA, transposeB, y);
        else if (device.Precision == MatmulPrecision.Bf16 && FitsTensorCores(sizes)) OnTensorCores(device, sizes, a, b, bias, transposeA, transposeB, y);
        else Tiled(device, sizes, a, b, bias, transposeA, transposeB, y, Parts(device, sizes));
    }

    /// <summary>The tiled kernels, with k cut into <paramref name="parts"/> that are added in order.</summary>
    internal static void Tiled(
        GpuDevice device, (int M, int N, int K) sizes, Tensor a, Tensor b, Tensor? bias, bool transposeA, bool transposeB, Tensor y, int parts)
    {
        var (m, n, k) = sizes;
        var wide = k % 8 == 0 && k > 0 && Aligned(a) && Aligned(b) && Aligned(y) && m >= 4 && n >= 4
            && a.Shape.Last % 4 == 0 && b.Shape.Last % 4 == 0;
        var perPart = Math.Max(8, (((k + parts - 1) / parts) + 7) & ~7);
        parts = Math.Max(1, (k + perPart - 1) / perPart);
        using var wideA = wide ? Widened(device, a) : null;
        using var wideB = wide ? Widened(device, b) : null;
        using var partial = parts > 1 ? new Tensor(device, [parts, m, n]) : null;
        var tiling = new GemmTiling
        {
            M = m,
            N = n,
            K = k,
            StrideA = a.Shape.Last,
            StrideB = b.Shape.Last,
            KPerPart = perPart,
            Options = (transposeA ? GemmTiling.TransposeA : 0) | (transposeB ? GemmTiling.TransposeB : 0)
                | (bias is null || parts > 1 ? 0 : GemmTiling.HasBias) | (Code(a.Type) << GemmTiling.TypeA) | (Code(b.Type) << GemmTiling.TypeB),
        };
        var target = (partial ?? y).View<float>();
        var biasView = (bias ?? y).View<float>();
        if (wide)
        {
            device.Launch(Tile128Kernel(transposeA, transposeB), (new Index3D((m + 127) / 128, (n + 127) / 128, parts), new Index3D(256, 1, 1)),
                (wideA ?? a).View<float>(), (wideB ?? b).View<float>(), biasView, target, tiling);
        }
        else
        {
            device.Launch(Tile64Kernel, (new Index3D((m + 63) / 64, (n + 63) / 64, parts), new Index3D(256, 1, 1)),
                a.RawView(), b.RawView(), biasView, target, tiling);
        }

        if (partial is not null)
        {
            device.Launch(SumPartsKernel, (device.GridFor(y.Count), device.GroupSize),
                partial.View<float>(), biasView, y.View<float>(), parts, n, bias is null ? 0 : 1);
        }
    }

    /// <summary>
    /// Parts to cut k into so that every multiprocessor has a tile: products with few columns and a long k, as the
    /// gradient of a narrow layer.
    /// </summary>
    internal static int Parts(GpuDevice device, (int M, int N, int K) sizes)
    {
        var tiles = (long)((sizes.M + 127) / 128) * ((sizes.N + 127) / 128);
        var wanted = device.Accelerator.NumMultiprocessors / Math.Max(1, tiles);
        return (int)Math.Max(1, Math.Min(Math.Min(wanted, 32), sizes.K / SmallestPart));
    }

    private static void Plain(
        GpuDevice device, (int M, int N, int K) sizes, Tensor a, Tensor b, Tensor? bias, bool transposeA, bool transposeB, Tensor y)
    {
        var (m, n, k) = sizes;
        var options = (transposeA ? 1 : 0) | (transposeB ? 2 : 0) | (bias is null ? 0 : 4) | (Code(a.Type) << 4) | (Code(b.Type) << 6);
        device.Launch(GpuKernel, (device.GridFor(y.Count), device.GroupSize),
            a.RawView(), b.RawView(), (bias ?? y).View<float>(), y.View<float>(), n, k, m, options);
    }

    private static Action<ArrayView<float>, ArrayView<float>, ArrayView<float>, ArrayView<float>, GemmTiling> Tile128Kernel(bool transposeA, bool transposeB) =>
        (transposeA, transposeB) switch
        {
            (false, false) => Tile128NnKernel,
            (false, true) => Tile128NtKernel,
            (true, false) => Tile128TnKernel,
            _ => Tile128TtKernel,
        };

    internal static int Code(DType type) => type == DType.F32 ? 0 : type == DType.BF16 ? 1 : 2;

    /// <summary>Whether 16-byte accesses may start at the first element.</summary>
    private static bool Aligned(Tensor t) => (t.RawView().LoadEffectiveAddressAsPtr() & 15) == 0;

    /// <summary>A copy in F32 of a 16-bit tensor; null where it is F32. The caller disposes of it.</summary>
    private static Tensor? Widened(GpuDevice device, Tensor t)
    {
        if (t.Type == DType.F32) return null;
        var wide = new Tensor(device, t.Shape);
        device.Launch(WidenKernel, (device.GridFor(t.Count), device.GroupSize), t.RawView(), wide.View<float>(), Code(t.Type));
        return wide;
    }

    [GpuKernel]
    private static void WidenKernel(ArrayView<byte> x, ArrayView<float> y, int type)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += step) y[i] = Read(x, i, type);
    }

    /// <summary>y = bias + parts[0] + parts[1] + ..., in this order.</summary>
    [GpuKernel]
    private static void SumPartsKernel(ArrayView<float> parts, ArrayView<float> bias, ArrayView<float> y, int count, int n, int hasBias)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += step)
        {
            var sum = parts[i];
            for (var p = 1; p < count; p++) sum += parts[(p * y.Length) + i];
            if (hasBias != 0) sum += bias[i % n];
            y[i] = sum;
        }
    }

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
    internal static float Read(ArrayView<byte> x, long i, int type)
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
