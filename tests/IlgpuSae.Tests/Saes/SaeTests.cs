using IlgpuSae.Autograd;
using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using Xunit;

namespace IlgpuSae.Tests.Saes;

/// <summary>What holds for every architecture, and what settings are refused.</summary>
public sealed class SaeTests : IDisposable
{
    private readonly CpuDevice _device = new(2);

    public static TheoryData<string> Trained => [.. SaeRegistry.Default.TrainingNames];

    public void Dispose() => _device.Dispose();

    [Theory]
    [MemberData(nameof(Trained))]
    public void Folding_decoder_norms_leaves_reconstructions_alone(string architecture)
    {
        using var sae = Random(architecture);
        if (architecture == "matching_pursuit")
        {
            Assert.StartsWith("fold: architecture matching_pursuit", Assert.Throws<InvalidInputException>(sae.FoldDecoderNorm).Message, StringComparison.Ordinal);
            return;
        }

        using var scope = new TensorScope(_device);
        var x = Input(scope, [40, 12]);
        var (f, y) = Run(scope, sae, x);
        var norms = RowNorm.L2(scope, sae.WDec).ToArray<float>();
        sae.FoldDecoderNorm();
        var (f2, y2) = Run(scope, sae, x);
        Near(y, y2, 1e-5);
        Assert.All(RowNorm.L2(scope, sae.WDec).ToArray<float>(), n => Assert.Equal(1, n, 1e-6f));
        // Rescaled TopK reports activations in these units already.
        var rescaled = InInputUnits(architecture);
        Near([.. f.Select((v, i) => rescaled ? v : v * norms[i % norms.Length])], f2, 1e-5);
    }

    [Theory]
    [MemberData(nameof(Trained))]
    public void Folding_the_activation_scale_moves_it_from_the_input_to_the_weights(string architecture)
    {
        const float s = 0.37f;
        using var sae = Random(architecture);
        using var scope = new TensorScope(_device);
        var x = Input(scope, [40, 12]);
        var (f, y) = Run(scope, sae, Scale.By(scope, x, s));
        sae.FoldActivationScale(s);
        var (f2, y2) = Run(scope, sae, x);
        Near([.. y.Select(v => v / s)], y2, 1e-5);
        Near(InInputUnits(architecture) ? [.. f.Select(v => v / s)] : f, f2, 1e-5);
        Assert.Throws<InvalidInputException>(() => sae.FoldActivationScale(0));
    }

    [Theory]
    [InlineData(NormalizeActivations.LayerNorm)]
    [InlineData(NormalizeActivations.ConstantNormRescale)]
    public void Gradients_reach_the_input_through_normalisation(NormalizeActivations mode)
    {
        using var sae = Random("standard", mode);
        using var scope = new TensorScope(_device);
        var values = Input(scope, [3, 12]).ToArray<float>();
        using var tape = new Tape(scope);
        var x = scope.From<float>(values, [3, 12]);
        tape.Watch(x);
        var y = sae.Forward(scope, x);
        var weights = Enumerable.Range(0, 36).Select(i => MathF.Sin(i)).ToArray();
        tape.Backward((y, scope.From<float>(weights, [3, 12])));
        var gradient = tape.Gradient(x).ToArray<float>();
        double Objective(int i, float h)
        {
            using var inner = new TensorScope(_device);
            var moved = (float[])values.Clone();
            moved[i] += h;
            return sae.Forward(inner, inner.From<float>(moved, [3, 12])).ToArray<float>().Select((v, k) => (double)v * weights[k]).Sum();
        }

        // In float32 a step of 0.01 leaves a few thousandths.
        for (var i = 0; i < 36; i++) Assert.Equal((Objective(i, 0.01f) - Objective(i, -0.01f)) / 0.02, gradient[i], 0.02);
    }

    [Fact]
    public void A_zero_vector_under_constant_norm_stays_finite()
    {
        using var sae = Random("standard", NormalizeActivations.ConstantNormRescale);
        using var scope = new TensorScope(_device);
        Assert.All(sae.Forward(scope, scope.Zeros([2, 12])).ToArray<float>(), v => Assert.Equal(0, v));
    }

