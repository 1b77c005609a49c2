using System.Security.Cryptography;
using IlgpuSae.Autograd;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;
using Xunit;

namespace IlgpuSae.Tests;

/// <summary>The sparse kernels together, as a training step uses them.</summary>
public sealed class SparseStepTests
{
    private const int Rows = 300;
    private const int DIn = 48;
    private const int DSae = 1000;

    [Theory]
    [InlineData("topk", 0.005, 0.009)]
    [InlineData("relu, sparse", 0.001, 0.15)]
    [InlineData("relu, dense", 0.3, 0.6)]
    public void Steps_give_the_same_bytes_on_any_number_of_threads_and_on_repeat(string kind, double fewest, double most)
    {
        var expected = Train(1, kind, 3, out var density);
        Assert.InRange(density, fewest, most);
        Assert.Equal(expected, Train(1, kind, 3, out _));
        Assert.Equal(expected, Train(2, kind, 3, out _));
        Assert.Equal(expected, Train(3, kind, 3, out _));
        Assert.NotEqual(expected, Train(1, kind, 2, out _));
    }

    [Fact]
    public void A_step_asks_the_system_for_no_memory_after_the_first()
    {
        // With more threads, how many hold scratch at once depends on how the system schedules them.
        using var device = new CpuDevice(1);
        using var weights = new TensorScope(device);
        var state = new State(weights);
        state.Step(device, topK: true, 1);
        var allocations = device.SystemAllocations;
        for (var step = 2; step < 6; step++) state.Step(device, topK: true, step);
        Assert.Equal(allocations, device.SystemAllocations);
        Assert.True(allocations > 0);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(40)]
    [InlineData(700)]
    public void TopK_in_the_epilogue_keeps_what_a_selection_from_stored_pre_activations_keeps(int k)
    {
        using var device = new CpuDevice(2);
        using var scope = new TensorScope(device);
        var state = new State(scope);
        var scale = Normal(scope, [DSae], 7);
        var fused = EncodeSelect.TopK(scope, state.X, state.WEnc, state.BEnc, k, scale);
        var stored = TopKSelect.Rows(scope,
            MultiplyRow.Forward(scope, Gemm.Multiply(scope, state.X, state.WEnc, state.BEnc, transposeB: true), scale), k, relu: true);
        AssertSame(stored, fused);
        Assert.True(fused.EntryCount > 0);
    }

    [Theory]
    [InlineData(0f)]
    [InlineData(-2.5f)]
    [InlineData(100f)]
    public void Relu_in_the_epilogue_keeps_what_a_selection_from_stored_pre_activations_keeps(float bias)
    {
        using var device = new CpuDevice(2);
        using var scope = new TensorScope(device);
        var state = new State(scope);
        var bEnc = scope.From<float>(Enumerable.Repeat(bias, DSae).ToArray(), [DSae]);
        var fused = EncodeSelect.Relu(scope, state.X, state.WEnc, bEnc);
        var stored = SparseFromDense.Positive(scope, Gemm.Multiply(scope, state.X, state.WEnc, bEnc, transposeB: true));
        AssertSame(stored, fused);
        Assert.True(fused.EntryCount > 0);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void NaN_in_one_activation_reaches_the_loss(bool topK)
    {
        using var device = new CpuDevice(2);
        using var scope = new TensorScope(device);
        var state = new State(scope);
        var x = state.X.ToArray<float>();
        x[(17 * DIn) + 5] = float.NaN;
        state.X.CopyFrom<float>(x);
        var f = topK ? EncodeSelect.TopK(scope, state.X, state.WEnc, state.BEnc, 8) : EncodeSelect.Relu(scope, state.X, state.WEnc, state.BEnc);
        Assert.Contains(f.Values.ToArray<float>(), float.IsNaN);
        var y = SparseDecode.Forward(scope, f, state.WDec, state.BDec);
        // The target of a transcoder may be clean: the activations alone must do.
        Assert.True(float.IsNaN(SquaredError.MeanOfRowSums(scope, y, scope.Zeros([Rows, DIn])).Scalar()));
    }

    [Fact]
    public void Subtracting_the_bias_inside_the_encoder_gives_the_gradient_of_subtracting_it_before()
    {
        using var device = new CpuDevice(2);
        using var scope = new TensorScope(device);
        var state = new State(scope);
        var gradients = new List<float[]>();
        foreach (var inside in new[] { true, false })
        {
            using var tape = new Tape(scope);
            tape.Watch(state.BDec);
            var f = inside
                ? EncodeSelect.TopK(scope, state.X, state.WEnc, state.BEnc, 8, center: state.BDec)
                : EncodeSelect.TopK(scope, AddRow.Forward(scope, state.X, state.BDec, -1), state.WEnc, state.BEnc, 8);
            tape.Backward(SquaredError.MeanOfRowSums(scope, SparseDecode.Forward(scope, f, state.WDec, state.BDec), state.X));
            gradients.Add(tape.Gradient(state.BDec).ToArray<float>());
        }

        for (var j = 0; j < DIn; j++) Assert.Equal(gradients[0][j], gradients[1][j], 2e-5f);
    }

    [Fact]
    public void Adam_sets_a_negligible_first_moment_to_zero()
    {
        using var device = new CpuDevice(1);
        using var scope = new TensorScope(device);
        Tensor p = scope.From<float>(Enumerable.Repeat(1f, 9).ToArray(), [9]), g = scope.Zeros([9]);
        Tensor m = scope.From<float>(Enumerable.Repeat(1e-30f, 9).ToArray(), [9]), v = scope.From<float>(Enumerable.Repeat(1e-20f, 9).ToArray(), [9]);
        AdamStep.Update(device, p, g, m, v, 1e-3, 0.9, 0.999, 1e-8, 1000);
        Assert.All(m.ToArray<float>(), x => Assert.Equal(0f, x));
        Assert.All(p.ToArray<float>(), x => Assert.Equal(1f, x));
    }

    [Fact]
    public void Sizes_that_do_not_fit_are_named()
    {
        using var device = new CpuDevice(1);
        using var scope = new TensorScope(device);
        Tensor x = scope.Zeros([4, 640]), w = scope.Zeros([16, 768]), b = scope.Zeros([16]);
        Assert.Equal("encode: x is [4, 640] but W_enc is [16, 768] [d_sae, d_in]; give x as [n, d_in]",
            Assert.Throws<ShapeException>(() => EncodeSelect.Relu(scope, x, w, b)).Message);
        Assert.Equal("top-k: k = 17 is not between 1 and the number of features, 16",
            Assert.Throws<InvalidInputException>(() => EncodeSelect.TopK(scope, scope.Zeros([4, 768]), w, b, 17)).Message);
        var f = EncodeSelect.Relu(scope, scope.Zeros([4, 768]), w, b);
        Assert.Equal("decode: W_dec is [15, 768], the activations are [4, 16]",
            Assert.Throws<ShapeException>(() => SparseDecode.Forward(scope, f, scope.Zeros([15, 768]))).Message);
        Assert.Equal("gather rows: row 3 does not exist in [3, 2]",
            Assert.Throws<ShapeException>(() => GatherRows.Forward(scope, scope.Zeros([3, 2]), scope.From<int>([3], [1]))).Message);
        Assert.Throws<InvalidInputException>(() => SparsePenalty.Lp(scope, f, null, 0));
        Assert.Throws<InvalidInputException>(() => AdamStep.Update(device, b, b, b, b, 1e-3, 0.9, 0.999, 1e-8, 0));
    }

    private static string Train(int threads, string kind, int steps, out double density)
    {
        using var device = new CpuDevice(threads);
        using var weights = new TensorScope(device);
        var state = new State(weights);
        if (kind == "relu, sparse") state.BEnc.CopyFrom<float>(Enumerable.Repeat(-2f, DSae).ToArray());
        density = 0;
        for (var step = 1; step <= steps; step++) density = state.Step(device, kind == "topk", step);
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var p in state.Parameters)
        {
            Assert.All(p.ToArray<float>(), v => Assert.True(float.IsFinite(v)));
            hash.AppendData(System.Runtime.InteropServices.MemoryMarshal.AsBytes<float>(p.ToArray<float>()));
        }

        return Convert.ToHexString(hash.GetHashAndReset());
    }

