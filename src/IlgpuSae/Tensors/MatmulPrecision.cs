namespace IlgpuSae.Tensors;

/// <summary>
/// The least precision of the factors that a device may use in matrix products; sums are always F32. Devices and
/// kernels without tensor cores compute in F32 whatever is allowed.
/// </summary>
public enum MatmulPrecision
{
    /// <summary>Factors keep their 24 bits.</summary>
    F32,

    /// <summary>Factors are rounded to 11 bits (TF32): about 1e-3 relative error a product.</summary>
    Tf32,

    /// <summary>Factors are rounded to 8 bits (bfloat16): about 8e-3 relative error a product.</summary>
    Bf16,
}