    [Fact]
    public void A_hook_that_returns_its_value_makes_gradients_with_respect_to_features()
    {
        using var sae = Random("topk");
        using var scope = new TensorScope(_device);
        using var tape = new Tape(scope);
        Tensor? features = null;
        var hooks = new SaeHooks().On(SaeHooks.ActsPost, f =>
        {
            tape.Watch(f);
            return features = f;
        });
        var x = Input(scope, [2, 3, 12]);
        var y = sae.Forward(scope, x, hooks);
        Assert.Equal([2, 3, 30], features!.Shape);
        tape.Backward((y, scope.From<float>([.. Enumerable.Repeat(1f, 72)], y.Shape)));
        var gradient = tape.Gradient(features).ToArray<float>();
        var (f, dec, norms) = (features.ToArray<float>(), sae.WDec.ToArray<float>(), RowNorm.L2(scope, sae.WDec).ToArray<float>());
        for (var i = 0; i < f.Length; i++)
        {
            if (f[i] == 0) continue;
            Assert.Equal(dec.AsSpan(i % 30 * 12, 12).ToArray().Sum() / norms[i % 30], gradient[i], 1e-5f);
        }
    }

    [Fact]
    public void TopK_selects_the_k_largest_and_breaks_ties_by_index()
    {
        using var sae = SaeRegistry.Default.Create(new TopKConfig { DIn = 1, DSae = 6, K = 2 }, _device);
        sae.WEnc.CopyFrom<float>([1, 3, 3, 2, 3, -5]);
        using var scope = new TensorScope(_device);
        var f = sae.Encode(scope, scope.From<float>([1, -1], [2, 1]));
        // The second row's two largest are 5 and -1: ReLU leaves one.
        Assert.Equal([0, 2, 3], f.RowOffsets.ToArray<int>());
        Assert.Equal([1, 2, 5], f.Indices.ToArray<int>());
        Assert.Equal([3, 3, 5], f.Values.ToArray<float>());
    }