    private static Tensor Normal(TensorScope scope, Shape shape, int seed)
    {
        var random = new Random(seed);
        var values = new float[shape.Count];
        for (var i = 0; i < values.Length; i++)
            values[i] = (float)(Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble()));
        return scope.From<float>(values, shape);
    }

    private static void AssertSame(SparseFeatures expected, SparseFeatures actual)
    {
        Assert.Equal(expected.RowOffsets.ToArray<int>(), actual.RowOffsets.ToArray<int>());
        Assert.Equal(expected.Indices.ToArray<int>(), actual.Indices.ToArray<int>());
        Assert.Equal(expected.Values.ToArray<float>(), actual.Values.ToArray<float>());
    }

    /// <summary>A small SAE with its optimiser.</summary>
    private sealed class State
    {
        private readonly Tensor[] _m;
        private readonly Tensor[] _v;

        public State(TensorScope scope)
        {
            X = Normal(scope, [Rows, DIn], 1);
            WEnc = Scale.By(scope, Normal(scope, [DSae, DIn], 2), 0.15f);
            WDec = Scale.By(scope, Normal(scope, [DSae, DIn], 3), 0.15f);
            BEnc = Scale.By(scope, Normal(scope, [DSae], 4), 0.1f);
            BDec = Scale.By(scope, Normal(scope, [DIn], 5), 0.1f);
            Parameters = [WEnc, WDec, BEnc, BDec];
            _m = [.. Parameters.Select(p => scope.Zeros(p.Shape))];
            _v = [.. Parameters.Select(p => scope.Zeros(p.Shape))];
        }

        public Tensor X { get; }

        public Tensor WEnc { get; }

        public Tensor WDec { get; }

        public Tensor BEnc { get; }

        public Tensor BDec { get; }

        public Tensor[] Parameters { get; }

        public double Step(CpuDevice device, bool topK, int step)
        {
            using var scope = new TensorScope(device);
            using var tape = new Tape(scope);
            foreach (var p in Parameters) tape.Watch(p);
            var norms = RowNorm.L2(scope, WDec);
            var f = topK
                ? EncodeSelect.TopK(scope, X, WEnc, BEnc, 8, norms, BDec)
                : EncodeSelect.Relu(scope, X, WEnc, BEnc, BDec);
            var y = SparseDecode.Forward(scope, topK ? SparseScale.Columns(scope, f, norms, divide: true) : f, WDec, BDec);
            var loss = SquaredError.MeanOfRowSums(scope, y, X);
            if (!topK) loss = Add.Sum(scope, loss, SparsePenalty.Lp(scope, f, norms, 1));
            tape.Backward(loss);
            var gradients = Parameters.Select(tape.Gradient).ToArray();
            var clip = Math.Min(1f, 1f / (GradientNorm.L2(scope, gradients) + 1e-6f));
            for (var i = 0; i < Parameters.Length; i++)
                AdamStep.Update(device, Parameters[i], gradients[i], _m[i], _v[i], 1e-3, 0.9, 0.999, 1e-8, step, clip);
            return f.Density;
        }
    }
}
