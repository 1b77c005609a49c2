using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>
/// <c>mse_loss_normalization = dense_batch</c> of SAELens before version 6: every row's squared error is divided by
/// N_r = ||x_r - mean of the batch|| + 1e-6. Mean over rows of sum_i (xhat - x)^2 / N_r.
/// </summary>
internal static class DenseBatchError
{
    /// <summary>The loss.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="xhat">Reconstruction, F32 [n, d].</param>
    /// <param name="x">Target, F32 [n, d]; a constant.</param>
    /// <returns>F32 []; differentiable in <paramref name="xhat"/>.</returns>
    public static Tensor MeanOfRowSums(TensorScope scope, Tensor xhat, Tensor x)
    {
        // Factors within the square, so that one kernel does for both losses.
        var weights = Weights(scope, x).ToArray<float>();
        var roots = scope.From<float>(Array.ConvertAll(weights, MathF.Sqrt), [weights.Length]);
        return SquaredError.MeanOfRowSums(scope, RowAffine.Apply(scope, xhat, roots, null), RowAffine.Apply(scope, x, roots, null));
    }

    /// <summary>1 / N_r of each row.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [n, d].</param>
    /// <returns>F32 [n].</returns>
    public static Tensor Weights(TensorScope scope, Tensor x)
    {
        using (new NoGradient(scope))
        {
            var n = x.Shape[0];
            var centred = AddRow.Forward(scope, x, SumRows.Of(scope, x, [x.Shape[1]]), -1f / n);
            var weights = RowNorm.L2(scope, centred).ToArray<float>();
            foreach (ref var w in weights.AsSpan()) w = 1 / (w + 1e-6f);
            return scope.From<float>(weights, [n]);
        }
    }
}
