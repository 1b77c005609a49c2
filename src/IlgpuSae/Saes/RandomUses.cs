namespace IlgpuSae.Saes;

/// <summary>
/// Which of a seed's Philox streams training uses for what, so that two uses of one seed never see the same numbers.
/// Activation sources have kinds of their own, below 16.
/// </summary>
internal static class RandomUses
{
    /// <summary>The decoder's first weights.</summary>
    public const ulong Decoder = 0;

    /// <summary>The encoder's first weights, where they are not the decoder's.</summary>
    public const ulong Encoder = 1;

    private const int Kind = 56;

    /// <summary>Noise on the pre-activations of one step.</summary>
    public static ulong Noise(long step) => (16UL << Kind) | (ulong)step;

    /// <summary>Choice of the rows that dead features are given at one step.</summary>
    public static ulong Resampling(long step) => (17UL << Kind) | (ulong)step;
}
