using IlgpuSae.Kernels;
using IlgpuSae.Tensors;
using Xunit;

namespace IlgpuSae.GpuTests;

/// <summary>One accelerator whose groups are large enough for the tiles of CUDA.</summary>
public sealed class WideGroups : IDisposable
{
    internal GpuDevice Device { get; } = GpuDevice.OpenCpuAccelerator(256);

    public void Dispose() => Device.Dispose();
}

/// <summary>The tiled products, which only CUDA devices choose by themselves, against the definition at small sizes.</summary>
public sealed class GemmTileTests(WideGroups groups) : IClassFixture<WideGroups>
{
    /// <summary>Rounding of sums of fewer than 32 products of numbers below 1.</summary>
    private const double Tolerance = 1e-5;

    [Theory]
    [InlineData(false, false)]
    [InlineData(false, true)]
    [InlineData(true, false)]
    [InlineData(true, true)]
    public void Wide_tiles_agree_with_the_definition(bool transposeA, bool transposeB)
    {
        // Two tiles along one axis, in turn; one part along k, or two.
        if (transposeA == transposeB) Check((132, 12, 24), transposeA, transposeB, DType.F32, bias: true, parts: 1);
        else Check((8, 136, 24), transposeA, transposeB, DType.F32, bias: true, parts: 2);
    }

    [Fact]
    public void Wide_tiles_store_a_width_that_is_no_multiple_of_four() =>
        Check((4, 13, 8), false, true, DType.F32, bias: true, parts: 1);

    [Fact]
    public void Wide_tiles_widen_bfloat16() => Check((4, 8, 8), false, true, DType.BF16, bias: false, parts: 1);

    [Theory]
    [InlineData(false, false)]
    [InlineData(false, true)]
    [InlineData(true, false)]
    [InlineData(true, true)]
    public void Small_tiles_agree_with_the_definition(bool transposeA, bool transposeB)
    {
        if (transposeA == transposeB) Check((66, 3, 18), transposeA, transposeB, DType.F32, bias: true, parts: 1);
        else Check((3, 65, 21), transposeA, transposeB, DType.BF16, bias: true, parts: 2);
    }

    [Fact]
    public void A_sum_over_nothing_is_the_bias() => Check((3, 5, 0), false, true, DType.F32, bias: true, parts: 1);

    [Fact]
    public void Factors_of_tensor_cores_are_rounded_and_transposed()
    {
        const int Rows = 5, K = 19;
        var random = new Random(3);
        var values = Values(random, Rows * K);
        values[0] = 1 + (1f / 256);
        values[1] = 1 + (3f / 256);
        values[2] = float.NaN;
        using var scope = new TensorScope(groups.Device);
        using var along = Gemm.AlongK(groups.Device, scope.From<float>(values, [Rows, K]), Rows, K, transposed: false)!;
        Assert.Equal([.. values.Select(Rounded)], Widen(along));
        using var across = Gemm.AlongK(groups.Device, scope.From<float>(values, [K, Rows]), Rows, K, transposed: true)!;
        Assert.Equal([.. Enumerable.Range(0, Rows * K).Select(i => Rounded(values[(i % K * Rows) + (i / K)]))], Widen(across));

        // Ties go to the even neighbour: 1 + 1/256 down to 1, 1 + 3/256 up to 1 + 4/256.
        static float Rounded(float v) => v == 1 + (1f / 256) ? 1 : v == 1 + (3f / 256) ? 1 + (4f / 256) : v;
    }

    /// <summary>Half a minute: each of a warp's lanes is a thread of the operating system, and every exchange a barrier.</summary>
    [Fact(Explicit = true)]
    public void Tensor_cores_agree_with_the_definition()
    {
        var (m, n, k) = (70, 45, 64);
        var random = new Random(17);
        var device = groups.Device;
        using var scope = new TensorScope(device);
        float[] va = Values(random, m * k), vb = Values(random, n * k), vbias = Values(random, n);
        var y = scope.New([m, n]);
        Gemm.OnTensorCores(device, (m, n, k), scope.From<float>(va, [m, k]), scope.From<float>(vb, [k, n]), scope.From<float>(vbias, [n]), false, false, y);
        var expected = Gemm.Reference((m, n, k), Double(va), Double(vb), Double(vbias), false, false);
        Assert.All(y.ToArray<float>().Zip(expected), p => Assert.Equal(p.Second, p.First, Tolerance));
    }

    private static unsafe float[] Widen(Tensor bfloat16)
    {
        using var cpu = new CpuDevice(1);
        using var host = new Tensor(cpu, bfloat16.Shape, DType.BF16);
        host.CopyFrom(bfloat16);
        var y = new float[host.Count];
        for (var i = 0; i < y.Length; i++) y[i] = BitConverter.UInt32BitsToSingle((uint)((ushort*)host.HostAddress)[i] << 16);
        return y;
    }

    private void Check((int M, int N, int K) sizes, bool transposeA, bool transposeB, DType typeB, bool bias, int parts)
    {
        var (m, n, k) = sizes;
        var random = new Random(17);
        var device = groups.Device;
        using var scope = new TensorScope(device);
        float[] va = Values(random, m * k), vb = Values(random, n * k), vbias = Values(random, n);
        var a = scope.From<float>(va, transposeA ? [k, m] : [m, k]);
        Shape shapeB = transposeB ? [n, k] : [k, n];
        var b = typeB == DType.F32 ? scope.From<float>(vb, shapeB) : BFloat16(scope, vb, shapeB);
        var y = scope.New([m, n]);
        Gemm.Tiled(device, sizes, a, b, bias ? scope.From<float>(vbias, [n]) : null, transposeA, transposeB, y, parts);
        var expected = Gemm.Reference(sizes, Double(va), Double(vb), bias ? Double(vbias) : null, transposeA, transposeB);
        var actual = y.ToArray<float>();
        for (var i = 0; i < expected.Length; i++)
            Assert.True(Math.Abs(actual[i] - expected[i]) <= Tolerance, $"{sizes} parts {parts}: element {i} is {actual[i]}, expected {expected[i]}");
    }

    /// <summary>Values with eight bits, so that bfloat16 holds them exactly.</summary>
    private static float[] Values(Random random, int count) => Enumerable.Range(0, count).Select(_ => random.Next(-128, 128) / 128f).ToArray();

    private static double[] Double(float[] x) => x.Select(v => (double)v).ToArray();

    private static unsafe Tensor BFloat16(TensorScope scope, float[] values, Shape shape)
    {
        using var cpu = new CpuDevice(1);
        using var host = new Tensor(cpu, shape, DType.BF16);
        for (var i = 0; i < values.Length; i++) ((ushort*)host.HostAddress)[i] = (ushort)(BitConverter.SingleToUInt32Bits(values[i]) >> 16);
        var t = scope.New(shape, DType.BF16);
        t.CopyFrom(host);
        return t;
    }
}
