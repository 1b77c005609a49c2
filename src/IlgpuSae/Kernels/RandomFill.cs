using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Fills tensors with <see cref="Philox"/> numbers: element i takes word i of the stream (uniform), or words 4j .. 4j+3
/// make elements 4j .. 4j+3 (normal: two Box-Muller pairs). Computed on the host and copied where it is needed, so the
/// bits are the same on every device.
/// </summary>
[Kernel]
public static class RandomFill
{
    private const int Piece = 1 << 13;

    /// <summary>Uniform in [low, high).</summary>
    /// <param name="target">F32, overwritten.</param>
    /// <param name="seed">The seed.</param>
    /// <param name="stream">The stream, used from its start.</param>
    /// <param name="low">Lower bound, inclusive.</param>
    /// <param name="high">Upper bound; excluded up to rounding.</param>
    public static void Uniform(Tensor target, ulong seed, ulong stream, float low = 0, float high = 1) =>
        Fill(target, (from, part) =>
        {
            for (var i = 0; i < part.Length; i += 4)
            {
                var (a, b, c, d) = Philox.Block(seed, stream, (ulong)(from + i) >> 2);
                Put(part, i, Scaled(a), Scaled(b), Scaled(c), Scaled(d));
            }

            float Scaled(uint word) => low + ((high - low) * Philox.ToUniform(word));
        });

    /// <summary>Normal.</summary>
    /// <param name="target">F32, overwritten.</param>
    /// <param name="seed">The seed.</param>
    /// <param name="stream">The stream, used from its start.</param>
    /// <param name="mean">Mean.</param>
    /// <param name="std">Standard deviation.</param>
    public static void Normal(Tensor target, ulong seed, ulong stream, float mean = 0, float std = 1) =>
        Fill(target, (from, part) =>
        {
            for (var i = 0; i < part.Length; i += 4)
            {
                var (a, b, c, d) = Philox.Block(seed, stream, (ulong)(from + i) >> 2);
                var (z0, z1) = Philox.ToNormals(a, b);
                var (z2, z3) = Philox.ToNormals(c, d);
                Put(part, i, Scaled(z0), Scaled(z1), Scaled(z2), Scaled(z3));
            }

            float Scaled(double z) => (float)(mean + (std * z));
        });

    internal static double[] ReferenceNormal(int n, ulong seed, ulong stream, float mean, float std)
    {
        var words = Words(n + 3, seed, stream);
        var y = new double[n];
        for (var i = 0; i < n; i++)
        {
            var radius = Math.Sqrt(-2 * Math.Log((words[i & ~1] + 0.5) / 4294967296.0));
            var angle = 2 * Math.PI * words[i | 1] / 4294967296.0;
            y[i] = mean + (std * radius * ((i & 1) == 0 ? Math.Cos(angle) : Math.Sin(angle)));
        }

        return y;
    }

    internal static double[] ReferenceUniform(int n, ulong seed, ulong stream, float low, float high) =>
        Array.ConvertAll(Words(n, seed, stream), w => low + ((high - low) * ((w >> 8) / 16777216.0)));

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var n in new[] { 0, 1, 6, 1003, 20001 })
        {
            yield return new KernelCase($"{n} normal", [], (scope, _) =>
            {
                var x = scope.New([n]);
                Normal(x, 0x123456789AB, 1UL << 40, 0.5f, 2);
                return [x];
            }, _ => [ReferenceNormal(n, 0x123456789AB, 1UL << 40, 0.5f, 2)]);
            yield return new KernelCase($"{n} uniform", [], (scope, _) =>
            {
                var x = scope.New([n]);
                Uniform(x, 7, 3, -1, 1);
                return [x];
            }, _ => [ReferenceUniform(n, 7, 3, -1, 1)]);
        }
    }

    private delegate void PartFill(long from, Span<float> part);

    private static uint[] Words(int n, ulong seed, ulong stream)
    {
        var random = new Philox(seed, stream);
        var words = new uint[n];
        for (var i = 0; i < n; i++) words[i] = random.NextUInt32();
        return words;
    }

    private static unsafe void Fill(Tensor target, PartFill fill)
    {
        if (target.Device is CpuDevice cpu)
        {
            var p = target.F32;
            cpu.Pool.ForRange(target.Count, Piece, (from, to) => fill(from, new Span<float>(p + from, (int)(to - from))));
            return;
        }

        var host = new float[target.Count];
        Parallel.For(0, (int)((target.Count + Piece - 1) / Piece), i =>
        {
            var from = i * (long)Piece;
            fill(from, host.AsSpan((int)from, (int)Math.Min(Piece, host.Length - from)));
        });
        target.CopyFrom<float>(host);
    }

    private static void Put(Span<float> part, int i, float a, float b, float c, float d)
    {
        part[i] = a;
        if (i + 1 < part.Length) part[i + 1] = b;
        if (i + 2 < part.Length) part[i + 2] = c;
        if (i + 3 < part.Length) part[i + 3] = d;
    }
}
