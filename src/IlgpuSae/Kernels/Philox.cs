namespace IlgpuSae.Kernels;

/// <summary>
/// Random numbers by counter: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), equal
/// to Random123's test vectors. A number depends on (seed, stream, position) alone, so any part of any stream can be
/// made anywhere, in any order, on any number of threads. Normal numbers use only correctly rounded operations, so
/// their bits do not depend on the machine's mathematics library. Not for cryptography.
/// </summary>
/// <remarks>A mutable value: pass it by reference or keep it in a variable, or positions repeat.</remarks>
public struct Philox
{
    private const uint M0 = 0xD2511F53, M1 = 0xCD9E8D57, W0 = 0x9E3779B9, W1 = 0xBB67AE85;
    private const double TwoToMinus32 = 1.0 / 4294967296.0;

    private readonly ulong _seed;
    private readonly ulong _stream;

    /// <summary>A generator at a position of a stream.</summary>
    /// <param name="seed">The user's seed: the key.</param>
    /// <param name="stream">What the numbers are for: streams of one seed are independent.</param>
    /// <param name="position">Index of the first 32-bit word to come.</param>
    public Philox(ulong seed, ulong stream, ulong position = 0)
    {
        _seed = seed;
        _stream = stream;
        Position = position;
    }

    /// <summary>Index of the next 32-bit word of the stream: what to save to go on later.</summary>
    public ulong Position { get; private set; }

    /// <summary>Four words of a stream at once: words 4 <paramref name="index"/> .. 4 index + 3.</summary>
    /// <param name="seed">The seed.</param>
    /// <param name="stream">The stream.</param>
    /// <param name="index">Index of the block of four.</param>
    public static (uint A, uint B, uint C, uint D) Block(ulong seed, ulong stream, ulong index) =>
        Rounds((uint)index, (uint)(index >> 32), (uint)stream, (uint)(stream >> 32), (uint)seed, (uint)(seed >> 32));

    /// <summary>Philox4x32-10 of a counter and a key.</summary>
    internal static (uint A, uint B, uint C, uint D) Rounds(uint c0, uint c1, uint c2, uint c3, uint k0, uint k1)
    {
        for (var round = 0; round < 10; round++)
        {
            ulong p0 = (ulong)M0 * c0, p1 = (ulong)M1 * c2;
            (c0, c1, c2, c3) = ((uint)(p1 >> 32) ^ c1 ^ k0, (uint)p1, (uint)(p0 >> 32) ^ c3 ^ k1, (uint)p0);
            unchecked
            {
                k0 += W0;
                k1 += W1;
            }
        }

        return (c0, c1, c2, c3);
    }

    /// <summary>32 random bits.</summary>
    public uint NextUInt32()
    {
        var (a, b, c, d) = Block(_seed, _stream, Position >> 2);
        return (Position++ & 3) switch { 0 => a, 1 => b, 2 => c, _ => d };
    }

    /// <summary>A number in [0, 1), a multiple of 2^-24; one word.</summary>
    public float NextSingle() => ToUniform(NextUInt32());

    /// <summary>A standard normal number; two words (Box-Muller, the cosine).</summary>
    public double NextNormal()
    {
        uint a = NextUInt32(), b = NextUInt32();
        return ToNormals(a, b).Cosine;
    }

    /// <summary>An integer in 0 .. n-1, each equally likely (Lemire's rejection); one word, seldom more.</summary>
    /// <param name="n">At least 1.</param>
    /// <exception cref="InvalidInputException"><paramref name="n"/> is below 1.</exception>
    public int NextBelow(int n)
    {
        if (n < 1) throw new InvalidInputException($"random integer below {n}: the bound must be at least 1");
        var product = (ulong)NextUInt32() * (uint)n;
        if ((uint)product < (uint)n)
        {
            var threshold = unchecked((uint)-n) % (uint)n;
            while ((uint)product < threshold) product = (ulong)NextUInt32() * (uint)n;
        }

        return (int)(product >> 32);
    }