    [Fact]
    public void What_does_not_fit_is_refused()
    {
        using var sae = Random("standard");
        using var scope = new TensorScope(_device);
        var e = Assert.Throws<ShapeException>(() => sae.Encode(scope, Input(scope, [4, 13])));
        Assert.Equal("encode: x is F32 [4, 13] but the SAE takes F32 [..., d_in] with d_in = 12 (trained on blocks.2.hook_resid_pre); was another layer or hook caught?", e.Message);
        Assert.Contains("d_sae = 30", Assert.Throws<ShapeException>(() => sae.Decode(scope, new SparseFeatures(31, scope.Zeros([2], DType.I32), scope.New([0], DType.I32), scope.New([0])))).Message, StringComparison.Ordinal);
        using var normalised = Random("standard", NormalizeActivations.LayerNorm);
        var f = normalised.Encode(scope, Input(scope, [4, 12]));
        Assert.StartsWith("decode: normalize_activations = layer_norm has to be undone", Assert.Throws<InvalidInputException>(() => normalised.Decode(scope, f)).Message, StringComparison.Ordinal);
        using var topk = SaeRegistry.Default.Create(new TopKConfig { DIn = 2, DSae = 6, K = 2 }, _device);
        Assert.StartsWith("fold: architecture topk without rescale_acts_by_decoder_norm", Assert.Throws<InvalidInputException>(topk.FoldDecoderNorm).Message, StringComparison.Ordinal);
        Assert.StartsWith("hook \"hook_sae_act\" is no observation point", Assert.Throws<InvalidInputException>(() => new SaeHooks().On("hook_sae_act", _ => null)).Message, StringComparison.Ordinal);
        Assert.StartsWith("architecture \"gates\" is not known in training; known: ", Assert.Throws<InvalidInputException>(() => SaeRegistry.Default.ConfigType("gates", training: true)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Settings_that_cannot_be_are_refused_by_name()
    {
        var standard = new StandardTrainingConfig { DIn = 4, DSae = 8 };
        var topk = new TopKTrainingConfig { DIn = 4, DSae = 8, K = 2 };
        standard.Validate();
        topk.Validate();
        Refused("d_sae: 0 features; it must be at least 1", standard with { DSae = 0 });
        Refused("d_in: -1 is not a width", standard with { DIn = -1 });
        Refused("k: 0 features a row; it must be at least 1", topk with { K = 0 });
        Refused("k: 9 features a row, but there are only d_sae = 8; lower k or raise d_sae", topk with { K = 9 });
        Refused("k: 9 features a row, but there are only d_sae = 8", new TopKConfig { DIn = 4, DSae = 8, K = 9 });
        Refused("l1_coefficient: -1 is not a number of at least 0", standard with { L1Coefficient = -1 });
        Refused("lp_norm: 0 is not a positive number", standard with { LpNorm = 0 });
        Refused("l1_warm_up_steps: -2 is negative", standard with { L1WarmUpSteps = -2 });
        Refused("aux_loss_coefficient: NaN is not a number of at least 0", topk with { AuxLossCoefficient = double.NaN });
        Refused("decoder_init_norm: 0 is not a positive number", standard with { DecoderInitNorm = 0 });
        Refused("normalize_activations: layer_norm cannot be trained with topk's auxiliary loss", topk with { NormalizeActivations = NormalizeActivations.LayerNorm });
        var jumprelu = new JumpReLUTrainingConfig { DIn = 4, DSae = 8 };
        jumprelu.Validate();
        Refused("jumprelu_bandwidth: 0 is not a positive number", jumprelu with { JumpreluBandwidth = 0 });
        Refused("jumprelu_bandwidth: -0.1 is not a positive number", jumprelu with { JumpreluBandwidth = -0.1 });
        Refused("jumprelu_init_threshold: 0 is not a positive number", jumprelu with { JumpreluInitThreshold = 0 });
        Refused("l0_coefficient: -1 is not a number of at least 0", jumprelu with { L0Coefficient = -1 });
        Refused("pre_act_loss_coefficient: NaN is not a number of at least 0", jumprelu with { PreActLossCoefficient = double.NaN });
        Refused("jumprelu_tanh_scale: 0 is not a positive number", jumprelu with { JumpreluTanhScale = 0 });
        var quadratic = jumprelu with { JumpreluSparsityLossMode = JumpReLUSparsityLoss.Quadratic };
        Refused("target_l0: missing; jumprelu_sparsity_loss_mode = quadratic needs the number of active features to aim at", quadratic);
        Refused("target_l0: 9 active features are not between 0 and d_sae = 8", quadratic with { TargetL0 = 9 });
        Refused("target_l0: 3 has no meaning with jumprelu_sparsity_loss_mode = step", jumprelu with { TargetL0 = 3 });
        (quadratic with { TargetL0 = 3 }).Validate();
        var batch = new BatchTopKTrainingConfig { DIn = 4, DSae = 8, K = 1.5 };
        batch.Validate();
        Refused("k: NaN is not a positive number", batch with { K = double.NaN });
        Refused("k: 9 features a row, but there are only d_sae = 8", batch with { K = 9 });
        Refused("topk_threshold_lr: 0 is not between 0 and 1", batch with { TopkThresholdLr = 0 });
        Refused("normalize_activations: constant_norm_rescale cannot be trained with batchtopk's auxiliary loss", batch with { NormalizeActivations = NormalizeActivations.ConstantNormRescale });
        var matryoshka = new MatryoshkaBatchTopKTrainingConfig { DIn = 4, DSae = 8, K = 1.5, MatryoshkaWidths = new(2, 4) };
        matryoshka.Validate();
        Assert.Equal(["matryoshka_widths: 2,4 does not end with d_sae = 8, which is added as the last level"], matryoshka.Notes);
        Refused("matryoshka_widths: missing; give increasing numbers of features", matryoshka with { MatryoshkaWidths = new() });
        Refused("matryoshka_widths: 4,4 is not strictly increasing: 4 follows 4", matryoshka with { MatryoshkaWidths = new(4, 4) });
        Refused("matryoshka_widths: 0 is not a number of features", matryoshka with { MatryoshkaWidths = new(0, 4) });
        Refused("matryoshka_widths: 9 features, but there are only d_sae = 8", matryoshka with { MatryoshkaWidths = new(4, 9) });
        Refused("normalize_activations: layer_norm cannot be trained with matryoshka_batchtopk's auxiliary loss", matryoshka with { NormalizeActivations = NormalizeActivations.LayerNorm });
        Refused("k: 9 features a row, but there are only d_sae = 8", new AbsTopKTrainingConfig { DIn = 4, DSae = 8, K = 9 });
        Refused("l1_coefficient: -1 is not a number of at least 0", new GatedTrainingConfig { DIn = 4, DSae = 8, L1Coefficient = -1 });
        var anneal = new PAnnealTrainingConfig { DIn = 4, DSae = 8 };
        anneal.Validate();
        Refused("p_end: 0 is not a positive number", anneal with { PEnd = 0 });
        Refused("p_end: 2 is above p_start = 1; p falls", anneal with { PEnd = 2 });
        Refused("anneal_end: step 5 lies before anneal_start = 9", anneal with { AnnealStart = 9, AnnealEnd = 5 });
        Refused("n_sparsity_updates: 0; it must be at least 1", anneal with { NSparsityUpdates = 0 });
        Refused("normalize_activations: constant_scalar_rescale is for architecture temporal, not standard", standard with { NormalizeActivations = NormalizeActivations.ConstantScalarRescale });
        Refused("reshape_activations: hook_z is for hooks whose name ends in _z, but hook_name is \"blocks.0.hook_mlp_out\"",
            standard with { ReshapeActivations = ReshapeActivations.HookZ, Metadata = new SaeMetadata().With("hook_name", "blocks.0.hook_mlp_out") });
    }

    /// <summary>Whether features are in units of the activations: multiplied by decoder norms of their own accord.</summary>
    private static bool InInputUnits(string architecture) =>
        architecture.Contains("topk", StringComparison.Ordinal) || architecture == "matching_pursuit";

    private static void Refused(string message, SaeConfig config) =>
        Assert.StartsWith(message, Assert.Throws<InvalidInputException>(config.Validate).Message, StringComparison.Ordinal);

    private TrainingSae Random(string architecture, NormalizeActivations mode = default)
    {
        var type = SaeRegistry.Default.ConfigType(architecture, training: true);
        var json = ConfigJson.ToJson(Activator.CreateInstance(type)!);
        json["d_in"] = 12;
        json["d_sae"] = 30;
        json["normalize_activations"] = ConfigJson.Name(mode);
        json["metadata"]!["hook_name"] = "blocks.2.hook_resid_pre";
        if (json.ContainsKey("k")) json["k"] = 5;
        if (json.ContainsKey("d_out")) json["d_out"] = 9;
        if (json.ContainsKey("matryoshka_widths")) json["matryoshka_widths"] = "6, 17";
        var sae = SaeRegistry.Default.CreateForTraining((TrainingSaeConfig)ConfigJson.FromJson(json, type, "test"), _device, seed: 9);
        var random = new Random(4);
        foreach (var (name, p) in sae.Parameters)
        {
            // No b_dec, so that zero in gives zero out; encoder biases below 0 keep features sparse.
            if (name == "b_dec") continue;
            p.CopyFrom<float>([.. p.ToArray<float>().Select((v, i) => name == "b_enc" ? -0.1f * random.NextSingle() : name == "W_skip" ? random.NextSingle() - 0.5f : (v * (1 + random.NextSingle())))]);
        }

        return sae;
    }

    private static Tensor Input(TensorScope scope, Shape shape)
    {
        var random = new Random(8);
        return scope.From<float>([.. Enumerable.Range(0, (int)shape.Count).Select(_ => (2 * random.NextSingle()) - 1)], shape);
    }

    private static (float[] Features, float[] Reconstruction) Run(TensorScope scope, Sae sae, Tensor x)
    {
        var f = sae.Encode(scope, x, out var frame);
        Assert.True(f.EntryCount > 0);
        return (DenseFeatures.Of(scope, f).ToArray<float>(), sae.Decode(scope, f, frame).ToArray<float>());
    }

    private static void Near(float[] expected, float[] actual, double tolerance)
    {
        Assert.Equal(expected.Length, actual.Length);
        var scale = expected.Max(MathF.Abs);
        for (var i = 0; i < expected.Length; i++) Assert.Equal(expected[i], actual[i], tolerance * scale);
    }
}
