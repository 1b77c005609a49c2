using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// JumpReLU's penalty on the number of active features: with c_r the number of entries of row r above their thresholds,
/// mean over rows of c_r, or of (c_r / target - 1)^2. The count has no derivative; as its stand-in
/// d(c_r)/d(theta_j) = -(1 / eps) K((h - theta_j) / eps) on the entries, K(u) = 1[-1/2 &lt; u &lt; 1/2] and eps the bandwidth. None in h.
/// O(nnz). Rajamanoharan et al. 2024, arXiv:2407.14435.
/// </summary>
[Kernel]
public static class StepPenalty
{
    private const int PieceRows = 64;

    /// <summary>mean_r c_r, or mean_r (c_r / target - 1)^2.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="h">Pre-activations [n, d_sae]: at least those above theta - eps / 2.</param>
    /// <param name="threshold">theta, F32 [d_sae].</param>
    /// <param name="bandwidth">eps, positive, in the units of h.</param>
    /// <param name="target">The wanted number, positive; null: the number itself is the penalty.</param>
    /// <returns>F32 []; differentiable in theta.</returns>
    /// <exception cref="ShapeException"><paramref name="threshold"/> does not have d_sae numbers.</exception>
    /// <exception cref="InvalidInputException"><paramref name="bandwidth"/> or <paramref name="target"/> is not positive.</exception>
    public static Tensor Mean(TensorScope scope, SparseFeatures h, Tensor threshold, float bandwidth, float? target = null)
    {
        ArgumentNullException.ThrowIfNull(h);
        JumpRelu.Check(h, threshold, bandwidth);
        if (target is { } t && !(t > 0 && float.IsFinite(t))) throw new InvalidInputException($"step penalty: target {t} is not a positive number");
        // Each row's penalty and its derivative in the row's count.
        Tensor rows = scope.New([h.Rows]), slopes = scope.New([h.Rows]);
        if (h.Rows > 0)
        {
            if (scope.Device is CpuDevice cpu) Cpu(cpu, h, threshold, target ?? 0, rows, slopes);
            else GpuCount((GpuDevice)scope.Device, h, threshold, target ?? 0, rows, slopes);
        }

        var y = RowMean.Of(scope, rows);
        scope.Recorder?.Record(y, [threshold], dy => [ThresholdGradient(scope, h, threshold, bandwidth, slopes, dy)]);
        return y;
    }

