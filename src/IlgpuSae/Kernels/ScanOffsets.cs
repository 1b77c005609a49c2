using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Running sums of counts on ILGPU devices: the offsets of a compressed matrix. In place, inclusive, I32; O(n) in one
/// group. The CPU side is serial: the pass that counted costs far more.
/// </summary>
[Kernel]
internal static class ScanOffsets
{
    /// <summary>offsets[i] becomes the sum of offsets[0..i].</summary>
    /// <param name="device">The offsets' device.</param>
    /// <param name="offsets">I32 [n].</param>
    internal static void Gpu(GpuDevice device, Tensor offsets)
    {
        if (offsets.Count > 0) device.Launch(GpuKernel, (1, device.GroupSize), offsets.View<int>());
    }

    internal static double[] Reference(double[] counts)
    {
        var y = new double[counts.Length];
        var sum = 0.0;
        for (var i = 0; i < y.Length; i++) y[i] = sum += counts[i];
        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var n in new[] { 1, 15, 16, 17, 50 })
        {
            yield return new KernelCase($"{n} counts", [new([n], Fill.Index, Limit: 9, Type: DType.I32)],
                (scope, t) =>
                {
                    if (scope.Device is CpuDevice) Cpu(t[0]);
                    else Gpu((GpuDevice)scope.Device, t[0]);
                    return [t[0]];
                },
                x => [Reference(x[0])]);
        }
    }

    /// <summary>The same on the CPU.</summary>
    internal static unsafe void Cpu(Tensor offsets)
    {
        var p = offsets.I32;
        for (long i = 1; i < offsets.Count; i++) p[i] += p[i - 1];
    }

    [GpuKernel]
    private static void GpuKernel(ArrayView<int> offsets)
    {
        var shared = SharedMemory.Allocate<int>(GroupScan.Room);
        var carry = 0;
        for (var tile = 0L; tile < offsets.Length; tile += Group.DimX)
        {
            var i = tile + Group.IdxX;
            var mine = i < offsets.Length ? offsets[i] : 0;
            var before = GroupScan.Before(shared, mine, out var total);
            if (i < offsets.Length) offsets[i] = carry + before + mine;
            carry += total;
        }
    }
}
