using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// The Euclidean norm of all gradients together, for clipping: chunks of 16384 elements are summed in a fixed order and
/// the chunks in double, so the bits depend neither on threads nor on repeats. One read of the gradients.
/// </summary>
[Kernel]
public static class GradientNorm
{
    private const int Chunk = 1 << 14;

    /// <summary>sqrt of the sum of squares of every element of every tensor. Waits for the device.</summary>
    /// <param name="scope">Owns the scratch memory.</param>
    /// <param name="gradients">F32 tensors of any shapes.</param>
    /// <returns>The norm; NaN or infinite when a gradient is.</returns>
    public static float L2(TensorScope scope, IReadOnlyList<Tensor> gradients)
    {
        ArgumentNullException.ThrowIfNull(gradients);
        var chunks = checked((int)gradients.Sum(g => (g.Count + Chunk - 1) / Chunk));
        var parts = scope.New([chunks]);
        var at = 0;
        foreach (var g in gradients)
        {
            var n = (int)((g.Count + Chunk - 1) / Chunk);
            if (n == 0) continue;
            if (scope.Device is CpuDevice cpu) Cpu(cpu, g, parts, at);
            else Gpu((GpuDevice)scope.Device, g, parts, at, n);
            at += n;
        }

        var sum = 0.0;
        foreach (var part in parts.ToArray<float>()) sum += part;
        scope.Release(parts);
        return (float)Math.Sqrt(sum);
    }

    internal static double[] Reference(double[][] gradients) => [Math.Sqrt(gradients.Sum(g => g.Sum(v => v * v)))];

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var sizes in new int[][] { [0], [1], [7, 0, 33], [40000, 5] })
        {
            yield return new KernelCase(string.Join(" + ", sizes), [.. sizes.Select(n => new KernelInput([n]))],
                (scope, t) => [scope.From<float>([L2(scope, t)], [])],
                x => [Reference(x)])
            { OnIlgpuCpu = sizes.Sum() < 1000 };
        }
    }

    private static unsafe void Cpu(CpuDevice device, Tensor g, Tensor parts, int at)
    {
        float* pg = g.F32, pp = parts.F32 + at;
        device.Pool.ForRange(g.Count, Chunk, (from, to) => pp[from / Chunk] = RowMath.Dot(pg + from, pg + from, (int)(to - from)));
    }

    private static void Gpu(GpuDevice device, Tensor g, Tensor parts, int at, int chunks) =>
        device.Launch(GpuKernel, (device.IsCuda ? chunks : Math.Min(chunks, 2), device.GroupSize), g.View<float>(), parts.View<float>(), at, chunks, Chunk);

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> g, ArrayView<float> parts, int at, int chunks, int chunk)
    {
        var shared = SharedMemory.Allocate<float>(GroupScan.Room);
        for (var c = Grid.IdxX; c < chunks; c += Grid.DimX)
        {
            var end = IntrinsicMath.Min(g.Length, ((long)c + 1) * chunk);
            var part = 0f;
            for (var i = ((long)c * chunk) + Group.IdxX; i < end; i += Group.DimX) part += g[i] * g[i];
            var sum = GpuMath.GroupSum(part, shared);
            if (Group.IdxX == 0) parts[at + c] = sum;
        }
    }
}
