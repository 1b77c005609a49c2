using IlgpuSae.Activations;
using IlgpuSae.Evaluation;
using IlgpuSae.Files;
using IlgpuSae.Kernels;
using IlgpuSae.Models;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using IlgpuSae.Tests.Cli;
using Xunit;

namespace IlgpuSae.Tests.Saes;

/// <summary>The temporal SAE against its definition in plain double precision: two contexts of five positions, d_in 6, d_sae 16.</summary>
public sealed class TemporalTests : IDisposable
{
    private const int Contexts = 2;
    private const int Positions = 5;
    private const int In = 6;
    private const int Features = 16;
    private readonly CpuDevice _device = new(2);
    private readonly TempFolder _temp = new();

    public void Dispose()
    {
        _temp.Dispose();
        _device.Dispose();
    }

    [Theory]
    [InlineData("topk", 3, true, 1, NormalizeActivations.None, true)]
    [InlineData("relu", null, false, 2, NormalizeActivations.None, false)]
    [InlineData("topk", null, true, 2, NormalizeActivations.ConstantScalarRescale, true)]
    [InlineData("topk", 4, false, 0, NormalizeActivations.None, true)]
    public void Features_and_reconstruction_are_those_of_the_definition(string type, int? k, bool tied, int layers, NormalizeActivations mode, bool subtract)
    {
        using var sae = Make(Settings with
        {
            SaeDiffType = type == "topk" ? TemporalSelection.Topk : TemporalSelection.Relu,
            KvalTopk = k,
            TiedWeights = tied,
            NAttnLayers = layers,
            NormalizeActivations = mode,
            ActivationNormalizationFactor = mode == NormalizeActivations.None ? 1 : 2.5,
            ApplyBDecToInput = subtract,
        });
        using var scope = new TensorScope(_device);
        var x = scope.From<float>([.. X().Select(v => (float)v)], [Contexts, Positions, In]);
        var features = DenseFeatures.Of(scope, sae.Encode(scope, x)).ToArray<float>();
        var output = sae.Forward(scope, x);
        Assert.Equal(x.Shape, output.Shape);
        for (var c = 0; c < Contexts; c++)
        {
            var (f, y) = Plain(sae, X()[(c * Positions * In)..((c + 1) * Positions * In)]);
            Golden.Close($"features of context {c}", features.AsSpan(c * Positions * Features, Positions * Features), [.. f.Select(v => (float)v)], 2e-6, 1e-4);
            Golden.Close($"output of context {c}", output.ToArray<float>().AsSpan(c * Positions * In, Positions * In), [.. y.Select(v => (float)v)], 1e-5, 1e-4);
        }

        // Observed pre-activations select what the fused encoder selects, and one context may come without its axis.
        var observed = sae.Encode(scope, x, new SaeHooks().On(SaeHooks.ActsPre, pre => pre));
        Golden.Close("observed", DenseFeatures.Of(scope, observed).ToArray<float>(), features, 1e-6, 1e-5);
        var one = sae.Encode(scope, scope.From<float>([.. X().Take(Positions * In).Select(v => (float)v)], [Positions, In]));
        Golden.Close("one context", DenseFeatures.Of(scope, one).ToArray<float>(), features.AsSpan(0, Positions * Features), 1e-6, 1e-5);
    }

    [Fact]
    public void A_position_does_not_depend_on_later_ones()
    {
        using var sae = Make(Settings with { NAttnLayers = 2 });
        using var scope = new TensorScope(_device);
        float[] values = [.. X().Take(Positions * In).Select(v => (float)v)], moved = [.. values];
        for (var i = 3 * In; i < moved.Length; i++) moved[i] += 1;
        float[] Output(float[] x) => sae.Forward(scope, scope.From<float>(x, [1, Positions, In])).ToArray<float>();
        Assert.Equal(Output(values)[..(3 * In)], Output(moved)[..(3 * In)]);
        for (var i = 0; i < In; i++) values[i] += 1;
        Assert.NotEqual(Output(values)[(4 * In)..], Output(moved)[(4 * In)..]);
    }

