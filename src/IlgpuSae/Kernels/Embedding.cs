using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Rows of a table by index: y[i, :] = table[ids[i], :]; an index outside the table gives zeros (callers check ids and
/// say which text is wrong). Tables of 16 bits are widened exactly. O(n d). The gradient sorts tokens by id (counting sort, stable) and adds each id's rows in
/// token order.
/// </summary>
[Kernel]
public static class Embedding
{
    /// <summary>y[i, :] = table[ids[i], :].</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="table">F32, BF16 or F16, [v, d].</param>
    /// <param name="ids">I32 [...], each 0 .. v-1.</param>
    /// <returns>F32 [..., d].</returns>
    /// <exception cref="ShapeException">The table has not two axes or another type, or the ids are not I32.</exception>
    public static Tensor Gather(TensorScope scope, Tensor table, Tensor ids)
    {
        if (table.Shape.Rank != 2) throw new ShapeException($"embedding: the table is {table.Shape}, expected [v, d]");
        if (ids.Type != DType.I32) throw new ShapeException($"embedding: ids are {ids.Type} {ids.Shape}, expected I32");
        if (table.Type is not (DType.F32 or DType.BF16 or DType.F16)) throw new ShapeException($"embedding: the table is {table.Type} {table.Shape}; give F32, BF16 or F16");
        var y = scope.New(Shape.Create([.. ids.Shape.Dims, table.Shape[1]]));
        if (table.Type != DType.F32) Widen(scope.Device, table, ids, y);
        else if (scope.Device is CpuDevice cpu) Cpu(cpu, table, ids, y);
        else Gpu((GpuDevice)scope.Device, table, ids, y);
        scope.Recorder?.Record(y, [table], dy => [Backward(scope, table.Shape, ids, dy)]);
        return y;
    }

    internal static double[] Reference(double[] table, double[] ids, int v, int d)
    {
        var y = new double[ids.Length * d];
        for (var i = 0; i < ids.Length; i++)
            if (ids[i] >= 0 && ids[i] < v) Array.Copy(table, (int)ids[i] * d, y, i * d, d);
        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var (v, d, ids) in new (int, int, Shape)[] { (3, 4, [0]), (1, 1, [1]), (5, 7, [2, 3]), (4, 20, [3, 9]), (300, 65, [700]) })
        {
            var small = v < 100;
            yield return new KernelCase($"{ids} of [{v}, {d}]", [new([v, d], Differentiable: small), new(ids, Fill.Index, Limit: v, Type: DType.I32)],
                (scope, t) => [Gather(scope, t[0], t[1])], x => [Reference(x[0], x[1], v, d)])
            { OnIlgpuCpu = small };
        }

        yield return new KernelCase("ids outside the table", [new([2, 3], Differentiable: true), new([4], Fill.Given, Values: [1, -1, 2, 1], Type: DType.I32)],
            (scope, t) => [Gather(scope, t[0], t[1])], x => [Reference(x[0], x[1], 2, 3)]);
    }

    private static Tensor Backward(TensorScope scope, Shape shape, Tensor ids, Tensor dy)
    {
        var d = shape[1];
        var dTable = scope.Zeros(shape);
        if (dy.Count == 0) return dTable;
        var (offsets, tokens) = SortById(ids.ToArray<int>(), shape[0]);
        if (scope.Device is CpuDevice cpu)
        {
            CpuBackward(cpu, offsets, tokens, dy, dTable, d);
        }
        else
        {
            var gpu = (GpuDevice)scope.Device;
            if (tokens.Length == 0) return dTable;
            using var o = new Tensor(gpu, [offsets.Length], DType.I32);
            using var t = new Tensor(gpu, [tokens.Length], DType.I32);
            o.CopyFrom<int>(offsets);
            t.CopyFrom<int>(tokens);
            gpu.Launch(GpuBackwardKernel, (gpu.GridFor(dTable.Count), gpu.GroupSize), o.View<int>(), t.View<int>(), dy.View<float>(), dTable.View<float>(), d);
        }

        return dTable;
    }

    /// <summary>Token places ordered by id, ascending within an id; ids outside 0 .. v-1 are left out.</summary>
    private static (int[] Offsets, int[] Tokens) SortById(int[] ids, int v)
    {
        var offsets = new int[v + 1];
        foreach (var id in ids) if ((uint)id < (uint)v) offsets[id + 1]++;
        for (var i = 0; i < v; i++) offsets[i + 1] += offsets[i];
        var next = offsets[..v];
        var tokens = new int[offsets[v]];
        for (var i = 0; i < ids.Length; i++) if ((uint)ids[i] < (uint)v) tokens[next[ids[i]]++] = i;
        return (offsets, tokens);
    }

    private static unsafe void Cpu(CpuDevice device, Tensor table, Tensor ids, Tensor y)
    {
        if (y.Count == 0) return;
        float* pt = table.F32, py = y.F32;
        var pi = ids.I32;
        long v = table.Shape[0], d = table.Shape[1];
        Lanes.ForRows(device, ids.Count, d, r =>
        {
            var target = new Span<float>(py + (r * d), (int)d);
            if ((uint)pi[r] < (uint)v) new ReadOnlySpan<float>(pt + (pi[r] * d), (int)d).CopyTo(target);
            else target.Clear();
        });
    }

    private static void Widen(Device device, Tensor table, Tensor ids, Tensor y)
    {
        if (y.Count == 0) return;
        if (device is CpuDevice cpu)
        {
            CpuWiden(cpu, table, ids, y);
            return;
        }

        var gpu = (GpuDevice)device;
        gpu.Launch(GpuWidenKernel, (gpu.GridFor(y.Count), gpu.GroupSize), table.RawView(), ids.View<int>(), y.View<float>(), table.Shape[0], table.Shape[1], Gemm.Code(table.Type));
    }

    private static unsafe void CpuWiden(CpuDevice device, Tensor table, Tensor ids, Tensor y)
    {
        var pt = (ushort*)table.HostAddress;
        var py = y.F32;
        var pi = ids.I32;
        var bf16 = table.Type == DType.BF16;
        long v = table.Shape[0], d = table.Shape[1];
        Lanes.ForRows(device, ids.Count, d, r =>
        {
            var target = py + (r * d);
            if ((uint)pi[r] >= (uint)v)
            {
                new Span<float>(target, (int)d).Clear();
                return;
            }

            var row = pt + (pi[r] * d);
            for (long i = 0; i < d; i++) target[i] = bf16 ? BitConverter.UInt32BitsToSingle((uint)row[i] << 16) : (float)BitConverter.UInt16BitsToHalf(row[i]);
        });
    }

    [GpuKernel]
    private static void GpuWidenKernel(ArrayView<byte> table, ArrayView<int> ids, ArrayView<float> y, int v, int d, int type)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += step)
        {
            var row = i / d;
            var id = ids[row];
            y[i] = id >= 0 && id < v ? Gemm.Read(table, ((long)id * d) + i - (row * d), type) : 0f;
        }
    }

    private static unsafe void CpuBackward(CpuDevice device, int[] offsets, int[] tokens, Tensor dy, Tensor dTable, long d)
    {
        float* pd = dy.F32, pt = dTable.F32;
        device.Pool.ForRange(offsets.Length - 1, 256, (from, to) =>
        {
            for (var id = from; id < to; id++)
            {
                var sum = pt + (id * d);
                for (var k = offsets[id]; k < offsets[id + 1]; k++)
                {
                    var row = pd + (tokens[k] * d);
                    for (long i = 0; i < d; i += 8) Lanes.Store(Lanes.Load(sum + i, d - i) + Lanes.Load(row + i, d - i), sum + i, d - i);
                }
            }
        });
    }

    private static void Gpu(GpuDevice device, Tensor table, Tensor ids, Tensor y)
    {
        if (y.Count == 0) return;
        device.Launch(GpuKernel, (device.GridFor(y.Count), device.GroupSize), table.View<float>(), ids.View<int>(), y.View<float>(), table.Shape[0], table.Shape[1]);
    }

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> table, ArrayView<int> ids, ArrayView<float> y, int v, int d)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += step)
        {
            var row = i / d;
            var id = ids[row];
            y[i] = id >= 0 && id < v ? table[((long)id * d) + i - (row * d)] : 0f;
        }
    }

    [GpuKernel]
    private static void GpuBackwardKernel(ArrayView<int> offsets, ArrayView<int> tokens, ArrayView<float> dy, ArrayView<float> dTable, int d)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < dTable.Length; i += step)
        {
            var id = i / d;
            var c = i - (id * d);
            var sum = 0f;
            var end = offsets[id + 1];
            for (var k = offsets[id]; k < end; k++) sum += dy[((long)tokens[k] * d) + c];
            dTable[i] = sum;
        }
    }
}
