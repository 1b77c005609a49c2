using IlgpuSae.Saes;

namespace IlgpuSae.Training;

/// <summary>
/// What a run adds to every step beside the architecture's losses: a remedy for dead features, a constraint on the
/// decoder, a further loss. The trainer calls each in the order they were added; one that is disposable ends with the
/// trainer.
/// </summary>
public interface IStepExtension
{
    /// <summary>Called once, before the first step.</summary>
    /// <param name="trainer">The trainer.</param>
    /// <exception cref="InvalidInputException">It cannot be used with this SAE.</exception>
    void Start(SaeTrainer trainer)
    {
    }

    /// <summary>Called when a step begins, before its forward pass.</summary>
    /// <param name="step">The step.</param>
    void BeforeForward(StepContext step)
    {
    }

    /// <summary>Called after the forward pass, while the scope records: losses may be added or replaced.</summary>
    /// <param name="step">The step.</param>
    /// <param name="pass">The pass so far.</param>
    /// <returns>The pass whose total is differentiated.</returns>
    TrainingPass Extend(StepContext step, TrainingPass pass) => pass;

    /// <summary>Called with the gradients, before they are measured and clipped.</summary>
    /// <param name="step">The step, gradients included: they may be replaced, or set to null so that a parameter rests.</param>
    void OnGradients(StepContext step)
    {
    }

    /// <summary>Called when the optimiser has made its update and the firings were counted.</summary>
    /// <param name="step">The step.</param>
    void AfterStep(StepContext step)
    {
    }
}