    [Fact]
    public void Files_have_the_names_and_shapes_of_SAELens()
    {
        using var sae = Make(Settings with { TiedWeights = false, NAttnLayers = 2, KvalTopk = 5, SaeDiffType = TemporalSelection.Topk });
        SaeLensFolder.Save(_temp["a"], sae);
        var weights = SaeLensFolder.ReadWeights(_temp["a/sae_weights.safetensors"]).ToDictionary(w => w.Name, w => w.Shape);
        Assert.Equal(3 + (2 * 8), weights.Count);
        Assert.Equal(([16, 6], [6, 16], [6]), (weights["W_dec"], weights["W_enc"], weights["b_dec"]));
        Assert.Equal(([4, 16], [4]), (weights["attn_layers.1.k_ctx.weight"], weights["attn_layers.1.k_ctx.bias"]));
        Assert.Equal(([4, 16], [16, 16], [16, 16]), (weights["attn_layers.0.q_target.weight"], weights["attn_layers.0.v_ctx.weight"], weights["attn_layers.0.c_proj.weight"]));
        var json = File.ReadAllText(_temp["a/cfg.json"]);
        foreach (var part in new[] { "\"n_heads\": 2", "\"n_attn_layers\": 2", "\"bottleneck_factor\": 4", "\"sae_diff_type\": \"topk\"", "\"kval_topk\": 5", "\"tied_weights\": false", "\"activation_normalization_factor\": 1", "\"architecture\": \"temporal\"" })
            Assert.Contains(part, json, StringComparison.Ordinal);
        using var read = SaeLensFolder.Load(_temp["a"], _device);
        Assert.Equal(sae.Config, read.Config);
        using var scope = new TensorScope(_device);
        var x = scope.From<float>([.. X().Select(v => (float)v)], [Contexts, Positions, In]);
        Assert.Equal(sae.Forward(scope, x).ToArray<float>(), read.Forward(scope, x).ToArray<float>());
        // The command line encodes whole contexts.
        new SafetensorsWriter().Add("x", [Contexts, Positions, In], x.ToArray<float>()).Save(_temp["x.safetensors"]);
        Ilgpusae.Succeed("encode", "--sae", _temp["a"], "--input", _temp["x.safetensors"], "--output", _temp["f.safetensors"], "--quiet");
        using var file = SafetensorsFile.Open(_temp["f.safetensors"]);
        Assert.Equal(sae.Forward(scope, x).ToArray<float>(), file.ReadFloat32("reconstruction"));
    }

