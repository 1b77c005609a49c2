namespace IlgpuSae.Saes;

/// <summary>
/// Uniform numbers by (seed, stream, position) for initial weights: Philox4x32-10 of Salmon et al. 2011, "Parallel Random
/// Numbers: As Easy as 1, 2, 3". The same on every machine.
/// </summary>
internal static class InitialDraw
{
    /// <summary>Fills with numbers in [0, 1), multiples of 2^-24.</summary>
    /// <param name="values">Number i is the draw at position i.</param>
    /// <param name="seed">The key.</param>
    /// <param name="stream">Numbers of different streams are independent.</param>
    public static void Uniform(Span<float> values, ulong seed, ulong stream)
    {
        Span<uint> block = stackalloc uint[4];
        for (var i = 0; i < values.Length; i += 4)
        {
            Block(block, seed, stream, (ulong)i / 4);
            for (var k = 0; k < 4 && i + k < values.Length; k++) values[i + k] = (block[k] >> 8) * (1f / (1 << 24));
        }
    }

    /// <summary>Ten rounds on the counter (position, stream).</summary>
    internal static void Block(Span<uint> output, ulong seed, ulong stream, ulong position)
    {
        var (k0, k1) = ((uint)seed, (uint)(seed >> 32));
        var (c0, c1, c2, c3) = ((uint)position, (uint)(position >> 32), (uint)stream, (uint)(stream >> 32));
        for (var round = 0; round < 10; round++)
        {
            var (p0, p1) = (0xD2511F53UL * c0, 0xCD9E8D57UL * c2);
            (c0, c1, c2, c3) = ((uint)(p1 >> 32) ^ c1 ^ k0, (uint)p1, (uint)(p0 >> 32) ^ c3 ^ k1, (uint)p0);
            (k0, k1) = (k0 + 0x9E3779B9, k1 + 0xBB67AE85);
        }

        (output[0], output[1], output[2], output[3]) = (c0, c1, c2, c3);
    }
}
