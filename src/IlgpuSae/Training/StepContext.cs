using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Training;

/// <summary>A step in the making, as <see cref="IStepExtension"/> sees it.</summary>
public sealed class StepContext
{
    private readonly Dictionary<string, Tensor?> _gradients = new(StringComparer.Ordinal);

    internal StepContext(SaeTrainer trainer, TensorScope scope, Tensor rows, Tensor x, Tensor target, TrainingStep step, double lr)
    {
        (Trainer, Scope, Rows, X, Target, Step, Lr) = (trainer, scope, rows, x, target, step, lr);
    }

    /// <summary>The trainer.</summary>
    public SaeTrainer Trainer { get; }

    /// <summary>Owns everything the step makes.</summary>
    public TensorScope Scope { get; }

    /// <summary>F32 [n, d_in]: the batch as it was given, for an SAE the very tensor that the source made.</summary>
    public Tensor Rows { get; }

    /// <summary>F32 [n, d_in]: the batch, multiplied by the activation scale.</summary>
    public Tensor X { get; }

    /// <summary>F32 [n, d_out]: what is to be reconstructed, scaled; <see cref="X"/> itself for an SAE.</summary>
    public Tensor Target { get; }

    /// <summary>Number, coefficients and dead features of the step.</summary>
    public TrainingStep Step { get; }

    /// <summary>Learning rate of the step.</summary>
    public double Lr { get; }

    /// <summary>The forward pass, once it was made.</summary>
    public TrainingPass? Pass { get; internal set; }

    /// <summary>Gradients by parameter, before clipping; null: the parameter is not updated in this step.</summary>
    public IDictionary<string, Tensor?> Gradients => _gradients;

    /// <summary>Gradients of what is no parameter of the SAE; clipping by norm counts them.</summary>
    public IList<Tensor> FurtherGradients { get; } = [];

    /// <summary>The factor that clipping puts on every gradient; known after the update.</summary>
    public float ClipFactor { get; internal set; } = 1;
}
