using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Training;

/// <summary>
/// <c>normalize_sae_decoder</c>: decoder rows keep norm 1. Before every update the part of the gradient along each row is
/// taken out, g - (g . w) w, so that Adam's moments hold only what turns the row; afterwards the rows are scaled to
/// norm 1 again. SAELens before version 6 took it out after the update, which changed nothing. Bricken et al. 2023,
/// "Towards Monosemanticity".
/// </summary>
internal sealed class UnitDecoder : IStepExtension
{
    private const string Name = "W_dec";

    /// <inheritdoc/>
    public void Start(SaeTrainer trainer)
    {
        using var scope = new TensorScope(trainer.Sae.Device);
        Normalize(scope, trainer.Sae.WDec);
    }

    /// <inheritdoc/>
    public void OnGradients(StepContext step)
    {
        if (step.Gradients[Name] is { } gradient) step.Gradients[Name] = Across(step.Scope, gradient, step.Trainer.Sae.WDec);
    }

    /// <inheritdoc/>
    public void AfterStep(StepContext step)
    {
        if (step.Gradients[Name] is not null) Normalize(step.Scope, step.Trainer.Sae.WDec);
    }

    /// <summary>The part of each gradient that is at right angles to its row.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="gradient">F32 [d_sae, d_out].</param>
    /// <param name="rows">F32, the same shape, of norm 1.</param>
    internal static Tensor Across(TensorScope scope, Tensor gradient, Tensor rows)
    {
        var along = Scale.By(scope, RowAffine.RowDot(scope, gradient, rows), -1);
        return Add.Sum(scope, gradient, RowAffine.Apply(scope, rows, along, null));
    }

    /// <summary>Scales every row to norm 1; one of zeros stays.</summary>
    /// <param name="scope">For the norms.</param>
    /// <param name="rows">F32 [d_sae, d_out], changed.</param>
    internal static void Normalize(TensorScope scope, Tensor rows) =>
        rows.CopyFrom(RowAffine.Undo(scope, rows, RowNorm.L2(scope, rows), null, 0));
}
