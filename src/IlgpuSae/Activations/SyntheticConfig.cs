using System.ComponentModel;

namespace IlgpuSae.Activations;

/// <summary>How the true features of the plain synthetic source hang together.</summary>
public enum FeatureGroups
{
    /// <summary>Each feature is active independently of the others.</summary>
    None,

    /// <summary>Features come in groups whose first is the parent: the others are active only where it is.</summary>
    Hierarchical,

    /// <summary>Features of one group tend to be active together; how often each is active does not change.</summary>
    Correlated,
}

/// <summary>What makes synthetic rows.</summary>
public enum FeatureGenerator
{
    /// <summary>The plain one: <see cref="SyntheticSuperposition"/>.</summary>
    Superposition,

    /// <summary>The published benchmark's: <see cref="SynthSaeBench"/>.</summary>
    SynthSaeBench,
}

/// <summary>
/// Settings of the sources whose true features are known. Those of the category SynthSAEBench have the published
/// benchmark's values as defaults and mean nothing to the plain source.
/// </summary>
public sealed record SyntheticConfig
{
    /// <summary>Category of the settings that only <see cref="FeatureGenerator.SynthSaeBench"/> has.</summary>
    public const string Bench = "SynthSAEBench";

    /// <summary>What makes the rows.</summary>
    [Description("what makes the rows: superposition, synth_sae_bench")]
    public FeatureGenerator Generator { get; init; }

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

    /// <summary>The i-th feature's probability falls from the largest to the smallest as i to the power of minus this.</summary>
    [Category(Bench), Description("the i-th feature's probability falls as i to the power of minus this")]
    public double ZipfExponent { get; init; } = 0.5;

    /// <summary>Firing probability of the first feature.</summary>
    [Category(Bench), Description("firing probability of the first feature")]
    public double MaxFiringProb { get; init; } = 0.4;

    /// <summary>Firing probability of the last feature.</summary>
    [Category(Bench), Description("firing probability of the last feature")]
    public double MinFiringProb { get; init; } = 5e-4;

    /// <summary>Trees of features; the first features are their roots. 0: no hierarchy.</summary>
    [Category(Bench), Description("trees of features, whose children fire only where their parent does; 0: none")]
    public int TotalRootNodes { get; init; } = 128;

    /// <summary>Children of a feature that has any.</summary>
    [Category(Bench), Description("children of a feature that has any")]
    public int BranchingFactor { get; init; } = 4;

    /// <summary>Levels below the roots.</summary>
    [Category(Bench), Description("levels below the roots")]
    public int MaxDepth { get; init; } = 3;

    /// <summary>Share of parents of whose children at most one fires.</summary>
    [Category(Bench), Description("share of parents of whose children at most one fires")]
    public double MutuallyExclusivePortion { get; init; } = 1;

    /// <summary>Parents above this depth have no exclusive children; roots are at 0.</summary>
    [Category(Bench), Description("least depth of parents with exclusive children; roots are at 0")]
    public int MutuallyExclusiveMinDepth { get; init; }

    /// <summary>Parents below this depth have no exclusive children; null: no limit.</summary>
    [Category(Bench), Description("largest depth of parents with exclusive children; no limit if not given")]
    public int? MutuallyExclusiveMaxDepth { get; init; }

    /// <summary>Whether features are drawn more often for what parents and siblings take away.</summary>
    [Category(Bench), Description("draw features more often for what parents and siblings take away")]
    public bool CompensateProbabilities { get; init; } = true;

    /// <summary>Whether a child's magnitude is multiplied by its parent's over that one's mean.</summary>
    [Category(Bench), Description("multiply a child's magnitude by its parent's over that one's mean")]
    public bool ScaleChildrenByParent { get; init; } = true;

    /// <summary>Common causes behind the features. 0: features fire independently.</summary>
    [Category(Bench), Description("common causes behind the features; 0: they fire independently")]
    public int CorrelationRank { get; init; } = 25;

    /// <summary>Standard deviation of a feature's dependence on a common cause.</summary>
    [Category(Bench), Description("standard deviation of a feature's dependence on a common cause")]
    public double CorrelationScale { get; init; } = 0.1;

    /// <summary>Steps that push the directions apart. 0: they stay as drawn.</summary>
    [Category(Bench), Description("steps that push the directions apart; 0: they stay as drawn")]
    public int OrthogonalizationSteps { get; init; } = 100;

    /// <summary>Adam's learning rate in these steps.</summary>
    [Category(Bench), Description("Adam's learning rate in these steps")]
    public double OrthogonalizationLr { get; init; } = 3e-4;

    /// <summary>Mean magnitude of the first feature.</summary>
    [Category(Bench), Description("mean magnitude of the first feature")]
    public double MeanMagnitudeStart { get; init; } = 5;

    /// <summary>Mean magnitude of the last feature; linear between.</summary>
    [Category(Bench), Description("mean magnitude of the last feature; linear between")]
    public double MeanMagnitudeEnd { get; init; } = 4;

    /// <summary>Each feature's magnitudes deviate by |N(this, std_magnitude_std)|.</summary>
    [Category(Bench), Description("a feature's magnitudes deviate by |N(this, std_magnitude_std)|")]
    public double StdMagnitudeMean { get; init; } = 0.5;

