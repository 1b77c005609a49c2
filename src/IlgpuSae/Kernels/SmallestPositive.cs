using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// The smallest positive number of a tensor, infinity if there is none; NaN is passed over. BatchTopK's threshold follows
/// it. O(n), one group on ILGPU devices. Not differentiable.
/// </summary>
[Kernel]
internal static class SmallestPositive
{
    private const int Piece = 1 << 14;

    /// <summary>min of the elements above 0.</summary>
    /// <param name="scope">Lends the result's memory.</param>
    /// <param name="x">F32, any shape.</param>
    /// <returns>F32 [].</returns>
    internal static unsafe Tensor Of(TensorScope scope, Tensor x)
    {
        var y = scope.New([]);
        if (scope.Device is GpuDevice gpu)
        {
            gpu.Launch(GpuKernel, (1, gpu.GroupSize), x.View<float>(), y.View<float>());
            return y;
        }

        var p = x.F32;
        var parts = new float[(x.Count + Piece - 1) / Piece];
        ((CpuDevice)scope.Device).Pool.ForRange(x.Count, Piece, (from, to) =>
        {
            var least = float.PositiveInfinity;
            for (var i = from; i < to; i++)
                if (p[i] > 0 && p[i] < least) least = p[i];
            parts[from / Piece] = least;
        });
        *y.F32 = parts.Length == 0 ? float.PositiveInfinity : parts.Min();
        return y;
    }

    internal static double[] Reference(double[] x) => [x.Where(v => v > 0).DefaultIfEmpty(double.PositiveInfinity).Min()];

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var n in new[] { 0, 1, 17, 100 })
            yield return new KernelCase($"{n} numbers", [new([n])], (scope, t) => [Of(scope, t[0])], x => [Reference(x[0])]);
        yield return new KernelCase("none positive, NaN", [new([4], Fill.Given, Values: [-1, 0, double.NaN, double.NegativeInfinity])],
            (scope, t) => [Of(scope, t[0])], x => [Reference(x[0])]);
        yield return new KernelCase("many", [new([50001])], (scope, t) => [Of(scope, t[0])], x => [Reference(x[0])]) { OnIlgpuCpu = false };
    }

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> x, ArrayView<float> y)
    {
        var shared = SharedMemory.Allocate<float>(GroupScan.Room);
        var least = float.PositiveInfinity;
        for (var i = (long)Group.IdxX; i < x.Length; i += Group.DimX)
            if (x[i] > 0f && x[i] < least) least = x[i];
        var largest = GpuMath.GroupMax(-least, shared);
        if (Group.IdxX == 0) y[0] = -largest;
    }
}
