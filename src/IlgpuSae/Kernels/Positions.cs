using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Ranges along the position axis (the second) of tensors [b, pos, ...]: copied out, or written into a cache of keys and
/// values. O(size of the range).
/// </summary>
[Kernel]
public static class Positions
{
    /// <summary>Positions <paramref name="start"/> .. start + count of every batch entry, as a new tensor.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [b, pos, ...].</param>
    /// <param name="start">First position.</param>
    /// <param name="count">Number of positions.</param>
    /// <returns>F32 [b, count, ...].</returns>
    /// <exception cref="ShapeException">The range does not lie in the position axis.</exception>
    public static Tensor Slice(TensorScope scope, Tensor x, int start, int count)
    {
        Check("slice of positions", x, start, count);
        var dims = x.Shape.Dims.ToArray();
        dims[1] = count;
        var y = scope.New(Shape.Create(dims));
        Copy(x, start, y, 0, count);
        scope.Recorder?.Record(y, [x], dy =>
        {
            var dx = scope.Zeros(x.Shape);
            Copy(dy, 0, dx, start, count);
            return [dx];
        });
        return y;
    }

    /// <summary>Overwrites positions start .. start + pos of <paramref name="target"/>. Not recorded.</summary>
    /// <param name="target">F32 [b, room, ...]: a cache.</param>
    /// <param name="source">F32 [b, pos, ...]: new entries.</param>
    /// <param name="start">First position written.</param>
    /// <exception cref="ShapeException">The shapes differ elsewhere, or the range does not lie in the target.</exception>
    public static void Write(Tensor target, Tensor source, int start)
    {
        Check("write of positions", source, 0, 0);
        Check("write of positions", target, start, source.Shape[1]);
        var dims = source.Shape.Dims.ToArray();
        dims[1] = target.Shape[1];
        if (!target.Shape.Dims.SequenceEqual(dims)) throw new ShapeException($"write of positions: {source.Shape} does not fit into {target.Shape}");
        Copy(source, 0, target, start, source.Shape[1]);
    }

    internal static double[] Reference(double[] x, Shape shape, int start, int count)
    {
        var inner = (int)(shape.Count / Math.Max(1, (long)shape[0] * shape[1]));
        var y = new List<double>();
        for (var b = 0; b < shape[0]; b++) y.AddRange(x.AsSpan(((b * shape[1]) + start) * inner, count * inner));
        return [.. y];
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var (shape, start, count) in new (Shape, int, int)[]
        {
            ([0, 4, 2], 1, 2), ([2, 1], 0, 1), ([2, 5, 3], 2, 2), ([3, 4, 2, 5], 0, 4), ([2, 3, 7], 1, 0), ([3, 40, 65], 7, 30),
        })
        {
            var small = shape.Count < 1000;
            yield return new KernelCase($"{start}..{start + count} of {shape}", [new(shape, Differentiable: small)],
                (scope, t) => [Slice(scope, t[0], start, count)], x => [Reference(x[0], shape, start, count)])
            { OnIlgpuCpu = small };
            yield return new KernelCase($"{start}..{start + count} of {shape} written", [new(shape)],
                (scope, t) =>
                {
                    var cache = scope.Zeros(shape);
                    Write(cache, Slice(scope, t[0], start, count), start);
                    return [Slice(scope, cache, start, count)];
                },
                x => [Reference(x[0], shape, start, count)])
            { OnIlgpuCpu = small };
        }
    }

    private static void Check(string what, Tensor x, int start, int count)
    {
        if (x.Shape.Rank < 2 || start < 0 || count < 0 || start > x.Shape[1] - count)
            throw new ShapeException($"{what}: positions {start}..{(long)start + count} do not lie in {x.Shape}");
    }

    private static void Copy(Tensor source, int sourceStart, Tensor target, int targetStart, int count)
    {
        long batch = source.Shape[0];
        if (batch == 0 || count == 0) return;
        long perSource = source.Count / batch, perTarget = target.Count / batch;
        var inner = perSource / source.Shape[1];
        if (source.Device is CpuDevice cpu) Cpu(cpu, source, sourceStart * inner, perSource, target, targetStart * inner, perTarget, batch, count * inner);
        else Gpu((GpuDevice)source.Device, source, sourceStart * inner, perSource, target, targetStart * inner, perTarget, batch, count * inner);
    }

    private static unsafe void Cpu(
        CpuDevice device, Tensor source, long sourceStart, long perSource, Tensor target, long targetStart, long perTarget, long batch, long length)
    {
        float* ps = source.F32 + sourceStart, pt = target.F32 + targetStart;
        Lanes.ForRows(device, batch, length, b =>
            Buffer.MemoryCopy(ps + (b * perSource), pt + (b * perTarget), length * sizeof(float), length * sizeof(float)));
    }

    private static void Gpu(
        GpuDevice device, Tensor source, long sourceStart, long perSource, Tensor target, long targetStart, long perTarget, long batch, long length)
    {
        if (length == 0) return;
        device.Launch(GpuKernel, (device.GridFor(batch * length), device.GroupSize), source.View<float>(), sourceStart, perSource,
            target.View<float>(), targetStart, perTarget, batch, length);
    }

    [GpuKernel]
    private static void GpuKernel(
        ArrayView<float> source, long sourceStart, long perSource, ArrayView<float> target, long targetStart, long perTarget, long batch, long length)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < batch * length; i += step)
        {
            var b = i / length;
            var c = i - (b * length);
            target[targetStart + (b * perTarget) + c] = source[sourceStart + (b * perSource) + c];
        }
    }
}
