namespace IlgpuSae.Saes;

/// <summary>What an SAE does with its input before encoding, and undoes after decoding.</summary>
public enum NormalizeActivations
{
    /// <summary>Nothing.</summary>
    None,

    /// <summary>
    /// The trainer multiplies every batch by one factor that makes the mean norm sqrt(d_in), and folds it into the
    /// weights at the end. The SAE itself does nothing.
    /// </summary>
    ExpectedAverageOnlyIn,

    /// <summary>Each vector is scaled to norm sqrt(d_in); the reconstruction is scaled back. A zero vector stays zero.</summary>
    ConstantNormRescale,

    /// <summary>
    /// Each vector is centred and divided by its standard deviation (n - 1) + 1e-5; the reconstruction is multiplied
    /// by the standard deviation (without the 1e-5) and shifted back.
    /// </summary>
    LayerNorm,

    /// <summary>Each vector is multiplied by one number of the settings, the reconstruction divided by it. Temporal SAEs alone.</summary>
    ConstantScalarRescale,
}

/// <summary>How an SAE's input is flattened to [..., d_in].</summary>
public enum ReshapeActivations
{
    /// <summary>It is [..., d_in] already.</summary>
    None,

    /// <summary>It is [..., heads, d_head]: the last two axes are merged, and split again after decoding.</summary>
    HookZ,
}
