using System.Runtime.Intrinsics.Arm;
using System.Runtime.Intrinsics.X86;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;
using Xunit;

namespace IlgpuSae.Tests;

/// <summary>What the generic kernel test does not see: bits, half-precision operands, strides, the tile epilogue.</summary>
public sealed class GemmTests
{
    private static readonly (int M, int N, int K)[] Sizes =
        [(1, 1, 1), (1, 40, 33), (1, 70, 900), (2, 65, 17), (3, 100, 129), (4, 37, 24), (7, 50, 107), (12, 1100, 5), (13, 31, 8), (14, 32, 16), (15, 33, 25), (130, 70, 40), (29, 600, 1700), (300, 40, 64), (120, 1200, 500), (60, 40, 4500), (3, 40, 4500)];

    private static bool HasFma => Fma.IsSupported || AdvSimd.IsSupported;

    [Theory]
    [InlineData(false, false)]
    [InlineData(false, true)]
    [InlineData(true, false)]
    [InlineData(true, true)]
    public void Every_element_is_one_chain_of_fused_multiply_adds(bool transposeA, bool transposeB)
    {
        Assert.SkipUnless(HasFma, "the processor has no fused multiply-add: products are rounded, so the bits differ");
        using var device = new CpuDevice(2);
        foreach (var (m, n, k) in Sizes)
        {
            using var scope = new TensorScope(device);
            var (a, b, bias) = Operands(scope, m, n, k);
            var expected = Chains(a, b, bias, m, n, k);
            var y = Gemm.Multiply(scope, Stored(scope, a, m, k, transposeA), Stored(scope, b, n, k, !transposeB),
                scope.From<float>(bias, [n]), transposeA, transposeB);
            Assert.Equal(expected, y.ToArray<float>());
        }
    }

    [Fact]
    public void A_row_has_the_same_bits_in_a_batch_of_any_size_and_on_any_number_of_threads()
    {
        const int N = 333, K = 1111, M = 150;
        var results = new List<float[]>();
        foreach (var threads in new[] { 1, 2, 3 })
        {
            using var device = new CpuDevice(threads);
            using var scope = new TensorScope(device);
            var (a, b, _) = Operands(scope, M, N, K);
            var tb = scope.From<float>(b, [N, K]);
            var whole = Gemm.Multiply(scope, scope.From<float>(a, [M, K]), tb, transposeB: true).ToArray<float>();
            results.Add(whole);
            foreach (var batch in new[] { 1, 2, 3, 5, 8, 17, 40 })
            {
                var part = Gemm.Multiply(scope, scope.From<float>(a.AsSpan(0, batch * K), [batch, K]), tb, transposeB: true).ToArray<float>();
                Assert.Equal(whole.AsSpan(0, batch * N).ToArray(), part);
            }
        }

        Assert.Equal(results[0], results[1]);
        Assert.Equal(results[0], results[2]);
    }

    [Theory]
    [InlineData(DType.BF16)]
    [InlineData(DType.F16)]
    public void Half_precision_operands_equal_their_widened_copies(DType type)
    {
        using var device = new CpuDevice(2);
        foreach (var (m, n, k) in Sizes)
        {
            using var scope = new TensorScope(device);
            var (a, b, _) = Operands(scope, m, n, k);
            foreach (var transposeB in new[] { false, true })
            {
                foreach (var transposeA in new[] { false, true })
                {
                    var (ha, wa) = Halved(scope, Stored(scope, a, m, k, transposeA), type);
                    var (hb, wb) = Halved(scope, Stored(scope, b, n, k, !transposeB), type);
                    Assert.Equal(
                        Gemm.Multiply(scope, wa, wb, null, transposeA, transposeB).ToArray<float>(),
                        Gemm.Multiply(scope, ha, hb, null, transposeA, transposeB).ToArray<float>());
                }
            }
        }
    }

    [Fact]
    public unsafe void Widening_a_half_is_exact_for_all_its_65536_values()
    {
        using var device = new CpuDevice(1);
        using var scope = new TensorScope(device);
        var b = scope.New([1 << 16, 1], DType.F16);
        var halves = Enumerable.Range(0, 1 << 16).Select(i => BitConverter.UInt16BitsToHalf((ushort)i)).ToArray();
        b.CopyFrom<Half>(halves);
        var one = scope.From<float>([1f], [1, 1]);
        var y = Gemm.Multiply(scope, one, b, transposeB: true).ToArray<float>();
        for (var i = 0; i < y.Length; i++)
        {
            var expected = (float)halves[i];
            Assert.True(float.IsNaN(expected) ? float.IsNaN(y[i]) : y[i] == expected, $"half {i:X4}: {y[i]:R}, expected {expected:R}");
        }
    }

