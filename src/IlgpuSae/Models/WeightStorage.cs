namespace IlgpuSae.Models;

/// <summary>In which type a model's matrices lie in memory. Products widen them to F32 inside the kernel; all is computed in F32.</summary>
public enum WeightStorage
{
    /// <summary>As the checkpoint has them: F16 and BF16 stay, which gives the bytes of F32 at half the memory.</summary>
    AsStored,

    /// <summary>F32.</summary>
    F32,

    /// <summary>F16; numbers of F32 are rounded to the nearest, beyond 65504 refused.</summary>
    F16,

    /// <summary>BF16; numbers of F32 are rounded to the nearest.</summary>
    BF16,
}

/// <summary>The names users give to <see cref="WeightStorage"/>.</summary>
public static class WeightStorages
{
    /// <summary>Reads a name: auto, float32, float16, bfloat16, or PyTorch's <c>torch.bfloat16</c> and its like.</summary>
    /// <param name="name">The name.</param>
    /// <exception cref="InvalidInputException">It is none of them.</exception>
    public static WeightStorage Parse(string name) => (name.StartsWith("torch.", StringComparison.Ordinal) ? name[6..] : name) switch
    {
        "auto" => WeightStorage.AsStored,
        "float32" or "float" => WeightStorage.F32,
        "float16" or "half" => WeightStorage.F16,
        "bfloat16" => WeightStorage.BF16,
        _ => throw new InvalidInputException($"dtype \"{name}\" is not known; known: auto (as stored), float32, float16, bfloat16"),
    };
}