    internal static double[] Reference(SparseCase f, double[] h, double[] threshold, double? target)
    {
        var sum = 0.0;
        for (var r = 0; r < f.Rows; r++)
        {
            var c = Count(f, h, threshold, r);
            sum += target is { } t ? ((c / t) - 1) * ((c / t) - 1) : c;
        }

        return [f.Rows == 0 ? 0 : sum / f.Rows];
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var target in new float?[] { null, 3.5f })
        {
            foreach (var p in new[] { SparseCase.Random(0, 3, 0), SparseCase.Random(3, 4, 0), SparseCase.Random(1, 1, 1), SparseCase.Random(17, 23, 0.3) })
            {
                yield return new KernelCase($"[{p.Rows}, {p.Columns}], target {target}, and its gradient",
                    [p.OffsetsInput, p.IndicesInput, new([p.Count]), new([p.Columns], Fill.Positive)],
                    (scope, t) =>
                    {
                        var h = p.Of(t[0], t[1], t[2]);
                        var slopes = scope.New([h.Rows]);
                        slopes.CopyFrom<float>([.. Enumerable.Range(0, p.Rows).Select(r => r - 1.5f)]);
                        return [Mean(scope, h, t[3], 0.7f, target), ThresholdGradient(scope, h, t[3], 0.7f, slopes, scope.From<float>([2f], []))];
                    },
                    x => [Reference(p, x[2], x[3], target), GradientReference(p, x[2], x[3])]);
            }
        }
    }

    /// <summary>The thresholds' gradient for row slopes r - 1.5, dy 2, bandwidth 0.7.</summary>
    private static double[] GradientReference(SparseCase f, double[] h, double[] threshold)
    {
        var y = new double[threshold.Length];
        for (var r = 0; r < f.Rows; r++)
        {
            for (var e = f.Offsets[r]; e < f.Offsets[r + 1]; e++)
            {
                var j = f.Indices[e];
                if (Math.Abs((h[e] - threshold[j]) / 0.7f) < 0.5) y[j] -= (r - 1.5) * 2 / f.Rows / 0.7f;
            }
        }

        return y;
    }

    private static double Count(SparseCase f, double[] h, double[] threshold, int r)
    {
        var c = 0;
        for (var e = f.Offsets[r]; e < f.Offsets[r + 1]; e++) c += h[e] > threshold[f.Indices[e]] ? 1 : 0;
        return c;
    }

    private static Tensor ThresholdGradient(TensorScope scope, SparseFeatures h, Tensor threshold, float bandwidth, Tensor slopes, Tensor dy)
    {
        var perEntry = scope.New([h.EntryCount]);
        if (h.EntryCount > 0)
        {
            if (scope.Device is CpuDevice cpu) CpuSlopes(cpu, h, threshold, bandwidth, slopes, dy, perEntry);
            else GpuSlopes((GpuDevice)scope.Device, h, threshold, bandwidth, slopes, dy, perEntry);
        }

        var sum = SumByFeature.Of(scope, h, perEntry);
        scope.Release(perEntry);
        return threshold.Shape == sum.Shape ? sum : scope.Own(sum.Reshape(threshold.Shape));
    }

    private static unsafe void Cpu(CpuDevice device, SparseFeatures h, Tensor threshold, float target, Tensor rows, Tensor slopes)
    {
        int* offsets = h.RowOffsets.I32, indices = h.Indices.I32;
        float* v = h.Values.F32, theta = threshold.F32, py = rows.F32, ps = slopes.F32;
        device.Pool.ForRange(h.Rows, PieceRows, (from, to) =>
        {
            for (var r = from; r < to; r++)
            {
                var count = 0;
                for (var e = offsets[r]; e < offsets[r + 1]; e++) count += v[e] > theta[indices[e]] ? 1 : 0;
                var distance = target == 0 ? count : (count / target) - 1;
                py[r] = target == 0 ? distance : distance * distance;
                ps[r] = target == 0 ? 1 : 2 * distance / target;
            }
        });
    }

    private static unsafe void CpuSlopes(
        CpuDevice device, SparseFeatures h, Tensor threshold, float bandwidth, Tensor slopes, Tensor dy, Tensor perEntry)
    {
        int* offsets = h.RowOffsets.I32, indices = h.Indices.I32;
        float* v = h.Values.F32, theta = threshold.F32, ps = slopes.F32, pe = perEntry.F32;
        var scale = -*dy.F32 / h.Rows / bandwidth;
        device.Pool.ForRange(h.Rows, PieceRows, (from, to) =>
        {
            for (var r = from; r < to; r++)
            {
                var slope = scale * ps[r];
                for (var e = offsets[r]; e < offsets[r + 1]; e++) pe[e] = MathF.Abs((v[e] - theta[indices[e]]) / bandwidth) < 0.5f ? slope : 0;
            }
        });
    }

    private static void GpuCount(GpuDevice device, SparseFeatures h, Tensor threshold, float target, Tensor rows, Tensor slopes) =>
        device.Launch(RowKernel, (device.IsCuda ? h.Rows : Math.Min(h.Rows, 2), device.GroupSize),
            h.RowOffsets.View<int>(), h.Indices.View<int>(), h.Values.View<float>(), threshold.View<float>(), rows.View<float>(), slopes.View<float>(), target);

    private static void GpuSlopes(GpuDevice device, SparseFeatures h, Tensor threshold, float bandwidth, Tensor slopes, Tensor dy, Tensor perEntry) =>
        device.Launch(SlopeKernel, (device.IsCuda ? h.Rows : Math.Min(h.Rows, 2), device.GroupSize),
            h.RowOffsets.View<int>(), h.Indices.View<int>(), h.Values.View<float>(), threshold.View<float>(), slopes.View<float>(), dy.View<float>(),
            perEntry.View<float>(), bandwidth);

    /// <summary>A group a row.</summary>
    [GpuKernel]
    private static void RowKernel(
        ArrayView<int> offsets, ArrayView<int> indices, ArrayView<float> values, ArrayView<float> threshold, ArrayView<float> rows,
        ArrayView<float> slopes, float target)
    {
        var shared = SharedMemory.Allocate<int>(GroupScan.Room);
        for (var r = (long)Grid.IdxX; r < rows.Length; r += Grid.DimX)
        {
            var mine = 0;
            for (var e = offsets[r] + Group.IdxX; e < offsets[r + 1]; e += Group.DimX) mine += values[e] > threshold[indices[e]] ? 1 : 0;
            GroupScan.Before(shared, mine, out var count);
            if (Group.IdxX == 0)
            {
                var distance = target == 0f ? count : (count / target) - 1f;
                rows[r] = target == 0f ? distance : distance * distance;
                slopes[r] = target == 0f ? 1f : 2f * distance / target;
            }
        }
    }

    /// <summary>A group a row.</summary>
    [GpuKernel]
    private static void SlopeKernel(
        ArrayView<int> offsets, ArrayView<int> indices, ArrayView<float> values, ArrayView<float> threshold, ArrayView<float> slopes,
        ArrayView<float> dy, ArrayView<float> perEntry, float bandwidth)
    {
        var scale = -dy[0] / slopes.Length / bandwidth;
        for (var r = (long)Grid.IdxX; r < slopes.Length; r += Grid.DimX)
        {
            var slope = scale * slopes[r];
            for (var e = offsets[r] + Group.IdxX; e < offsets[r + 1]; e += Group.DimX)
                perEntry[e] = MathF.Abs((values[e] - threshold[indices[e]]) / bandwidth) < 0.5f ? slope : 0f;
        }
    }
}