    [Fact]
    public unsafe void Strided_operands_and_results_leave_the_rest_untouched()
    {
        const int M = 33, N = 45, K = 29, Lda = 50, Ldb = 37, Ldc = 64;
        using var device = new CpuDevice(2);
        using var scope = new TensorScope(device);
        var random = new Random(7);
        var a = scope.From<float>(Normal(random, M * Lda), [M, Lda]);
        var b = scope.From<float>(Normal(random, N * Ldb), [N, Ldb]);
        var bias = Normal(random, N);
        var c = scope.From<float>(Enumerable.Repeat(5f, M * Ldc).ToArray(), [M, Ldc]);
        var problem = new GemmProblem
        {
            M = M,
            N = N,
            K = K,
            A = new GemmOperand(a.F32, Lda, alongK: true),
            B = new GemmOperand(b.F32, Ldb, alongK: true),
            Bias = scope.From<float>(bias, [N]).F32,
            Relu = true,
        };
        PackedGemm.Multiply(device, problem, c.F32, Ldc);
        float[] ya = a.ToArray<float>(), yb = b.ToArray<float>(), y = c.ToArray<float>();
        for (var i = 0; i < M; i++)
            for (var j = 0; j < Ldc; j++)
            {
                if (j >= N)
                {
                    Assert.Equal(5f, y[(i * Ldc) + j]);
                    continue;
                }

                double sum = bias[j];
                for (var k = 0; k < K; k++) sum += (double)ya[(i * Lda) + k] * yb[(j * Ldb) + k];
                Assert.Equal(Math.Max(0, sum), y[(i * Ldc) + j], 1e-4);
            }
    }

    [Theory]
    [InlineData(1, 1, 1)]
    [InlineData(5, 100, 30)]
    [InlineData(37, 250, 0)]
    [InlineData(100, 333, 64)]
    [InlineData(61, 1200, 1000)]
    [InlineData(9, 5000, 1600)]
    public unsafe void Tiles_arrive_once_in_column_order_with_the_bits_of_the_product(int m, int n, int k)
    {
        foreach (var threads in new[] { 1, 3 })
        {
            using var device = new CpuDevice(threads);
            using var scope = new TensorScope(device);
            var (a, b, bias) = Operands(scope, m, n, k);
            Tensor ta = scope.From<float>(a, [m, k]), tb = scope.From<float>(b, [n, k]), tbias = scope.From<float>(bias, [n]);
            var expected = Gemm.Multiply(scope, ta, tb, tbias, transposeB: true).ToArray<float>();
            var problem = new GemmProblem
            {
                M = m,
                N = n,
                K = k,
                A = new GemmOperand(ta.F32, k, alongK: true),
                B = new GemmOperand(tb.F32, k, alongK: true),
                Bias = tbias.F32,
            };
            var seen = new Collector(m, n);
            PackedGemm.ForEachTile(device, problem, seen);
            Assert.Equal(expected, seen.Values);
            Assert.All(seen.NextColumn, next => Assert.Equal(n, next));
            Assert.All(seen.Begun, b => Assert.Equal(1, b));
            Assert.All(seen.Ended, e => Assert.Equal(1, e));
        }
    }

    [Fact]
    public void A_product_inside_a_piece_of_the_pool_is_the_same_product()
    {
        using var device = new CpuDevice(3);
        using var scope = new TensorScope(device);
        const int M = 50, N = 300, K = 400;
        var (a, b, _) = Operands(scope, M, N, K);
        Tensor ta = scope.From<float>(a, [M, K]), tb = scope.From<float>(b, [N, K]);
        var expected = Gemm.Multiply(scope, ta, tb, transposeB: true).ToArray<float>();
        var results = new float[12][];
        device.Pool.For(results.Length, (i, _) =>
        {
            using var own = new TensorScope(device);
            results[i] = Gemm.Multiply(own, ta, tb, transposeB: true).ToArray<float>();
        });
        Assert.All(results, r => Assert.Equal(expected, r));
    }

    [Fact]
    public void Scratch_comes_from_the_pool_after_the_first_call()
    {
        using var device = new CpuDevice(2);
        using var scope = new TensorScope(device);
        var (a, b, _) = Operands(scope, 100, 200, 300);
        Tensor ta = scope.From<float>(a, [100, 300]), tb = scope.From<float>(b, [200, 300]);
        scope.Release(Gemm.Multiply(scope, ta, tb, transposeB: true));
        var (blocks, used) = (device.SystemAllocations, device.UsedBytes);
        for (var i = 0; i < 5; i++) scope.Release(Gemm.Multiply(scope, ta, tb, transposeB: true));
        Assert.Equal((blocks, used), (device.SystemAllocations, device.UsedBytes));
    }

