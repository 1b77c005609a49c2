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
}
