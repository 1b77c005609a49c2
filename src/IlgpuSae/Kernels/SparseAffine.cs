using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// An affine map a feature on sparse activations: y[e] = v[e] exp(r[feature]) + b[feature]. Both branches of a gated SAE
/// come from one product by it. Gradients: exp(r) g in v; the feature's sums of v exp(r) g in r and of g in b. O(nnz).
/// </summary>
[Kernel]
public static class SparseAffine
{
    private const int Piece = 1 << 14;

    /// <summary>y = v exp(r) + b.</summary>
    /// <param name="scope">Owns the new values.</param>
    /// <param name="f">Activations [n, d_sae].</param>
    /// <param name="logScale">r, F32 [d_sae]; null: no scale.</param>
    /// <param name="shift">b, F32 [d_sae].</param>
    /// <returns>The same pattern; differentiable in the values, r and b.</returns>
    /// <exception cref="ShapeException"><paramref name="logScale"/> or <paramref name="shift"/> does not have d_sae numbers.</exception>
    public static SparseFeatures Columns(TensorScope scope, SparseFeatures f, Tensor? logScale, Tensor shift)
    {
        ArgumentNullException.ThrowIfNull(f);
        if (shift.Count != f.Columns || (logScale is not null && logScale.Count != f.Columns))
            throw new ShapeException($"sparse affine map: scale {logScale?.Shape.ToString() ?? "none"} and shift {shift.Shape} for {f.Columns} features");
        Tensor? scale = null;
        var recorder = scope.Recorder;
        scope.Recorder = null;
        try
        {
            if (logScale is not null) scale = Exponential.Of(scope, logScale);
        }
        finally
        {
            scope.Recorder = recorder;
        }

        var y = Map(scope, f, f.Values, scale, shift);
        if (recorder is not null)
        {
            bool values = recorder.Tracks(f.Values), scales = logScale is not null && recorder.Tracks(logScale), shifts = recorder.Tracks(shift);
            recorder.Record(y, logScale is null ? [f.Values, shift] : [f.Values, logScale, shift], dy =>
            {
                var dv = !values ? null : scale is null ? dy : Map(scope, f, dy, scale, null);
                var db = shifts ? SumByFeature.Of(scope, f, dy) : null;
                if (logScale is null) return [dv, db];
                // sum of v exp(r) g = exp(r) times the sum of v g.
                var dr = scales ? Multiply.Elementwise(scope, SumByFeature.Of(scope, f, Multiply.Elementwise(scope, f.Values, dy)), scale!) : null;
                return [dv, dr, db];
            });
        }

        return f.With(y);
    }

    internal static double[] Reference(double[] indices, double[] values, double[]? logScale, double[] shift) =>
        [.. values.Select((v, e) => (v * Math.Exp(logScale?[(int)indices[e]] ?? 0)) + shift[(int)indices[e]])];

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var scaled in new[] { true, false })
        {
            foreach (var p in new[] { SparseCase.Random(3, 4, 0), SparseCase.Random(1, 1, 1), SparseCase.Random(17, 23, 0.3) })
            {
                yield return new KernelCase($"[{p.Rows}, {p.Columns}], scale {scaled}",
                    [
                        p.OffsetsInput, p.IndicesInput, new([p.Count], Differentiable: true), new([p.Columns], Differentiable: scaled),
                        new([p.Columns], Differentiable: true),
                    ],
                    (scope, t) => [Columns(scope, p.Of(t[0], t[1], t[2]), scaled ? t[3] : null, t[4]).Values],
                    x => [Reference(x[1], x[2], scaled ? x[3] : null, x[4])]);
            }
        }
    }

    private static Tensor Map(TensorScope scope, SparseFeatures f, Tensor values, Tensor? scale, Tensor? shift)
    {
        var y = scope.New([f.EntryCount]);
        if (f.EntryCount == 0) return y;
        if (scope.Device is CpuDevice cpu) Cpu(cpu, f, values, scale, shift, y);
        else
        {
            var device = (GpuDevice)scope.Device;
            device.Launch(GpuKernel, (device.GridFor(f.EntryCount), device.GroupSize), f.Indices.View<int>(), values.View<float>(),
                (scale ?? values).View<float>(), (shift ?? values).View<float>(), y.View<float>(), (scale is null ? 0 : 1) | (shift is null ? 0 : 2));
        }

        return y;
    }

    private static unsafe void Cpu(CpuDevice device, SparseFeatures f, Tensor values, Tensor? scale, Tensor? shift, Tensor y)
    {
        var indices = f.Indices.I32;
        float* v = values.F32, s = scale is null ? null : scale.F32, b = shift is null ? null : shift.F32, py = y.F32;
        device.Pool.ForRange(f.EntryCount, Piece, (from, to) =>
        {
            for (var e = from; e < to; e++)
            {
                var c = indices[e];
                py[e] = (s == null ? v[e] : v[e] * s[c]) + (b == null ? 0 : b[c]);
            }
        });
    }

    /// <summary>options: 1 there is a scale, 2 there is a shift.</summary>
    [GpuKernel]
    private static void GpuKernel(
        ArrayView<int> indices, ArrayView<float> values, ArrayView<float> scale, ArrayView<float> shift, ArrayView<float> y, int options)
    {
        for (var e = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; e < y.Length; e += (long)Grid.DimX * Group.DimX)
        {
            var c = indices[e];
            var value = values[e];
            if ((options & 1) != 0) value *= scale[c];
            if ((options & 2) != 0) value += shift[c];
            y[e] = value;
        }
    }
}