    /// <summary>Shuffles in place (Fisher-Yates, from the end).</summary>
    /// <param name="items">What to shuffle.</param>
    public void Shuffle<T>(Span<T> items)
    {
        for (var i = items.Length - 1; i > 0; i--)
        {
            var j = NextBelow(i + 1);
            (items[i], items[j]) = (items[j], items[i]);
        }
    }

    /// <summary>A random order of 0 .. n-1.</summary>
    /// <param name="n">How many.</param>
    /// <param name="seed">The seed.</param>
    /// <param name="stream">The stream, used from its start.</param>
    public static int[] Permutation(int n, ulong seed, ulong stream)
    {
        var order = new int[n];
        for (var i = 0; i < n; i++) order[i] = i;
        new Philox(seed, stream).Shuffle(order.AsSpan());
        return order;
    }

    /// <summary>A word's upper 24 bits as a number in [0, 1).</summary>
    internal static float ToUniform(uint word) => (word >> 8) * (1f / 16777216f);

    /// <summary>Two independent standard normal numbers of two words (Box-Muller).</summary>
    internal static (double Cosine, double Sine) ToNormals(uint a, uint b)
    {
        var radius = Math.Sqrt(-2 * Log((a + 0.5) * TwoToMinus32));
        var (sine, cosine) = SinCosTurn(b);
        return (radius * cosine, radius * sine);
    }

    /// <summary>Natural logarithm of a positive, normal number, to about 1e-15: 2 artanh((m-1)/(m+1)) + n ln 2.</summary>
    internal static double Log(double x)
    {
        var bits = BitConverter.DoubleToInt64Bits(x);
        var n = (int)(bits >> 52) - 1023;
        var m = BitConverter.Int64BitsToDouble((bits & 0xFFFFFFFFFFFFF) | (1023L << 52));
        if (m > 1.4142135623730951)
        {
            m *= 0.5;
            n++;
        }

        var s = (m - 1) / (m + 1);
        var q = s * s;
        var p = (((((((((((((((((1.0 / 21 * q) + (1.0 / 19)) * q) + (1.0 / 17)) * q) + (1.0 / 15)) * q) + (1.0 / 13)) * q) + (1.0 / 11)) * q)
            + (1.0 / 9)) * q) + (1.0 / 7)) * q) + (1.0 / 5)) * q) + (1.0 / 3);
        return (n * 0.6931471805599453) + (2 * (s + (s * q * p)));
    }

    /// <summary>Sine and cosine of 2 pi b / 2^32: the eighth of the circle is exact, the rest a Taylor series.</summary>
    private static (double Sine, double Cosine) SinCosTurn(uint b)
    {
        // The nearest quarter turn and the rest, within an eighth to either side.
        var quarter = unchecked(b + (1u << 29)) >> 30;
        var x = unchecked((int)(b - (quarter << 30))) * (2 * Math.PI * TwoToMinus32);
        var q = x * x;
        var sine = -1.0 / 1307674368000.0;
        sine = (sine * q) + (1.0 / 6227020800.0);
        sine = (sine * q) - (1.0 / 39916800.0);
        sine = (sine * q) + (1.0 / 362880);
        sine = (sine * q) - (1.0 / 5040);
        sine = (sine * q) + (1.0 / 120);
        sine = (sine * q) - (1.0 / 6);
        sine = x + (x * q * sine);
        var cosine = 1.0 / 20922789888000.0;
        cosine = (cosine * q) - (1.0 / 87178291200.0);
        cosine = (cosine * q) + (1.0 / 479001600.0);
        cosine = (cosine * q) - (1.0 / 3628800);
        cosine = (cosine * q) + (1.0 / 40320);
        cosine = (cosine * q) - (1.0 / 720);
        cosine = (cosine * q) + (1.0 / 24);
        cosine = (cosine * q) - (1.0 / 2);
        cosine = 1 + (q * cosine);
        return quarter switch { 0 => (sine, cosine), 1 => (cosine, -sine), 2 => (-sine, -cosine), _ => (-cosine, sine) };
    }
}
