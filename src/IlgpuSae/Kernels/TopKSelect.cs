using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// The k largest elements of each row, ties to the lower index, NaN above every number. The CPU reads a row once, keeps
/// candidates above a running threshold and reduces them by quickselect; ILGPU devices find the k-th key by radix.
/// O(n m). The gradient of the dense matrix is that of the value where one is kept, 0 elsewhere.
/// </summary>
[Kernel]
public static partial class TopKSelect
{
    /// <summary>Keeps the k largest elements of each row.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="dense">F32 [n, m].</param>
    /// <param name="k">How many, 1..m.</param>
    /// <param name="relu">Of those, store only the positive ones; without it exactly k a row are stored, raw.</param>
    /// <returns>Sparse features [n, m]; differentiable in <paramref name="dense"/>.</returns>
    /// <exception cref="ShapeException"><paramref name="dense"/> is not a matrix.</exception>
    /// <exception cref="InvalidInputException"><paramref name="k"/> is not between 1 and m.</exception>
    public static SparseFeatures Rows(TensorScope scope, Tensor dense, int k, bool relu) =>
        Rows(scope, dense, k, relu ? Ranking.Positive : Ranking.Value);

    /// <summary>Keeps the k elements of largest magnitude of each row, with their signs; zeros are not stored.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="dense">F32 [n, m].</param>
    /// <param name="k">How many, 1..m.</param>
    /// <returns>Sparse features [n, m]; differentiable in <paramref name="dense"/>.</returns>
    /// <exception cref="ShapeException"><paramref name="dense"/> is not a matrix.</exception>
    /// <exception cref="InvalidInputException"><paramref name="k"/> is not between 1 and m.</exception>
    public static SparseFeatures RowsByMagnitude(TensorScope scope, Tensor dense, int k) => Rows(scope, dense, k, Ranking.Magnitude);

    private static SparseFeatures Rows(TensorScope scope, Tensor dense, int k, Ranking ranking)
    {
        if (dense.Shape.Rank != 2) throw new ShapeException($"top-k: {dense.Shape} is not a matrix [n, m]");
        CheckK(k, dense.Shape[1]);
        var f = scope.Device is CpuDevice cpu ? Cpu(scope, cpu, dense, k, ranking) : Gpu(scope, (GpuDevice)scope.Device, dense, k, ranking);
        scope.Recorder?.Record(f.Values, [dense], dv => [SparseFromDense.Scatter(scope, f, dv)]);
        return f;
    }

    internal static void CheckK(int k, int columns)
    {
        if (k < 1 || k > columns)
            throw new InvalidInputException($"top-k: k = {k} is not between 1 and the number of features, {columns}");
    }

