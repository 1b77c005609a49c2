using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// BatchTopK's selection: of all activations of a batch the given number of largest ones, wherever they are; only
/// positive ones (a NaN is larger than every number), ties to the lower row, then to the lower feature. The limit is
/// found by radix, 8 bits at a time; O(nnz). The gradient of a kept value is its own, that of the others 0.
/// </summary>
[Kernel]
public static partial class LargestOfBatch
{
    private const int PieceRows = 64;

    /// <summary>Keeps the largest activations.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="f">Activations [n, d_sae].</param>
    /// <param name="count">How many, at least 0; fewer are kept if fewer are positive.</param>
    /// <returns>Activations [n, d_sae], all positive; differentiable in the values.</returns>
    /// <exception cref="InvalidInputException"><paramref name="count"/> is negative.</exception>
    public static SparseFeatures Of(TensorScope scope, SparseFeatures f, long count)
    {
        ArgumentNullException.ThrowIfNull(f);
        if (count < 0) throw new InvalidInputException($"batch top-k: {count} activations cannot be kept");
        var offsets = scope.Zeros([f.Rows + 1], DType.I32);
        var (indices, values, sources) = f.EntryCount == 0 ? (scope.New([0], DType.I32), scope.New([0]), scope.New([0], DType.I32))
            : scope.Device is CpuDevice cpu ? Cpu(scope, cpu, f, count, offsets)
            : Gpu(scope, (GpuDevice)scope.Device, f, count, offsets);
        var y = new SparseFeatures(f.Columns, offsets, indices, values);
        scope.Recorder?.Record(values, [f.Values], dy =>
        {
            var dv = scope.Zeros([f.EntryCount]);
            if (y.EntryCount == 0) return [dv];
            if (scope.Device is CpuDevice device) CpuScatter(device, sources, dy, dv);
            else GpuScatter((GpuDevice)scope.Device, sources, dy, dv);
            return [dv];
        });
        return y;
    }

    /// <summary>The positive activations.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="f">Activations [n, d_sae].</param>
    internal static SparseFeatures Positive(TensorScope scope, SparseFeatures f) => Of(scope, f, f.EntryCount);

    /// <summary>The dense activations that are kept.</summary>
    internal static double[] Reference(SparseCase f, double[] values, long count)
    {
        var order = Enumerable.Range(0, f.Count).Where(e => !(values[e] <= 0))
            .OrderByDescending(e => double.IsNaN(values[e]) ? double.PositiveInfinity : values[e]).ThenByDescending(e => double.IsNaN(values[e])).ThenBy(e => e);
        var kept = new double[f.Count];
        foreach (var e in order.Take((int)Math.Min(count, int.MaxValue))) kept[e] = values[e];
        return f.Dense(kept);
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        (SparseCase F, long Count)[] cases =
        [
            (SparseCase.Random(0, 3, 0), 2), (SparseCase.Random(2, 3, 0), 2), (SparseCase.Random(1, 1, 1), 1), (SparseCase.Random(7, 11, 0.5), 9),
            (SparseCase.Random(7, 11, 0.5), 1000), (SparseCase.Random(7, 11, 0.5), 0), (SparseCase.Random(90, 30, 0.3), 200),
        ];
        foreach (var (f, count) in cases)
        {
            yield return new KernelCase($"{count} of [{f.Rows}, {f.Columns}]", [f.OffsetsInput, f.IndicesInput, new([f.Count], Differentiable: true)],
                (scope, t) => [DenseFeatures.Of(scope, Of(scope, f.Of(t[0], t[1], t[2]), count))], x => [Reference(f, x[2], count)]);
        }

        var ties = SparseCase.Random(9, 12, 0.6);
        yield return new KernelCase("ties, zeros and negative ones",
            [ties.OffsetsInput, ties.IndicesInput, new([ties.Count], Fill.Given, Values: [.. Enumerable.Range(0, ties.Count).Select(i => (double)((i % 4) - 1))])],
            (scope, t) => [DenseFeatures.Of(scope, Of(scope, ties.Of(t[0], t[1], t[2]), 21))], x => [Reference(ties, x[2], 21)]);
        yield return new KernelCase("NaN and infinity",
            [
                new([3], Fill.Given, Values: [0, 3, 5], Type: DType.I32), new([5], Fill.Given, Values: [0, 1, 2, 0, 3], Type: DType.I32),
                new([5], Fill.Given, Values: [1, double.PositiveInfinity, -1, double.NaN, 7]),
            ],
            (scope, t) =>
            {
                var f = Of(scope, new SparseFeatures(4, t[0], t[1], t[2]), 2);
                return [f.RowOffsets, f.Indices, f.Values];
            },
            _ => [[0, 1, 2], [1, 0], [double.PositiveInfinity, double.NaN]]);
    }

