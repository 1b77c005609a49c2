using System.Runtime.Intrinsics;
using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// A sparsity penalty that saturates: mean over rows of sum tanh(c f_e norm[feature]), Anthropic's loss for JumpReLU.
/// Gradients, with s = 1 - tanh^2: c norm s in f_e, also where a stored f_e is 0, and the sum of c f_e s in the norm.
/// O(nnz). Source: transformer-circuits.pub, January 2025 update.
/// </summary>
[Kernel]
public static class TanhPenalty
{
    private const int PieceRows = 64;

    /// <summary>mean_r sum_e tanh(c f_e norm).</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="f">Activations [n, d_sae].</param>
    /// <param name="norms">F32 [d_sae], the decoder's row norms.</param>
    /// <param name="scale">c, positive.</param>
    /// <returns>F32 []; differentiable in the values and the norms.</returns>
    /// <exception cref="ShapeException"><paramref name="norms"/> does not have d_sae numbers.</exception>
    public static Tensor Mean(TensorScope scope, SparseFeatures f, Tensor norms, float scale)
    {
        ArgumentNullException.ThrowIfNull(f);
        if (norms.Count != f.Columns) throw new ShapeException($"tanh penalty: {norms.Shape} norms for {f.Columns} features");
        var rows = scope.New([f.Rows]);
        if (f.Rows > 0)
        {
            if (scope.Device is CpuDevice cpu) Cpu(cpu, f, norms, scale, rows);
            else Gpu((GpuDevice)scope.Device, f, norms, scale, rows);
        }

        var y = RowMean.Of(scope, rows);
        if (scope.Recorder is { } recorder)
        {
            bool wantValues = recorder.Tracks(f.Values), wantNorms = recorder.Tracks(norms);
            recorder.Record(y, [f.Values, norms], dy =>
            {
                Tensor dValues = scope.New([f.EntryCount]), perEntry = scope.New([f.EntryCount]);
                if (f.EntryCount > 0)
                {
                    if (scope.Device is CpuDevice device) CpuSlopes(device, f, norms, scale, dy, dValues, perEntry);
                    else GpuSlopes((GpuDevice)scope.Device, f, norms, scale, dy, dValues, perEntry);
                }

                return [wantValues ? dValues : null, wantNorms ? SumByFeature.Of(scope, f, perEntry) : null];
            });
        }

        return y;
    }

