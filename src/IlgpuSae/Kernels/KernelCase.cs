using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>How the generic test fills an input.</summary>
internal enum Fill
{
    /// <summary>Standard normal.</summary>
    Normal,

    /// <summary>Uniform in [0.1, 1.1]: for inputs that must be positive.</summary>
    Positive,

    /// <summary>Integers 0 .. <see cref="KernelInput.Limit"/>-1, as an I32 tensor.</summary>
    Index,

    /// <summary>Zeros.</summary>
    Zero,

    /// <summary>The values given in <see cref="KernelInput.Values"/>.</summary>
    Given,
}

/// <summary>One input of a <see cref="KernelCase"/>.</summary>
/// <param name="Shape">Its shape.</param>
/// <param name="Fill">How it is filled.</param>
/// <param name="Differentiable">Whether the derivative with respect to it is checked by finite differences.</param>
/// <param name="Limit">For <see cref="Fill.Index"/>: the exclusive upper bound.</param>
/// <param name="Values">For <see cref="Fill.Given"/>: the values.</param>
/// <param name="Type">F32, or I32 for indices.</param>
internal sealed record KernelInput(
    Shape Shape, Fill Fill = Fill.Normal, bool Differentiable = false, int Limit = 0, double[]? Values = null, DType Type = DType.F32);

/// <summary>
/// One case of the generic kernel test: the kernel is run on each device and compared with the definition in double
/// precision; where inputs are differentiable, the recorded derivative is compared with central differences of the
/// definition.
/// </summary>
/// <param name="Label">What is special about the case ("odd sizes", "one row", "larger than a tile").</param>
/// <param name="Inputs">The inputs, in order.</param>
/// <param name="Run">Runs the kernel on tensors of the scope's device; returns the outputs (F32 or I32).</param>
/// <param name="Reference">The definition in plain loops: inputs in double (indices as doubles), outputs likewise.</param>
internal sealed record KernelCase(
    string Label,
    KernelInput[] Inputs,
    Func<TensorScope, Tensor[], Tensor[]> Run,
    Func<double[][], double[][]> Reference)
{
    /// <summary>Largest allowed |kernel - reference| / (1 + max |reference|).</summary>
    public double Tolerance { get; init; } = 2e-6;

    /// <summary>Largest allowed |gradient - finite difference| / (1 + max |gradient|).</summary>
    public double GradientTolerance { get; init; } = 2e-5;

    /// <summary>Whether the case is small enough for ILGPU's CPU accelerator (16 threads a group, very slow).</summary>
    public bool OnIlgpuCpu { get; init; } = true;
}