    /// <summary>Order-preserving key: 0 for what is not positive, the bits otherwise; NaN is above infinity.</summary>
    private static uint Key(float value) => value <= 0 ? 0 : BitConverter.SingleToUInt32Bits(value);

    private static unsafe (Tensor Indices, Tensor Values, Tensor Sources) Cpu(
        TensorScope scope, CpuDevice device, SparseFeatures f, long count, Tensor offsets)
    {
        int* start = f.RowOffsets.I32, index = f.Indices.I32, to = offsets.I32;
        var v = f.Values.F32;
        var (limit, ties) = CpuLimit(device, v, f.EntryCount, count);
        var n = f.Rows;

        // Of the entries that equal the limit the first ones are kept: how many come before each row.
        var before = scope.New([n + 1], DType.I32);
        var tiesBefore = before.I32;
        tiesBefore[0] = 0;
        device.Pool.ForRange(n, PieceRows, (from, end) =>
        {
            for (var r = from; r < end; r++)
            {
                int above = 0, equal = 0;
                for (var e = start[r]; e < start[r + 1]; e++)
                {
                    var key = Key(v[e]);
                    above += key > limit ? 1 : 0;
                    equal += key == limit ? 1 : 0;
                }

                to[r + 1] = above;
                tiesBefore[r + 1] = equal;
            }
        });
        for (var r = 0; r < n; r++)
        {
            var free = Math.Max(0, ties - tiesBefore[r]);
            to[r + 1] += to[r] + Math.Min(tiesBefore[r + 1], free);
            tiesBefore[r + 1] += tiesBefore[r];
        }

        var indices = scope.New([to[n]], DType.I32);
        var values = scope.New([to[n]]);
        var sources = scope.New([to[n]], DType.I32);
        int* pi = indices.I32, ps = sources.I32;
        var pv = values.F32;
        device.Pool.ForRange(n, PieceRows, (from, end) =>
        {
            for (var r = from; r < end; r++)
            {
                var at = to[r];
                var free = ties - tiesBefore[r];
                for (var e = start[r]; e < start[r + 1]; e++)
                {
                    var key = Key(v[e]);
                    if (key < limit || (key == limit && free-- <= 0)) continue;
                    pi[at] = index[e];
                    pv[at] = v[e];
                    ps[at++] = e;
                }
            }
        });
        scope.Release(before);
        return (indices, values, sources);
    }

    /// <summary>The key of the count-th largest entry, and how many of the entries that have it are kept.</summary>
    private static unsafe (uint Limit, int Ties) CpuLimit(CpuDevice device, float* v, int entries, long count)
    {
        if (count == 0) return (uint.MaxValue, 0);
        // A thread counts for itself; sums of integers do not depend on who counted what.
        var all = new int[device.Threads][];
        for (var t = 0; t < all.Length; t++) all[t] = new int[256];
        const int piece = 1 << 14;
        var key = 0u;
        var wanted = (int)Math.Min(count, entries);
        for (var shift = 24; shift >= 0; shift -= 8)
        {
            var mask = shift == 24 ? 0u : 0xFFFFFFFFu << (shift + 8);
            var prefix = key;
            var s = shift;
            foreach (var t in all) Array.Clear(t);
            device.Pool.For((entries + piece - 1) / piece, (p, thread) =>
            {
                var mine = all[thread];
                var end = Math.Min(entries, (p + 1) * piece);
                for (var e = p * piece; e < end; e++)
                {
                    var k = Key(v[e]);
                    if ((k & mask) == prefix) mine[(k >> s) & 255]++;
                }
            });
            var digit = 255;
            for (; digit > 0; digit--)
            {
                var here = all.Sum(t => t[digit]);
                if (wanted <= here) break;
                wanted -= here;
            }

            key |= (uint)digit << shift;
        }

        // A limit of 0 means that fewer are positive than were asked for, and none of the rest is kept.
        return key == 0 ? (0, 0) : (key, wanted);
    }

    private static unsafe void CpuScatter(CpuDevice device, Tensor sources, Tensor dy, Tensor dv)
    {
        var ps = sources.I32;
        float* a = dy.F32, b = dv.F32;
        device.Pool.ForRange(sources.Count, 1 << 14, (from, to) =>
        {
            for (var e = from; e < to; e++) b[ps[e]] = a[e];
        });
    }
}
