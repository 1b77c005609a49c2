namespace IlgpuSae.Tensors;

/// <summary>
/// Marks a static method as an ILGPU kernel entry point (explicitly grouped). Every marked method is compiled to PTX
/// for each supported architecture by the tests, without a GPU.
/// </summary>
[AttributeUsage(AttributeTargets.Method)]
internal sealed class GpuKernelAttribute : Attribute
{
    /// <summary>Threads a group the kernel is compiled for on CUDA (.maxntid); 0: any.</summary>
    public int GroupSize { get; init; }

    /// <summary>Groups a multiprocessor should hold at least (.minnctapersm).</summary>
    public int MinGroups { get; init; } = 1;

    /// <summary>Registers a thread may use; checked where NVIDIA's assembler is installed.</summary>
    public int MaxRegisters { get; init; } = 128;

    /// <summary>Whether the kernel may compute in double precision, which most CUDA devices do at 1/64 of the rate.</summary>
    public bool AllowDouble { get; init; }
}
