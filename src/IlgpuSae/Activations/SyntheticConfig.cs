using System.ComponentModel;

namespace IlgpuSae.Activations;

/// <summary>How the true features of the synthetic source hang together.</summary>
public enum FeatureGroups
{
    /// <summary>Each feature is active independently of the others.</summary>
    None,

    /// <summary>Features come in groups whose first is the parent: the others are active only where it is.</summary>
    Hierarchical,

    /// <summary>Features of one group tend to be active together; how often each is active does not change.</summary>
    Correlated,
}

/// <summary>Settings of <see cref="SyntheticSuperposition"/>.</summary>
public sealed record SyntheticConfig
{
    /// <summary>Width of the rows, d_in.</summary>
    [Description("width of the rows")]
    public int DIn { get; init; } = 64;

    /// <summary>Number of true features.</summary>
    [Description("true features, more than the rows are wide")]
    public int NTrue { get; init; } = 256;

    /// <summary>Mean number of true features active in a row.</summary>
    [Description("mean number of true features active in a row")]
    public double MeanActive { get; init; } = 4;

    /// <summary>The i-th feature is active with a probability proportional to i to the power of minus this.</summary>
    [Description("the i-th feature's probability falls as i to the power of minus this")]
    public double PowerLaw { get; init; } = 0.5;

    /// <summary>Magnitudes are uniform in 1 - this .. 1 + this.</summary>
    [Description("magnitudes are uniform in 1 - X .. 1 + X")]
    public double MagnitudeSpread { get; init; } = 0.5;

    /// <summary>Standard deviation of noise added to every number.</summary>
    [Description("standard deviation of noise on every number")]
    public double NoiseStd { get; init; }

    /// <summary>How features hang together.</summary>
    [Description("how true features hang together: none, hierarchical, correlated")]
    public FeatureGroups Groups { get; init; }

    /// <summary>Features in a group.</summary>
    [Description("true features in a group")]
    public int GroupSize { get; init; } = 4;

    /// <summary>Seed of directions and rows.</summary>
    [Description("seed of everything that is drawn")]
    public ulong Seed { get; init; } = 42;

    /// <summary>Checks every setting.</summary>
    /// <exception cref="InvalidInputException">A setting is out of range.</exception>
    public void Validate()
    {
        if (DIn < 2) throw new InvalidInputException($"d_in: {DIn}; the synthetic source needs at least 2");
        if (NTrue < 1) throw new InvalidInputException($"n_true: {NTrue} is not at least 1");
        if (!(MeanActive > 0 && MeanActive <= NTrue)) throw new InvalidInputException($"mean_active: {MeanActive} is not in (0, n_true = {NTrue}]");
        if (!(PowerLaw is >= 0 and <= 10)) throw new InvalidInputException($"power_law: {PowerLaw} is not in 0..10");
        if (!(MagnitudeSpread is >= 0 and < 1)) throw new InvalidInputException($"magnitude_spread: {MagnitudeSpread} is not in [0, 1)");
        if (!(NoiseStd >= 0 && double.IsFinite(NoiseStd))) throw new InvalidInputException($"noise_std: {NoiseStd} is negative or not finite");
        if (GroupSize < 1) throw new InvalidInputException($"group_size: {GroupSize} is not at least 1");
    }
}