    [Fact]
    public void Sizes_that_do_not_fit_are_named()
    {
        using var device = new CpuDevice(1);
        using var scope = new TensorScope(device);
        var e = Assert.Throws<ShapeException>(() => Gemm.Multiply(scope, scope.New([512, 640]), scope.New([24576, 768]), transposeB: true));
        Assert.Equal("gemm: a is [512, 640], b [24576, 768] transposed: their inner sizes 640 and 768 differ", e.Message);
        e = Assert.Throws<ShapeException>(() => Gemm.Multiply(scope, scope.New([2, 3]), scope.New([3, 4]), scope.New([5])));
        Assert.Equal("gemm: bias is F32 [5], the product has 4 columns; give F32 [4]", e.Message);
        e = Assert.Throws<ShapeException>(() => Gemm.Multiply(scope, scope.New([2, 3], DType.I32), scope.New([3, 4])));
        Assert.Equal("gemm: a is I32 [2, 3]; give F32, BF16 or F16", e.Message);
    }

    private static float[] Chains(float[] a, float[] b, float[] bias, int m, int n, int k)
    {
        var y = new float[m * n];
        for (var i = 0; i < m; i++)
            for (var j = 0; j < n; j++)
            {
                var s = 0f;
                for (var l = 0; l < k; l++) s = MathF.FusedMultiplyAdd(a[(i * k) + l], b[(j * k) + l], s);
                y[(i * n) + j] = s + bias[j];
            }

        return y;
    }

    private static (float[] A, float[] B, float[] Bias) Operands(TensorScope scope, int m, int n, int k)
    {
        Assert.NotNull(scope);
        var random = new Random((m * 1000) + (n * 10) + k);
        return (Normal(random, m * k), Normal(random, n * k), Normal(random, n));
    }

    /// <summary>The matrix [rows, k], or its transpose in memory.</summary>
    private static Tensor Stored(TensorScope scope, float[] x, int rows, int k, bool transposed)
    {
        if (!transposed) return scope.From<float>(x, [rows, k]);
        var t = new float[x.Length];
        for (var i = 0; i < rows; i++)
            for (var l = 0; l < k; l++) t[(l * rows) + i] = x[(i * k) + l];
        return scope.From<float>(t, [k, rows]);
    }

    private static unsafe (Tensor Half, Tensor Widened) Halved(TensorScope scope, Tensor x, DType type)
    {
        var h = scope.New(x.Shape, type);
        var w = scope.New(x.Shape);
        var p = (ushort*)h.HostAddress;
        for (var i = 0; i < x.Count; i++)
        {
            if (type == DType.F16)
            {
                var v = (Half)x.F32[i];
                p[i] = BitConverter.HalfToUInt16Bits(v);
                w.F32[i] = (float)v;
            }
            else
            {
                p[i] = (ushort)(BitConverter.SingleToUInt32Bits(x.F32[i]) >> 16);
                w.F32[i] = BitConverter.UInt32BitsToSingle((uint)p[i] << 16);
            }
        }

        return (h, w);
    }

    private static float[] Normal(Random r, int count)
    {
        var v = new float[count];
        for (var i = 0; i < count; i++) v[i] = (float)(Math.Sqrt(-2 * Math.Log(1 - r.NextDouble())) * Math.Cos(2 * Math.PI * r.NextDouble()));
        return v;
    }

    private readonly unsafe struct Collector(int m, int n) : ITileEpilogue
    {
        private readonly int _n = n;

        internal readonly float[] Values = new float[m * n];
        internal readonly int[] NextColumn = new int[m];
        internal readonly int[] Begun = new int[m];
        internal readonly int[] Ended = new int[m];

        public void BeginRows(int row, int rows)
        {
            for (var r = row; r < row + rows; r++) Begun[r]++;
        }

        public void Tile(int row, int rows, int column, int columns, float* sums, int stride)
        {
            for (var r = 0; r < rows; r++)
            {
                Assert.Equal(column, NextColumn[row + r]);
                NextColumn[row + r] += columns;
                for (var j = 0; j < columns; j++) Values[((row + r) * _n) + column + j] = sums[(r * stride) + j];
            }
        }

        public void EndRows(int row, int rows)
        {
            for (var r = row; r < row + rows; r++) Ended[r]++;
        }
    }
}
