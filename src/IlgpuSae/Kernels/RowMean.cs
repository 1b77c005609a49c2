using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>Mean of one number a row, the last step of every loss: in double on the CPU, in one group on ILGPU devices; 0 for no rows.</summary>
[Kernel]
internal static class RowMean
{
    /// <summary>The mean of <paramref name="x"/>.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [n].</param>
    /// <returns>F32 [].</returns>
    internal static unsafe Tensor Of(TensorScope scope, Tensor x)
    {
        var y = scope.New([]);
        if (scope.Device is GpuDevice device)
        {
            device.Launch(GpuKernel, (1, device.GroupSize), x.View<float>(), y.View<float>());
            return y;
        }

        var p = x.F32;
        var sum = 0.0;
        for (long i = 0; i < x.Count; i++) sum += p[i];
        *y.F32 = x.Count == 0 ? 0 : (float)(sum / x.Count);
        return y;
    }

    internal static double[] Reference(double[] x) => [x.Length == 0 ? 0 : x.Average()];

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var n in new[] { 0, 1, 17, 100 })
            yield return new KernelCase($"{n} rows", [new([n])], (scope, t) => [Of(scope, t[0])], x => [Reference(x[0])]);
    }

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> x, ArrayView<float> y)
    {
        var shared = SharedMemory.Allocate<float>(GroupScan.Room);
        var part = 0f;
        for (var i = (long)Group.IdxX; i < x.Length; i += Group.DimX) part += x[i];
        var sum = GpuMath.GroupSum(part, shared);
        if (Group.IdxX == 0) y[0] = x.Length == 0 ? 0f : sum / x.Length;
    }
}