    /// <summary>The dense matrix with everything but the kept elements set to zero.</summary>
    internal static double[] Reference(double[] dense, int rows, int columns, int k, Ranking ranking)
    {
        var y = new double[dense.Length];
        for (var r = 0; r < rows; r++)
        {
            var at = r * columns;
            var order = Enumerable.Range(0, columns)
                .OrderByDescending(c => double.IsNaN(dense[at + c]) ? double.PositiveInfinity : ranking == Ranking.Magnitude ? Math.Abs(dense[at + c]) : dense[at + c])
                .ThenByDescending(c => double.IsNaN(dense[at + c])).ThenBy(c => c);
            foreach (var c in order.Take(k)) y[at + c] = ranking == Ranking.Positive && dense[at + c] <= 0 ? 0 : dense[at + c];
        }

        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var ranking in Enum.GetValues<Ranking>())
        {
            foreach (var (n, m, k) in new[] { (0, 3, 1), (1, 1, 1), (5, 37, 4), (3, 20, 20), (4, 70, 30) })
            {
                yield return new KernelCase($"{k} of [{n}, {m}], by {ranking}", [new([n, m], Differentiable: true)],
                    (scope, t) => [DenseFeatures.Of(scope, Rows(scope, t[0], k, ranking))],
                    x => [Reference(x[0], n, m, k, ranking)]);
            }

            yield return new KernelCase($"ties, by {ranking}", [new([6, 40], Fill.Index, Limit: 3)],
                (scope, t) => [DenseFeatures.Of(scope, Rows(scope, t[0], 25, ranking))],
                x => [Reference(x[0], 6, 40, 25, ranking)]);
            yield return new KernelCase($"NaN and infinities, by {ranking}",
                [new([1, 6], Fill.Given, Values: [1, double.NegativeInfinity, double.NaN, -1, double.PositiveInfinity, 1])],
                (scope, t) => [Rows(scope, t[0], 3, ranking).Indices, Rows(scope, t[0], 3, ranking).Values],
                _ => ranking == Ranking.Magnitude
                    ? [[1, 2, 4], [double.NegativeInfinity, double.NaN, double.PositiveInfinity]]
                    : [[0, 2, 4], [1, double.NaN, double.PositiveInfinity]]);
            yield return new KernelCase($"more candidates than the buffer holds, by {ranking}", [new([3, 5000])],
                (scope, t) => [DenseFeatures.Of(scope, Rows(scope, t[0], 200, ranking))],
                x => [Reference(x[0], 3, 5000, 200, ranking)])
            { OnIlgpuCpu = false };
        }
    }

    /// <summary>Candidates kept a row before they are reduced to k.</summary>
    internal static int Capacity(int k) => k <= 32 ? Math.Max(24, 4 * k) : Math.Max(128, checked(2 * k));

    private static unsafe SparseFeatures Cpu(TensorScope scope, CpuDevice device, Tensor dense, int k, Ranking ranking)
    {
        int n = dense.Shape[0], m = dense.Shape[1];
        var capacity = Math.Min(m, Capacity(k));
        var scratch = scope.New([device.Threads, capacity * 2]);
        var counts = scope.New([n], DType.I32);
        var indices = scope.New([n, k], DType.I32);
        var values = scope.New([n, k]);
        int* count = counts.I32, pi = indices.I32;
        float* x = dense.F32, pv = values.F32;
        var keys = (ulong*)scratch.F32;
        device.Pool.For(n, (r, thread) =>
        {
            var mine = keys + ((long)thread * capacity);
            var found = ranking == Ranking.Magnitude
                ? SelectMagnitudes(x + ((long)r * m), m, k, mine, capacity)
                : SelectRow(x + ((long)r * m), m, k, ranking == Ranking.Positive, mine, capacity);
            int* toIndices = pi + ((long)r * k);
            var toValues = pv + ((long)r * k);
            count[r] = ranking == Ranking.Magnitude
                ? TopKKey.WriteSigned(mine, found, toIndices, toValues)
                : TopKKey.Write(mine, found, ranking == Ranking.Positive, toIndices, toValues);
        });
        scope.Release(scratch);
        return Compact(scope, device, m, k, counts, indices, values);
    }

    /// <summary>Leaves the keys of the k largest (or of all candidates above 0, if fewer) in the first places.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static unsafe int SelectRow(float* x, int m, int k, bool relu, ulong* keys, int capacity)
    {
        int count = 0, c = 0;
        var threshold = 0f;
        if (!relu)
        {
            // Any number may be among the k: the first ones are taken as they come, then there is a threshold.
            for (; c < capacity; c++) keys[count++] = TopKKey.Of(x[c], c);
            threshold = TopKKey.Value(TopKKey.Select(keys, count, k));
            count = k;
        }

        var limit = Vector256.Create(threshold);
        for (; c < m; c += 8)
        {
            // What is not below or equal passes: so does NaN.
            uint mask;
            if (c + 8 <= m)
            {
                mask = ~Vector256.ExtractMostSignificantBits(Vector256.LessThanOrEqual(Vector256.Load(x + c), limit)) & 0xFF;
            }
            else
            {
                mask = 0;
                for (var i = c; i < m; i++) mask |= x[i] <= threshold ? 0 : 1u << (i - c);
            }

            for (; mask != 0; mask &= mask - 1)
            {
                if (count == capacity)
                {
                    threshold = TopKKey.Value(TopKKey.Select(keys, count, k));
                    limit = Vector256.Create(threshold);
                    count = k;
                }

                var i = c + BitOperations.TrailingZeroCount(mask);
                keys[count++] = TopKKey.Of(x[i], i);
            }
        }

        if (count <= k) return count;
        TopKKey.Select(keys, count, k);
        return k;
    }

    /// <summary>The same by magnitude, of what is not zero.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static unsafe int SelectMagnitudes(float* x, int m, int k, ulong* keys, int capacity)
    {
        var count = 0;
        var threshold = 0f;
        for (var c = 0; c < m; c++)
        {
            if (MathF.Abs(x[c]) <= threshold) continue;
            if (count == capacity)
            {
                threshold = TopKKey.Value(TopKKey.Select(keys, count, k));
                count = k;
            }

            keys[count++] = TopKKey.OfMagnitude(x[c], c);
        }

        if (count <= k) return count;
        TopKKey.Select(keys, count, k);
        return k;
    }

    /// <summary>Compressed rows out of rows of room for k entries each, of which counts[r] are used.</summary>
    internal static unsafe SparseFeatures Compact(
        TensorScope scope, CpuDevice device, int columns, int k, Tensor counts, Tensor indices, Tensor values)
    {
        var n = checked((int)counts.Count);
        var offsets = scope.New([n + 1], DType.I32);
        int* start = offsets.I32, count = counts.I32;
        start[0] = 0;
        for (var r = 0; r < n; r++) start[r + 1] = checked(start[r] + count[r]);
        var total = start[n];
        if (total == (long)n * k)
        {
            // The usual case: every row is full and already in place.
            return new SparseFeatures(columns, offsets, scope.Own(indices.Reshape([total])), scope.Own(values.Reshape([total])));
        }

        var packedIndices = scope.New([total], DType.I32);
        var packedValues = scope.New([total]);
        int* fromIndices = indices.I32, toIndices = packedIndices.I32;
        float* fromValues = values.F32, toValues = packedValues.F32;
        device.Pool.ForRange(n, 64, (from, to) =>
        {
            for (var r = from; r < to; r++)
            {
                var bytes = count[r] * 4L;
                Buffer.MemoryCopy(fromIndices + (r * k), toIndices + start[r], bytes, bytes);
                Buffer.MemoryCopy(fromValues + (r * k), toValues + start[r], bytes, bytes);
            }
        });
        scope.Release(indices);
        scope.Release(values);
        return new SparseFeatures(columns, offsets, packedIndices, packedValues);
    }
}

/// <summary>By what <see cref="TopKSelect"/> ranks the elements of a row.</summary>
internal enum Ranking
{
    /// <summary>By value; the k largest are stored as they are.</summary>
    Value,

    /// <summary>By value; of the k largest those that are positive are stored.</summary>
    Positive,

    /// <summary>By magnitude; of the k largest those that are not zero are stored, with their signs.</summary>
    Magnitude,
}
