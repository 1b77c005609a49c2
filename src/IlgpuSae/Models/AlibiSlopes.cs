namespace IlgpuSae.Models;

/// <summary>
/// The slopes of ALiBi: a geometric sequence from 2^(-8/n) for n heads, n a power of two; for other numbers, those of
/// the power below and then every second one of the power above, as transformers' build_alibi_tensor has it (which is
/// what BLOOM was trained with; TransformerLens has the first rule for every n).
/// </summary>
internal static class AlibiSlopes
{
    internal static float[] For(int heads)
    {
        var below = 1;
        while (2 * below <= heads) below *= 2;
        var slopes = new float[heads];
        for (var h = 0; h < heads; h++)
            slopes[h] = (float)(h < below ? Math.Pow(2, -8.0 * (h + 1) / below) : Math.Pow(2, -4.0 * ((2 * (h - below)) + 1) / below));
        return slopes;
    }
}