    [Fact]
    public void It_is_judged_in_a_model_on_whole_contexts()
    {
        using var model = HookedTransformer.Load(Golden.FolderOf("eval", "gpt2_resid_standard", "model"), _device);
        using var sae = Make(Settings with { DIn = 32, DSae = 64, SaeDiffType = TemporalSelection.Relu });
        const string Hook = "blocks.1.hook_resid_pre";
        using var tokens = new TokenFileSource(Ilgpusae.Tokens(_temp, "t.safetensors", 6, 10, i => i * 7 % 61));
        var options = new EvaluationOptions { BatchSizePrompts = 2, NEvalReconstructionBatches = 3, NEvalSparsityVarianceBatches = 3, ExcludedTokens = [7, 14] };
        var result = new SaeEvaluator(model, sae, Hook, options).Run(tokens, cancellation: TestContext.Current.CancellationToken);
        using var scope = new TensorScope(_device);
        var ids = Enumerable.Range(0, 60).Select(i => i * 7 % 61).ToArray();
        var x = model.Activations(scope, HookedTransformer.Tokens(scope, [.. ids.Chunk(10)]), Hook)[Hook];
        float[] a = x.ToArray<float>(), y = sae.Forward(scope, x).ToArray<float>();
        var kept = Enumerable.Range(0, 60).Where(i => ids[i] is not (7 or 14)).ToList();
        var error = kept.Average(t => Enumerable.Range(t * 32, 32).Sum(i => Math.Pow((double)a[i] - y[i], 2)));
        Assert.Equal(error, result.ReconstructionQuality!.Mse, 1e-4 * error);
        Assert.Equal(kept.Count, result.TokenStats!.KeptTokens);
        var e = Assert.Throws<InvalidInputException>(() => RowsEvaluator.Run(sae, new RowSource(scope.Zeros([4, 32])), 4));
        Assert.StartsWith("eval: architecture temporal reads whole contexts, not rows", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void What_cannot_be_is_refused()
    {
        void Refused(string message, SaeConfig config) =>
            Assert.StartsWith(message, Assert.Throws<InvalidInputException>(config.Validate).Message, StringComparison.Ordinal);
        Settings.Validate();
        Refused("d_sae: 16 is not a multiple of bottleneck_factor x n_heads = 4 x 3", Settings with { NHeads = 3 });
        Refused("kval_topk: 17 is not in 1..16 (d_sae)", Settings with { KvalTopk = 17 });
        Refused("n_heads: 0 is not at least 1", Settings with { NHeads = 0 });
        Refused("bottleneck_factor: 0 is not at least 1", Settings with { BottleneckFactor = 0 });
        Refused("n_attn_layers: -1 is negative", Settings with { NAttnLayers = -1 });
        Refused("activation_normalization_factor: 0 is not a positive number", Settings with { ActivationNormalizationFactor = 0 });
        using var sae = Make(Settings with { NormalizeActivations = NormalizeActivations.ConstantScalarRescale });
        using var scope = new TensorScope(_device);
        Assert.StartsWith("encode: x is [1, 2, 3, 6], but architecture temporal takes [contexts, positions, d_in]", Assert.Throws<ShapeException>(() => sae.Encode(scope, scope.Zeros([1, 2, 3, 6]))).Message, StringComparison.Ordinal);
        Assert.StartsWith("fold: architecture temporal", Assert.Throws<InvalidInputException>(sae.FoldDecoderNorm).Message, StringComparison.Ordinal);
        Assert.StartsWith("fold: architecture temporal", Assert.Throws<InvalidInputException>(() => sae.FoldActivationScale(2)).Message, StringComparison.Ordinal);
        var f = sae.Encode(scope, scope.Zeros([1, 2, 6]));
        Assert.StartsWith("decode: normalize_activations = constant_scalar_rescale has to be undone", Assert.Throws<InvalidInputException>(() => sae.Decode(scope, f)).Message, StringComparison.Ordinal);
        Assert.DoesNotContain("temporal", SaeRegistry.Default.TrainingNames);
    }

    private static TemporalConfig Settings => new() { DIn = In, DSae = Features, NHeads = 2, BottleneckFactor = 4, KvalTopk = 3 };

    private TemporalSae Make(TemporalConfig config)
    {
        var sae = (TemporalSae)SaeRegistry.Default.Create(config, _device);
        var random = new Random(4);
        foreach (var (_, p) in sae.Parameters) p.CopyFrom<float>([.. Enumerable.Range(0, (int)p.Count).Select(_ => (float)((2 * random.NextDouble()) - 1))]);
        return sae;
    }

    private static double[] X() => [.. Enumerable.Range(0, Contexts * Positions * In).Select(n => (double)(float)(2 * Math.Sin(0.5 + (0.7 * n) + (0.01 * n * n))))];

    /// <summary>One context: codes, causal attention over earlier codes, projections, what is left.</summary>
    private static (double[] Features, double[] Output) Plain(TemporalSae sae, double[] x)
    {
        var config = (TemporalConfig)sae.Config;
        var w = sae.Parameters.ToDictionary(p => p.Key, p => p.Value.ToArray<float>().Select(v => (double)v).ToArray());
        double[] dec = w["W_dec"], enc = config.TiedWeights ? dec : w["W_enc"], bias = w["b_dec"];
        var factor = config.NormalizeActivations == NormalizeActivations.None ? 1 : config.ActivationNormalizationFactor;
        var rest = x.Select((v, n) => (v * factor) - (config.ApplyBDecToInput ? bias[n % In] : 0)).ToArray();
        var predicted = new double[x.Length];
        double Pre(int t, int j) => Enumerable.Range(0, In).Sum(i => rest[(t * In) + i] * enc[(j * In) + i]) / (4 * In);
        double[][] Codes() => [.. Enumerable.Range(0, Positions).Select(t => Enumerable.Range(0, Features).Select(j => Math.Max(0, Pre(t, j))).ToArray())];
        for (var l = 0; l < config.NAttnLayers; l++)
        {
            var codes = Codes();
            double[][] earlier = [new double[Features], .. codes[..^1]];
            double[] Linear(double[] v, string part)
            {
                double[] weight = w[$"attn_layers.{l}.{part}.weight"], b = w[$"attn_layers.{l}.{part}.bias"];
                return [.. b.Select((c, o) => c + Enumerable.Range(0, Features).Sum(j => v[j] * weight[(o * Features) + j]))];
            }

            double[][] q = [.. codes.Select(c => Linear(c, "q_target"))], k = [.. earlier.Select(c => Linear(c, "k_ctx"))], v = [.. earlier.Select(c => Linear(c, "v_ctx"))];
            int narrow = q[0].Length / config.NHeads, wide = Features / config.NHeads;
            for (var t = 0; t < Positions; t++)
            {
                var mixed = new double[Features];
                for (var h = 0; h < config.NHeads; h++)
                {
                    double[] scores = [.. Enumerable.Range(0, t + 1).Select(s => Math.Exp(Enumerable.Range(h * narrow, narrow).Sum(i => q[t][i] * k[s][i]) / Math.Sqrt(narrow)))];
                    for (var i = h * wide; i < (h + 1) * wide; i++) mixed[i] = Enumerable.Range(0, t + 1).Sum(s => scores[s] / scores.Sum() * v[s][i]);
                }

                double[] p = [.. Linear(mixed, "c_proj").Select(c => Math.Max(0, c))];
                double[] direction = [.. Enumerable.Range(0, In).Select(i => Enumerable.Range(0, Features).Sum(j => p[j] * dec[(j * In) + i]))];
                var norm = Math.Sqrt(direction.Sum(d => d * d)) + 1e-6;
                var share = Enumerable.Range(0, In).Sum(i => direction[i] * rest[(t * In) + i]) / (norm * norm);
                for (var i = 0; i < In; i++)
                {
                    predicted[(t * In) + i] += share * direction[i];
                    rest[(t * In) + i] -= share * direction[i];
                }
            }
        }

        var features = Codes().SelectMany(c =>
        {
            var kept = config is { SaeDiffType: TemporalSelection.Topk, KvalTopk: { } count } ? c.OrderDescending().Take(count).Last() : 0;
            return c.Select(v => v >= kept ? v : 0);
        }).ToArray();
        var output = Enumerable.Range(0, x.Length).Select(n =>
            (bias[n % In] + predicted[n] + Enumerable.Range(0, Features).Sum(j => features[(n / In * Features) + j] * dec[(j * In) + (n % In)])) / factor).ToArray();
        return (features, output);
    }
}
