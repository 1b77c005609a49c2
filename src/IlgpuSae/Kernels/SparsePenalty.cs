using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// The sparsity penalty of a standard SAE: mean over rows of the p-norm of the activations, each multiplied by its
/// feature's norm: u_e = |f_e| norm[feature], N_r = (sum u_e^p)^(1/p), or without the root. The gradient with respect to u_e
/// is (u_e / N_r)^(p-1), without the root p u_e^(p-1), 0 where u_e is 0; an activation that is not stored has none (ReLU's
/// is 0 there). O(nnz).
/// </summary>
[Kernel]
public static partial class SparsePenalty
{
    private const int PieceRows = 64;

    /// <summary>mean_r || f_r * norms ||_p.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="f">Activations [n, d_sae].</param>
    /// <param name="norms">F32 [d_sae], the decoder's row norms; null for ones.</param>
    /// <param name="p">The norm's order, above 0; 1 for L1.</param>
    /// <returns>F32 []; differentiable in the values and the norms.</returns>
    /// <exception cref="ShapeException"><paramref name="norms"/> does not have d_sae numbers.</exception>
    /// <exception cref="InvalidInputException"><paramref name="p"/> is not a positive number.</exception>
    public static Tensor Lp(TensorScope scope, SparseFeatures f, Tensor? norms, float p) => Run(scope, f, norms, p, root: true);

    /// <summary>mean_r (|| f_r * norms ||_p)^p: the sum of powers, without the root.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="f">Activations [n, d_sae].</param>
    /// <param name="norms">F32 [d_sae], the decoder's row norms; null for ones.</param>
    /// <param name="p">The power, above 0.</param>
    /// <returns>F32 []; differentiable in the values and the norms.</returns>
    /// <exception cref="ShapeException"><paramref name="norms"/> does not have d_sae numbers.</exception>
    /// <exception cref="InvalidInputException"><paramref name="p"/> is not a positive number.</exception>
    public static Tensor LpPower(TensorScope scope, SparseFeatures f, Tensor? norms, float p) => Run(scope, f, norms, p, root: false);

    private static Tensor Run(TensorScope scope, SparseFeatures f, Tensor? norms, float p, bool root)
    {
        ArgumentNullException.ThrowIfNull(f);
        if (norms is not null && norms.Count != f.Columns)
            throw new ShapeException($"sparsity penalty: {norms.Shape} norms for {f.Columns} features");
        if (!(p > 0) || !float.IsFinite(p)) throw new InvalidInputException($"sparsity penalty: p = {p} is not a positive number");
        var rows = scope.New([f.Rows]);
        if (f.Rows > 0)
        {
            if (scope.Device is CpuDevice cpu) Cpu(cpu, f, norms, p, root, rows);
            else Gpu((GpuDevice)scope.Device, f, norms, p, root, rows);
        }

        var y = RowMean.Of(scope, rows);
        if (scope.Recorder is { } recorder)
        {
            bool wantValues = recorder.Tracks(f.Values), wantNorms = norms is not null && recorder.Tracks(norms);
            recorder.Record(y, norms is null ? [f.Values] : [f.Values, norms], dy =>
            {
                var (dValues, dNorms) = Backward(scope, f, norms, p, root, rows, dy, wantValues, wantNorms);
                return norms is null ? [dValues] : [dValues, dNorms];
            });
        }

        return y;
    }

    internal static double[] Reference(SparseCase f, double[] values, double[]? norms, double p, bool root = true)
    {
        var total = 0.0;
        for (var r = 0; r < f.Rows; r++)
        {
            var sum = 0.0;
            for (var e = f.Offsets[r]; e < f.Offsets[r + 1]; e++) sum += Math.Pow(Math.Abs(values[e]) * (norms?[f.Indices[e]] ?? 1), p);
            total += root ? Math.Pow(sum, 1 / p) : sum;
        }

        return [f.Rows == 0 ? 0 : total / f.Rows];
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var p in new[] { 1f, 2f, 0.5f, 1.7f })
        {
            foreach (var f in new[] { SparseCase.Random(0, 3, 0), SparseCase.Random(2, 3, 0), SparseCase.Random(1, 1, 1), SparseCase.Random(19, 23, 0.3) })
            {
                foreach (var weighted in new[] { true, false })
                {
                    foreach (var root in new[] { true, false })
                    {
                        yield return new KernelCase($"[{f.Rows}, {f.Columns}], p {p}, norms {weighted}, root {root}",
                            [
                                f.OffsetsInput, f.IndicesInput, new([f.Count], Fill.Positive, Differentiable: true),
                                new([f.Columns], Fill.Positive, Differentiable: weighted),
                            ],
                            (scope, t) => [Run(scope, f.Of(t[0], t[1], t[2]), weighted ? t[3] : null, p, root)],
                            x => [Reference(f, x[2], weighted ? x[3] : null, p, root)])
                        { Tolerance = 1e-5 };
                    }
                }
            }
        }

        var signed = SparseCase.Random(5, 9, 0.6);
        yield return new KernelCase("negative activations", [signed.OffsetsInput, signed.IndicesInput, new([signed.Count], Differentiable: true)],
            (scope, t) => [Lp(scope, signed.Of(t[0], t[1], t[2]), null, 1)],
            x => [Reference(signed, x[2], null, 1)]);
    }

    /// <summary>
    /// d(u_e) of each entry is dy/n (u_e / N_row)^(p-1), without the root dy/n p u_e^(p-1); the values get it times the norm,
    /// the norms times the value.
    /// </summary>
    private static (Tensor? Values, Tensor? Norms) Backward(
        TensorScope scope, SparseFeatures f, Tensor? norms, float p, bool root, Tensor rows, Tensor dy, bool wantValues, bool wantNorms)
    {
        // d(loss)/d|f_e| times the sign; the norms' gradient needs the same without the norm, so both are computed.
        var dValues = wantValues ? scope.New([f.EntryCount]) : null;
        var perEntry = wantNorms ? scope.New([f.EntryCount]) : null;
        if (f.EntryCount > 0)
        {
            if (scope.Device is CpuDevice cpu) CpuSlopes(cpu, f, norms, p, root, rows, dy, dValues, perEntry);
            else GpuSlopes((GpuDevice)scope.Device, f, norms, p, root, rows, dy, dValues, perEntry);
        }

        if (perEntry is null) return (dValues, null);
        var dNorms = SumByFeature.Of(scope, f, perEntry);
        scope.Release(perEntry);
        return (dValues, dNorms);
    }
}