    /// <summary>Spread of the features' deviations.</summary>
    [Category(Bench), Description("spread of the features' deviations")]
    public double StdMagnitudeStd { get; init; } = 0.5;

    /// <summary>Norm of the offset added to every row.</summary>
    [Category(Bench), Description("norm of the offset added to every row")]
    public double BiasNorm { get; init; } = 0.5;

    /// <summary>
    /// SynthSAEBench-16k: 16,384 features in 768 dimensions, about 34 of them in a row. Chanin and Garriga-Alonso 2026,
    /// arXiv:2602.14687.
    /// </summary>
    public static SyntheticConfig SynthSaeBench16k { get; } = new() { Generator = FeatureGenerator.SynthSaeBench, NTrue = 16384, DIn = 768 };

    /// <summary>
    /// A sixteenth of <see cref="SynthSaeBench16k"/>, for a laptop: 1,024 features in 128 dimensions, about 8 of them in
    /// a row. Trees are as deep and wide; there are 8 of them.
    /// </summary>
    public static SyntheticConfig SynthSaeBench1k { get; } = new()
    {
        Generator = FeatureGenerator.SynthSaeBench,
        NTrue = 1024,
        DIn = 128,
        TotalRootNodes = 8,
        MinFiringProb = 2e-3,
    };

    /// <summary>Checks every setting.</summary>
    /// <exception cref="InvalidInputException">A setting is out of range.</exception>
    public void Validate()
    {
        if (DIn < 2) throw new InvalidInputException($"d_in: {DIn}; the synthetic source needs at least 2");
        if (NTrue < 1) throw new InvalidInputException($"n_true: {NTrue} is not at least 1");
        if (Generator == FeatureGenerator.Superposition) ValidatePlain();
        else ValidateBench();
    }

    private void ValidatePlain()
    {
        if (!(MeanActive > 0 && MeanActive <= NTrue)) throw new InvalidInputException($"mean_active: {MeanActive} is not in (0, n_true = {NTrue}]");
        Between("power_law", PowerLaw, 0, 10);
        if (!(MagnitudeSpread is >= 0 and < 1)) throw new InvalidInputException($"magnitude_spread: {MagnitudeSpread} is not in [0, 1)");
        if (!(NoiseStd >= 0 && double.IsFinite(NoiseStd))) throw new InvalidInputException($"noise_std: {NoiseStd} is negative or not finite");
        if (GroupSize < 1) throw new InvalidInputException($"group_size: {GroupSize} is not at least 1");
    }

    private void ValidateBench()
    {
        if (!(ZipfExponent is > 0 and <= 10)) throw new InvalidInputException($"zipf_exponent: {ZipfExponent} is not in (0, 10]");
        if (!(MinFiringProb >= 1e-12 && MinFiringProb < MaxFiringProb && MaxFiringProb <= 1))
            throw new InvalidInputException($"min_firing_prob: {MinFiringProb} and max_firing_prob: {MaxFiringProb} do not fit; 1e-12 <= min < max <= 1");
        Between("total_root_nodes", TotalRootNodes, 0, int.MaxValue);
        if (TotalRootNodes > 0) Between("branching_factor", BranchingFactor, 1, int.MaxValue);
        Between("max_depth", MaxDepth, 0, 64);
        Between("mutually_exclusive_portion", MutuallyExclusivePortion, 0, 1);
        Between("mutually_exclusive_min_depth", MutuallyExclusiveMinDepth, 0, int.MaxValue);
        if (MutuallyExclusiveMaxDepth < MutuallyExclusiveMinDepth)
            throw new InvalidInputException($"mutually_exclusive_max_depth: {MutuallyExclusiveMaxDepth} is below mutually_exclusive_min_depth = {MutuallyExclusiveMinDepth}");
        Between("correlation_rank", CorrelationRank, 0, 4096);
        Between("correlation_scale", CorrelationScale, 0, 100);
        Between("orthogonalization_steps", OrthogonalizationSteps, 0, int.MaxValue);
        if (!(OrthogonalizationLr > 0 && double.IsFinite(OrthogonalizationLr))) throw new InvalidInputException($"orthogonalization_lr: {OrthogonalizationLr} is not a positive number");
        if (!(MeanMagnitudeStart > 0 && double.IsFinite(MeanMagnitudeStart))) throw new InvalidInputException($"mean_magnitude_start: {MeanMagnitudeStart} is not a positive number");
        if (!(MeanMagnitudeEnd > 0 && double.IsFinite(MeanMagnitudeEnd))) throw new InvalidInputException($"mean_magnitude_end: {MeanMagnitudeEnd} is not a positive number");
        Between("std_magnitude_mean", StdMagnitudeMean, 0, 1e6);
        Between("std_magnitude_std", StdMagnitudeStd, 0, 1e6);
        Between("bias_norm", BiasNorm, 0, 1e6);
    }

    private static void Between(string name, double value, double least, double most)
    {
        if (!(value >= least && value <= most))
            throw new InvalidInputException(most >= int.MaxValue ? $"{name}: {value} is below {least}" : $"{name}: {value} is not in {least}..{most}");
    }
}