    internal static double[] Reference(SparseCase f, double[] values, double[] norms, double scale)
    {
        var sum = 0.0;
        for (var e = 0; e < values.Length; e++) sum += Math.Tanh(scale * values[e] * norms[f.Indices[e]]);
        return [f.Rows == 0 ? 0 : sum / f.Rows];
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var f in new[] { SparseCase.Random(0, 3, 0), SparseCase.Random(2, 3, 0), SparseCase.Random(1, 1, 1), SparseCase.Random(19, 23, 0.3) })
        {
            yield return new KernelCase($"[{f.Rows}, {f.Columns}]",
                [f.OffsetsInput, f.IndicesInput, new([f.Count], Differentiable: true), new([f.Columns], Fill.Positive, Differentiable: true)],
                (scope, t) => [Mean(scope, f.Of(t[0], t[1], t[2]), t[3], 1.5f)],
                x => [Reference(f, x[2], x[3], 1.5f)]);
        }
    }

    /// <summary>c f norm of up to eight entries from e on; 0 beyond the end.</summary>
    private static unsafe Vector256<float> Arguments(float* values, float* norms, int* indices, float scale, int e, int end, float* lanes)
    {
        for (var i = 0; i < 8; i++) lanes[i] = e + i < end ? norms[indices[e + i]] : 0;
        return Lanes.Load(values + e, end - e) * Vector256.Load(lanes) * Vector256.Create(scale);
    }

    private static unsafe void Cpu(CpuDevice device, SparseFeatures f, Tensor norms, float scale, Tensor rows)
    {
        int* offsets = f.RowOffsets.I32, indices = f.Indices.I32;
        float* v = f.Values.F32, w = norms.F32, py = rows.F32;
        device.Pool.ForRange(f.Rows, PieceRows, (from, to) =>
        {
            var lanes = stackalloc float[8];
            for (var r = from; r < to; r++)
            {
                var sum = 0.0;
                for (var e = offsets[r]; e < offsets[r + 1]; e += 8)
                    sum += Vector256.Sum(CpuMath.Tanh(Arguments(v, w, indices, scale, e, offsets[r + 1], lanes)));
                py[r] = (float)sum;
            }
        });
    }

    private static unsafe void CpuSlopes(CpuDevice device, SparseFeatures f, Tensor norms, float scale, Tensor dy, Tensor dValues, Tensor perEntry)
    {
        int* offsets = f.RowOffsets.I32, indices = f.Indices.I32;
        float* v = f.Values.F32, w = norms.F32, pv = dValues.F32, pe = perEntry.F32;
        var factor = Vector256.Create(*dy.F32 / f.Rows * scale);
        device.Pool.ForRange(f.Rows, PieceRows, (from, to) =>
        {
            var lanes = stackalloc float[8];
            for (var r = from; r < to; r++)
            {
                var end = offsets[r + 1];
                for (var e = offsets[r]; e < end; e += 8)
                {
                    var t = CpuMath.Tanh(Arguments(v, w, indices, scale, e, end, lanes));
                    var slope = factor * (Vector256<float>.One - (t * t));
                    Lanes.Store(slope * Vector256.Load(lanes), pv + e, end - e);
                    Lanes.Store(slope * Lanes.Load(v + e, end - e), pe + e, end - e);
                }
            }
        });
    }

    private static void Gpu(GpuDevice device, SparseFeatures f, Tensor norms, float scale, Tensor rows) =>
        device.Launch(RowKernel, (device.IsCuda ? f.Rows : Math.Min(f.Rows, 2), device.GroupSize),
            f.RowOffsets.View<int>(), f.Indices.View<int>(), f.Values.View<float>(), norms.View<float>(), rows.View<float>(), scale);

    private static void GpuSlopes(GpuDevice device, SparseFeatures f, Tensor norms, float scale, Tensor dy, Tensor dValues, Tensor perEntry) =>
        device.Launch(SlopeKernel, (device.GridFor(f.EntryCount), device.GroupSize),
            f.Indices.View<int>(), f.Values.View<float>(), norms.View<float>(), dy.View<float>(), dValues.View<float>(), perEntry.View<float>(), scale, f.Rows);

    /// <summary>A group a row.</summary>
    [GpuKernel]
    private static void RowKernel(
        ArrayView<int> offsets, ArrayView<int> indices, ArrayView<float> values, ArrayView<float> norms, ArrayView<float> rows, float scale)
    {
        var shared = SharedMemory.Allocate<float>(GroupScan.Room);
        for (var r = (long)Grid.IdxX; r < rows.Length; r += Grid.DimX)
        {
            var part = 0f;
            for (var e = offsets[r] + Group.IdxX; e < offsets[r + 1]; e += Group.DimX) part += GpuMath.Tanh(scale * values[e] * norms[indices[e]]);
            var sum = GpuMath.GroupSum(part, shared);
            if (Group.IdxX == 0) rows[r] = sum;
        }
    }

    [GpuKernel]
    private static void SlopeKernel(
        ArrayView<int> indices, ArrayView<float> values, ArrayView<float> norms, ArrayView<float> dy, ArrayView<float> dValues,
        ArrayView<float> perEntry, float scale, int rows)
    {
        var factor = dy[0] / rows * scale;
        for (var e = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; e < values.Length; e += (long)Grid.DimX * Group.DimX)
        {
            var norm = norms[indices[e]];
            var t = GpuMath.Tanh(scale * values[e] * norm);
            var slope = factor * (1f - (t * t));
            dValues[e] = slope * norm;
            perEntry[e] = slope * values[e];
        }
    }
}
