using IlgpuSae.Kernels;
using IlgpuSae.Tensors;
using Xunit;

namespace IlgpuSae.Tests.Kernels;

public sealed class PhiloxTests
{
    /// <summary>Random123 1.14, kat_vectors, philox4x32 10.</summary>
    [Theory]
    [InlineData(0u, 0u, 0u, 0u, 0u, 0u, 0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u)]
    [InlineData(~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu)]
    [InlineData(0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u, 0xa4093822u, 0x299f31d0u, 0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u)]
    public void Gives_the_known_answers(uint c0, uint c1, uint c2, uint c3, uint k0, uint k1, uint a, uint b, uint c, uint d) =>
        Assert.Equal((a, b, c, d), Philox.Rounds(c0, c1, c2, c3, k0, k1));

    [Fact]
    public void A_stream_can_be_entered_anywhere()
    {
        var whole = new Philox(5, 6);
        for (var i = 0; i < 7; i++) whole.NextUInt32();
        Assert.Equal(7ul, whole.Position);
        var entered = new Philox(5, 6, 7);
        for (var i = 0; i < 9; i++) Assert.Equal(whole.NextUInt32(), entered.NextUInt32());
        Assert.NotEqual(new Philox(5, 7).NextUInt32(), new Philox(5, 6).NextUInt32());
        Assert.NotEqual(new Philox(4, 6).NextUInt32(), new Philox(5, 6).NextUInt32());
    }

    [Fact]
    public void Integers_below_a_bound_are_equally_likely()
    {
        var random = new Philox(1, 2);
        var counts = new int[6];
        for (var i = 0; i < 60_000; i++) counts[random.NextBelow(6)]++;
        // Standard deviation of a count: 91.
        Assert.All(counts, c => Assert.InRange(c, 10_000 - 500, 10_000 + 500));
        // A bound for which a plain product would favour low numbers by a half.
        var high = 0;
        const int Bound = 0x60000000;
        for (var i = 0; i < 30_000; i++) if (random.NextBelow(Bound) >= Bound / 2) high++;
        Assert.InRange(high, 15_000 - 500, 15_000 + 500);
        Assert.Throws<InvalidInputException>(() => new Philox(1, 2).NextBelow(0));
    }

    [Fact]
    public void Uniform_and_normal_numbers_have_their_moments()
    {
        const int N = 200_000;
        var random = new Philox(11, 0);
        double sum = 0, normal = 0, square = 0, fourth = 0;
        for (var i = 0; i < N; i++)
        {
            var u = random.NextSingle();
            Assert.InRange(u, 0f, 0.99999994f);
            sum += u;
            var z = random.NextNormal();
            normal += z;
            square += z * z;
            fourth += z * z * z * z;
        }

        // Five standard deviations of each mean.
        Assert.InRange(sum / N, 0.5 - 0.0033, 0.5 + 0.0033);
        Assert.InRange(normal / N, -0.0112, 0.0112);
        Assert.InRange(square / N, 1 - 0.0158, 1 + 0.0158);
        Assert.InRange(fourth / N, 3 - 0.11, 3 + 0.11);
    }

    [Fact]
    public void Normal_numbers_are_those_of_the_formula_and_their_bits_are_pinned()
    {
        foreach (var (a, b) in new[] { (0u, 0u), (1u, 1u << 29), (~0u, ~0u), (0x80000000u, 0x60000001u), (12345u, 0xC0000000u), (99u, 0x3fffffffu) })
        {
            var radius = Math.Sqrt(-2 * Math.Log((a + 0.5) / 4294967296.0));
            var angle = 2 * Math.PI * b / 4294967296.0;
            var (cosine, sine) = Philox.ToNormals(a, b);
            Assert.Equal(radius * Math.Cos(angle), cosine, 1e-14);
            Assert.Equal(radius * Math.Sin(angle), sine, 1e-14);
        }

        using var device = new CpuDevice(2);
        using var x = new Tensor(device, [4]);
        RandomFill.Normal(x, 42, 1);
        Assert.Equal([1074277399u, 1074418675u, 3201370336u, 3218371274u], Array.ConvertAll(x.ToArray<float>(), BitConverter.SingleToUInt32Bits));
    }

    [Fact]
    public void Permutations_hold_every_index_once_and_start_everywhere()
    {
        var firsts = new int[8];
        for (ulong stream = 0; stream < 4000; stream++)
        {
            var order = Philox.Permutation(8, 3, stream);
            firsts[order[0]]++;
            Array.Sort(order);
            Assert.Equal([0, 1, 2, 3, 4, 5, 6, 7], order);
        }

        // 500 expected, standard deviation 21.
        Assert.All(firsts, c => Assert.InRange(c, 395, 605));
        Assert.Empty(Philox.Permutation(0, 3, 0));
    }
}
