namespace IlgpuSae.Activations;

/// <summary>Which of a seed's Philox streams is for what, so that two uses of one seed never see the same numbers.</summary>
internal static class RandomStreams
{
    private const int Kind = 56;

    /// <summary>Orders of rows: one a refill or epoch.</summary>
    public static ulong Order(uint number) => (1UL << Kind) | number;

    /// <summary>Directions of the synthetic features: one a feature.</summary>
    public static ulong Direction(int feature) => (2UL << Kind) | (uint)feature;

    /// <summary>Rows of the synthetic source: one a row.</summary>
    public static ulong Row(long row) => (3UL << Kind) | (ulong)row;

    /// <summary>Which features of a SynthSAEBench row fire: one a row, one word a feature.</summary>
    public static ulong Firing(long row) => (4UL << Kind) | (ulong)row;

    /// <summary>How strongly the features of a SynthSAEBench row fire: one a row, two words a feature.</summary>
    public static ulong Magnitude(long row) => (5UL << Kind) | (ulong)row;

    /// <summary>Which of several siblings of a SynthSAEBench row stays: one a row, one word a parent.</summary>
    public static ulong Winner(long row) => (6UL << Kind) | (ulong)row;

    /// <summary>The common causes behind a SynthSAEBench row's features: one a row, two words a factor.</summary>
    public static ulong Factors(long row) => (7UL << Kind) | (ulong)row;

    /// <summary>How a synthetic feature depends on the common causes: one a feature.</summary>
    public static ulong Loading(int feature) => (8UL << Kind) | (uint)feature;

    /// <summary>Spreads of the magnitudes of all synthetic features.</summary>
    public static ulong Spread => 9UL << Kind;

    /// <summary>The synthetic rows' common offset.</summary>
    public static ulong Bias => 10UL << Kind;

    /// <summary>Which parents' children exclude each other.</summary>
    public static ulong Exclusion => 11UL << Kind;
}
