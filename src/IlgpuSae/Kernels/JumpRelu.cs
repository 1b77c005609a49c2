using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// JumpReLU on sparse pre-activations: f = h 1[h > theta]. The pattern stays, so entries that are cut off are stored as 0:
/// they are there because the threshold's gradient lives on them. d(h) = 1[h > theta] g. The step has no derivative in
/// theta; as its stand-in d(theta)[j] = sum over the feature's entries of -(theta_j / eps) K((h - theta_j) / eps) g with the
/// rectangle K(u) = 1[-1/2 &lt; u &lt; 1/2] and eps the bandwidth, so the pattern must hold every entry within half a bandwidth of its
/// threshold. O(nnz). Rajamanoharan et al. 2024, arXiv:2407.14435.
/// </summary>
[Kernel]
public static class JumpRelu
{
    private const int Piece = 1 << 14;

    /// <summary>f = h 1[h > theta].</summary>
    /// <param name="scope">Owns the new values.</param>
    /// <param name="h">Pre-activations [n, d_sae]: at least those above theta - eps / 2.</param>
    /// <param name="threshold">theta, F32 [d_sae].</param>
    /// <param name="bandwidth">eps of the threshold's gradient, positive, in the units of h.</param>
    /// <returns>The same pattern; differentiable in h's values and in theta.</returns>
    /// <exception cref="ShapeException"><paramref name="threshold"/> does not have d_sae numbers.</exception>
    /// <exception cref="InvalidInputException"><paramref name="bandwidth"/> is not positive.</exception>
    public static SparseFeatures Forward(TensorScope scope, SparseFeatures h, Tensor threshold, float bandwidth)
    {
        ArgumentNullException.ThrowIfNull(h);
        Check(h, threshold, bandwidth);
        var y = scope.New([h.EntryCount]);
        Run(scope, h, threshold, null, y, 0);
        if (scope.Recorder is { } recorder)
        {
            bool values = recorder.Tracks(h.Values), thresholds = recorder.Tracks(threshold);
            recorder.Record(y, [h.Values, threshold], dy =>
            {
                Tensor? dh = null;
                if (values) Run(scope, h, threshold, dy, dh = scope.New([h.EntryCount]), 0);
                return [dh, thresholds ? ThresholdGradient(scope, h, threshold, dy, bandwidth) : null];
            });
        }

        return h.With(y);
    }

    internal static void Check(SparseFeatures h, Tensor threshold, float bandwidth)
    {
        if (threshold.Count != h.Columns) throw new ShapeException($"jumprelu: {threshold.Shape} thresholds for {h.Columns} features");
        if (!(bandwidth > 0) || !float.IsFinite(bandwidth)) throw new InvalidInputException($"jumprelu: bandwidth {bandwidth} is not a positive number");
    }

    internal static double[] Reference(double[] indices, double[] h, double[] threshold) =>
        [.. h.Select((v, e) => v > threshold[(int)indices[e]] ? v : 0)];

    /// <summary>The stand-in for the threshold's derivative.</summary>
    internal static double[] ThresholdReference(double[] indices, double[] h, double[] threshold, double[] g, double bandwidth)
    {
        var y = new double[threshold.Length];
        for (var e = 0; e < h.Length; e++)
        {
            var j = (int)indices[e];
            if (Math.Abs((h[e] - threshold[j]) / bandwidth) < 0.5) y[j] -= threshold[j] / bandwidth * g[e];
        }

        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var p in new[] { SparseCase.Random(0, 3, 0), SparseCase.Random(3, 4, 0), SparseCase.Random(1, 1, 1), SparseCase.Random(17, 23, 0.3) })
        {
            yield return new KernelCase($"[{p.Rows}, {p.Columns}]",
                [p.OffsetsInput, p.IndicesInput, new([p.Count], Differentiable: true), new([p.Columns], Fill.Positive)],
                (scope, t) => [Forward(scope, p.Of(t[0], t[1], t[2]), t[3], 0.7f).Values],
                x => [Reference(x[1], x[2], x[3])]);
            yield return new KernelCase($"[{p.Rows}, {p.Columns}], thresholds' gradient",
                [p.OffsetsInput, p.IndicesInput, new([p.Count]), new([p.Columns], Fill.Positive), new([p.Count])],
                (scope, t) => [ThresholdGradient(scope, p.Of(t[0], t[1], t[2]), t[3], t[4], 0.7f)],
                x => [ThresholdReference(x[1], x[2], x[3], x[4], 0.7f)]);
        }

