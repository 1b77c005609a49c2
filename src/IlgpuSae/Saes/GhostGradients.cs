using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>
/// Ghost gradients for the dead features of a standard SAE, as SAELens had them before version 6: with h the
/// pre-activations of the dead, r = x - xhat (of a transcoder, target - output) and g = exp(h) W_dec, g is scaled to half the norm of r
/// (||r|| / (1e-6 + 2 ||g||)), q = (g - r)^2 elementwise, and ghost_grad_loss = mean over all elements of
/// c q with c = (xhat - x)^2 / (q + 1e-6). r, the scale and c are constants, so the gradient reaches the dead features
/// alone: their encoder, bias and decoder rows, and b_dec where it is subtracted from the input. Jermyn and Templeton 2024,
/// "Ghost grads: an improvement on resampling".
/// </summary>
/// <remarks>
/// Without dead features SAELens logged the mean squared error, a constant, under this name; here it is 0.
/// </remarks>
internal static class GhostGradients
{
    private const float Tiny = 1e-6f;

    /// <summary>The loss.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="sae">With parameters W_enc, b_enc, W_dec.</param>
    /// <param name="context">The forward pass.</param>
    /// <returns>F32 [].</returns>
    public static Tensor Loss(TensorScope scope, TrainingSae sae, TrainingContext context)
    {
        var dead = context.Step.Dead;
        if (dead.Length == 0) return scope.Zeros([]);
        var (n, d) = (context.Target.Shape[0], context.Target.Shape[1]);
        var ids = scope.From<int>(dead.Span, [dead.Length]);
        var pre = Gemm.Multiply(scope, sae.Centred(scope, context.Rows), GatherRows.Forward(scope, sae.WEnc, ids),
            GatherRows.Forward(scope, sae.Parameters["b_enc"], ids), transposeB: true);
        pre = PreActivationNoise.AddTo(scope, sae.Config, context.Step, pre, dead.Span);
        var ghost = Gemm.Multiply(scope, Exponential.Of(scope, pre), GatherRows.Forward(scope, sae.WDec, ids));
        Tensor negative, scale;
        using (new NoGradient(scope))
        {
            negative = Sae.Residual(scope, context.Reconstruction, context.Target);
            scale = Quotient(scope, RowNorm.L2(scope, negative), Scale.By(scope, RowNorm.L2(scope, ghost), 2));
        }

        var off = Add.Sum(scope, RowAffine.Apply(scope, ghost, scale, null), negative);
        var q = Multiply.Elementwise(scope, off, off);
        Tensor weight;
        using (new NoGradient(scope))
        {
            var mse = Multiply.Elementwise(scope, negative, negative);
            Tensor? rows = sae.Config.MseLossNormalization is null ? null : DenseBatchError.Weights(scope, context.Target);
            weight = rows is null ? Quotient(scope, mse, q)
                : RowAffine.Apply(scope, Quotient(scope, RowAffine.Apply(scope, mse, rows, null), RowAffine.Apply(scope, q, rows, null)), rows, null);
        }

        return Scale.By(scope, Reduce.Sum(scope, Multiply.Elementwise(scope, weight, q)), (float)(1.0 / ((double)n * d)));
    }

    /// <summary>a / (b + 1e-6), elementwise.</summary>
    private static Tensor Quotient(TensorScope scope, Tensor a, Tensor b)
    {
        var count = checked((int)a.Count);
        return Reshape.As(scope, RowAffine.Undo(scope, Reshape.As(scope, a, [count, 1]), Reshape.As(scope, b, [count]), null, Tiny), a.Shape);
    }
}
