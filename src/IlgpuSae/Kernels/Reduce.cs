using System.Runtime.Intrinsics;
using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Sum and mean of all elements: pieces of fixed size, then the pieces' sums in order (in double on the CPU). O(n). The
/// mean of nothing is NaN.
/// </summary>
[Kernel]
public static class Reduce
{
    private const int Piece = 1 << 14;

    /// <summary>Elements a thread of a group sums before the group's tree.</summary>
    private const int PerThread = 32;

    /// <summary>Sum of all elements.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32, any shape.</param>
    /// <returns>F32 [].</returns>
    public static Tensor Sum(TensorScope scope, Tensor x) => Scaled(scope, x, 1);

    /// <summary>Mean of all elements.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32, any shape.</param>
    /// <returns>F32 [].</returns>
    public static Tensor Mean(TensorScope scope, Tensor x) => Scaled(scope, x, 1.0 / x.Count);

    internal static double[] Reference(double[] x, double factor) => [x.Sum() * factor];

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var shape in new Shape[] { [1], [], [3, 5], [17, 41], [3, 70001] })
        {
            var small = shape.Count < 1000;
            yield return new KernelCase($"sum {shape}", [new(shape, Differentiable: small)],
                (scope, t) => [Sum(scope, t[0])], x => [Reference(x[0], 1)])
            { OnIlgpuCpu = small };
            yield return new KernelCase($"mean {shape}", [new(shape, Differentiable: small)],
                (scope, t) => [Mean(scope, t[0])], x => [Reference(x[0], 1.0 / x[0].Length)])
            { OnIlgpuCpu = small };
        }

        yield return new KernelCase("nothing", [new([0])], (scope, t) => [Sum(scope, t[0]), Mean(scope, t[0])], _ => [[0], [double.NaN]]);
    }

    private static Tensor Scaled(TensorScope scope, Tensor x, double factor)
    {
        var y = scope.New([]);
        if (scope.Device is CpuDevice cpu) Cpu(cpu, x, y, factor);
        else Gpu((GpuDevice)scope.Device, x, y, (float)factor);
        scope.Recorder?.Record(y, [x], dy =>
        {
            var dx = scope.New(x.Shape);
            if (scope.Device is CpuDevice c) CpuFill(c, dy, dx, (float)factor);
            else GpuFill((GpuDevice)scope.Device, dy, dx, (float)factor);
            return [dx];
        });
        return y;
    }

    private static unsafe void Cpu(CpuDevice device, Tensor x, Tensor y, double factor)
    {
        var px = x.F32;
        var sums = new double[(x.Count + Piece - 1) / Piece];
        device.Pool.ForRange(x.Count, Piece, (from, to) => sums[from / Piece] = Lanes.Sum(px + from, to - from));
        double total = 0;
        foreach (var s in sums) total += s;
        *y.F32 = (float)(total * factor);
    }

    private static unsafe void CpuFill(CpuDevice device, Tensor dy, Tensor dx, float factor)
    {
        var p = dx.F32;
        var value = Vector256.Create(*dy.F32 * factor);
        device.Pool.ForRange(dx.Count, Piece, (from, to) =>
        {
            for (var i = from; i < to; i += 8) Lanes.Store(value, p + i, to - i);
        });
    }

    private static void Gpu(GpuDevice device, Tensor x, Tensor y, float factor)
    {
        // The same kernel again over the partial sums until one group is enough.
        var chunk = device.GroupSize * PerThread;
        var scratch = new List<Tensor>();
        var source = x;
        while (true)
        {
            var groups = (int)Math.Max(1, (source.Count + chunk - 1) / chunk);
            var last = groups == 1;
            var target = last ? y : new Tensor(device, [groups]);
            if (!last) scratch.Add(target);
            device.Launch(GpuKernel, (groups, device.GroupSize), source.View<float>(), source.Count, target.View<float>(), last ? factor : 1f);
            if (last) break;
            source = target;
        }

        foreach (var t in scratch) t.Dispose();
    }

    private static void GpuFill(GpuDevice device, Tensor dy, Tensor dx, float factor)
    {
        if (dx.Count == 0) return;
        device.Launch(GpuFillKernel, (device.GridFor(dx.Count), device.GroupSize), dy.View<float>(), dx.View<float>(), factor);
    }

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> x, long n, ArrayView<float> y, float factor)
    {
        var scratch = SharedMemory.Allocate<float>(256);
        var start = (long)Grid.IdxX * Group.DimX * PerThread;
        var sum = 0f;
        for (var k = 0; k < PerThread; k++)
        {
            var i = start + ((long)k * Group.DimX) + Group.IdxX;
            if (i < n) sum += x[i];
        }

        sum = GpuMath.GroupSum(sum, scratch);
        if (Group.IdxX == 0) y[Grid.IdxX] = sum * factor;
    }

    [GpuKernel]
    private static void GpuFillKernel(ArrayView<float> dy, ArrayView<float> dx, float factor)
    {
        var value = dy[0] * factor;
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < dx.Length; i += step) dx[i] = value;
    }
}