        // At the threshold itself: off, and within the window; at its edges: outside.
        yield return new KernelCase("at the threshold and at the window's edges",
            [
                new([2], Fill.Given, Values: [0, 4], Type: DType.I32), new([4], Fill.Given, Values: [0, 1, 2, 3], Type: DType.I32),
                new([4], Fill.Given, Values: [1, 1.25, 0.75, 1.125]), new([4], Fill.Given, Values: [1, 1, 1, 1]), new([4], Fill.Positive),
            ],
            (scope, t) =>
            {
                var h = new SparseFeatures(4, t[0], t[1], t[2]);
                return [Forward(scope, h, t[3], 0.5f).Values, ThresholdGradient(scope, h, t[3], t[4], 0.5f)];
            },
            x => [[0, 1.25, 0, 1.125], [-2 * x[4][0], 0, 0, -2 * x[4][3]]]);
    }

    private static Tensor ThresholdGradient(TensorScope scope, SparseFeatures h, Tensor threshold, Tensor dy, float bandwidth)
    {
        var perEntry = scope.New([h.EntryCount]);
        Run(scope, h, threshold, dy, perEntry, bandwidth);
        var sum = SumByFeature.Of(scope, h, perEntry);
        scope.Release(perEntry);
        return threshold.Shape == sum.Shape ? sum : scope.Own(sum.Reshape(threshold.Shape));
    }

    /// <summary>Without a bandwidth: (dy or h) where h > theta; with one: each entry's part of the threshold's gradient.</summary>
    private static void Run(TensorScope scope, SparseFeatures h, Tensor threshold, Tensor? dy, Tensor y, float bandwidth)
    {
        if (h.EntryCount == 0) return;
        if (scope.Device is CpuDevice cpu) Cpu(cpu, h, threshold, dy ?? h.Values, y, bandwidth);
        else
        {
            var device = (GpuDevice)scope.Device;
            device.Launch(GpuKernel, (device.GridFor(h.EntryCount), device.GroupSize),
                h.Indices.View<int>(), h.Values.View<float>(), threshold.View<float>(), (dy ?? h.Values).View<float>(), y.View<float>(), bandwidth);
        }
    }

    private static unsafe void Cpu(CpuDevice device, SparseFeatures h, Tensor threshold, Tensor g, Tensor y, float bandwidth)
    {
        var indices = h.Indices.I32;
        float* v = h.Values.F32, theta = threshold.F32, pg = g.F32, py = y.F32;
        device.Pool.ForRange(h.EntryCount, Piece, (from, to) =>
        {
            if (bandwidth == 0)
            {
                // NaN is no number below the threshold: it is kept, so that the loss shows it.
                for (var e = from; e < to; e++) py[e] = v[e] <= theta[indices[e]] ? 0 : pg[e];
                return;
            }

            for (var e = from; e < to; e++)
            {
                var t = theta[indices[e]];
                py[e] = MathF.Abs((v[e] - t) / bandwidth) < 0.5f ? -(t / bandwidth) * pg[e] : 0;
            }
        });
    }

    [GpuKernel]
    private static void GpuKernel(
        ArrayView<int> indices, ArrayView<float> values, ArrayView<float> threshold, ArrayView<float> g, ArrayView<float> y, float bandwidth)
    {
        for (var e = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; e < y.Length; e += (long)Grid.DimX * Group.DimX)
        {
            var t = threshold[indices[e]];
            var v = values[e];
            if (bandwidth == 0f) y[e] = v <= t ? 0f : g[e];
            else y[e] = MathF.Abs((v - t) / bandwidth) < 0.5f ? -(t / bandwidth) * g[e] : 0f;
        }
    }
}
