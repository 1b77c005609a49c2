using IlgpuSae.Kernels;
using IlgpuSae.Tensors;
using Xunit;
using Range = IlgpuSae.Kernels.Positions;

namespace IlgpuSae.Tests.Kernels;

/// <summary>Equalities to the bit that hooks, caches and thread counts rely on.</summary>
public sealed class AttentionTests
{
    [Theory]
    [InlineData(1, 5, 5, 2, 2, 8, 0, 0, 0f)]
    [InlineData(2, 130, 130, 4, 2, 64, 0, 0, 0f)]
    [InlineData(1, 67, 200, 6, 1, 40, 133, 50, 0f)]
    [InlineData(1, 3, 4200, 2, 1, 16, 4197, 0, 20f)]
    public void Fused_gives_the_bits_of_the_three_steps(int b, int q, int kv, int h, int hk, int d, int first, int window, float cap)
    {
        using var device = new CpuDevice(2);
        using var scope = new TensorScope(device);
        Tensor query = Random(scope, [b, q, h, d], 1), key = Random(scope, [b, kv, hk, d], 2), value = Random(scope, [b, kv, hk, d], 3);
        var fused = Attention.Forward(scope, query, key, value, 0.4f, first, window, cap);
        var pattern = Softmax.Rows(scope, Attention.Scores(scope, query, key, 0.4f, first, window, cap));
        Assert.Equal(Attention.Mix(scope, pattern, value).ToArray<float>(), fused.ToArray<float>());
    }

    [Fact]
    public void One_token_at_a_time_from_a_cache_gives_the_bits_of_all_at_once()
    {
        const int Positions = 40, Room = 64;
        using var device = new CpuDevice(2);
        using var scope = new TensorScope(device);
        Tensor q = Random(scope, [2, Positions, 4, 24], 1), k = Random(scope, [2, Positions, 2, 24], 2), v = Random(scope, [2, Positions, 2, 24], 3);
        var all = Attention.Forward(scope, q, k, v, 0.2f);
        Tensor keys = scope.New([2, Room, 2, 24]), values = scope.New([2, Room, 2, 24]);
        // What the cache holds beyond its content is never looked at.
        keys.CopyFrom<float>(Enumerable.Repeat(float.NaN, 2 * Room * 48).ToArray());
        values.CopyFrom<float>(Enumerable.Repeat(float.NaN, 2 * Room * 48).ToArray());
        for (var i = 0; i < Positions; i++)
        {
            Range.Write(keys, Range.Slice(scope, k, i, 1), i);
            Range.Write(values, Range.Slice(scope, v, i, 1), i);
            var one = Attention.Forward(scope, Range.Slice(scope, q, i, 1), keys, values, 0.2f, i);
            Assert.Equal(Range.Slice(scope, all, i, 1).ToArray<float>(), one.ToArray<float>());
        }
    }

    [Fact]
    public void Threads_change_no_bits()
    {
        var results = new List<float[]>();
        foreach (var threads in new[] { 1, 2, 5 })
        {
            using var device = new CpuDevice(threads);
            using var scope = new TensorScope(device);
            using var tape = new Autograd.Tape(scope);
            Tensor x = Random(scope, [3, 75, 4, 24], 1), k = Random(scope, [3, 75, 2, 24], 2), v = Random(scope, [3, 75, 2, 24], 3);
            var ids = scope.From<int>([.. Philox.Permutation(225, 1, 1).Select(i => i % 96)], [3, 75]);
            foreach (var t in new[] { x, k, v }) tape.Watch(t);
            var z = Reshape.As(scope, Attention.Forward(scope, x, k, v, 0.3f, window: 30), [3, 75, 96]);
            var normed = LayerNorm.FromScale(scope, z, LayerNorm.Scale(scope, z, 1e-5f));
            var logits = Activate.Forward(scope, normed, ActivationKind.GeluNew);
            var loss = Reduce.Mean(scope, CrossEntropy.PerToken(scope, logits, ids));
            tape.Backward(loss);
            Assert.InRange(loss.Scalar(), 1f, 10f);
            results.Add([loss.Scalar(), .. logits.ToArray<float>(), .. tape.Gradient(x).ToArray<float>(), .. tape.Gradient(k).ToArray<float>(), .. tape.Gradient(v).ToArray<float>()]);
        }

        Assert.Equal(results[0], results[1]);
        Assert.Equal(results[0], results[2]);
    }

    [Fact]
    public void Wrong_shapes_are_named()
    {
        using var device = new CpuDevice(1);
        using var scope = new TensorScope(device);
        var e = Assert.Throws<ShapeException>(() => Attention.Forward(scope, scope.New([1, 2, 3, 8]), scope.New([1, 2, 2, 8]), scope.New([1, 2, 2, 8]), 1));
        Assert.Equal("attention: queries [1, 2, 3, 8] and keys [1, 2, 2, 8] do not fit; expected [b, q, h, d_head] and [b, kv, hk, d_head] with hk dividing h", e.Message);
    }

    private static Tensor Random(TensorScope scope, Shape shape, ulong stream)
    {
        var t = scope.New(shape);
        RandomFill.Normal(t, 77, stream);
        return t;
    }
}
