using System.Text.Json;
using IlgpuSae.Activations;
using IlgpuSae.Autograd;
using IlgpuSae.Evaluation;
using IlgpuSae.Kernels;
using IlgpuSae.Models;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Evaluation;

/// <summary>
/// The evaluation against numbers of SAELens 6.18's run_evals. Its explained variance and MSE are computed by wrong
/// formulas there, which this test repeats; the product's are compared with the right ones, given beside.
/// </summary>
public sealed class EvaluationGoldenTests
{
    public static TheoryData<string> Cases => ["gpt2_hook_z_standard", "gpt2_resid_standard", "gpt2_resid_topk_masked"];

    [Theory]
    [MemberData(nameof(Cases))]
    public void Metrics_are_SAELens_with_its_two_wrong_formulas_put_right(string name)
    {
        using var c = new EvalCase(name);
        var result = c.Evaluate();
        var metrics = c.Golden.Case.GetProperty("metrics");
        var groups = result.ToJson()["metrics"]!.AsObject();
        var compared = 0;
        foreach (var group in metrics.EnumerateObject())
        {
            foreach (var metric in group.Value.EnumerateObject())
            {
                if (metric.Name is "explained_variance" or "mse") continue;
                c.Near($"{group.Name}.{metric.Name}", groups[group.Name]![metric.Name]!.GetValue<double>(), metric.Value.GetDouble());
                compared++;
            }
        }

        Assert.Equal(17, compared);
        var right = c.Golden.Case.GetProperty("conventional");
        c.Near("explained variance", result.ReconstructionQuality!.ExplainedVariance, right.GetProperty("explained_variance").GetDouble());
        c.Near("mse", result.ReconstructionQuality.Mse, right.GetProperty("mse_per_token_sum").GetDouble());
        c.Near("l0", result.Sparsity!.L0, right.GetProperty("l0").GetDouble());
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void The_wrong_formulas_give_SAELens_numbers(string name)
    {
        using var c = new EvalCase(name);
        double squares = 0, errors = 0, mse = 0;
        long tokens = 0;
        var batches = 0;
        foreach (var (x, y) in c.Rows())
        {
            double s = 0, r = 0;
            for (var i = 0; i < x.Length; i++)
            {
                s += (double)x[i] * x[i];
                r += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
            }

            var n = x.Length / c.Sae.Config.DIn;
            squares += s / n;
            errors += r / n;
            mse += r / n;
            tokens += n;
            batches++;
        }

        squares /= batches;
        errors /= batches;
        var quality = c.Golden.Case.GetProperty("metrics").GetProperty("reconstruction_quality");
        var d = c.Sae.Config.DIn;
        c.Near("explained variance, wrong", 1 - (errors / (squares - (squares / d * (squares / d)))), quality.GetProperty("explained_variance").GetDouble());
        c.Near("mse, wrong", mse / tokens, quality.GetProperty("mse").GetDouble());
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Feature_metrics_are_SAELens(string name)
    {
        using var c = new EvalCase(name);
        var features = c.Evaluate().FeatureMetrics!;
        var expected = c.Golden.Floats("expected_feature_metrics.safetensors");
        foreach (var (metric, actual) in new[]
        {
            ("feature_density", features.FeatureDensity), ("encoder_norm", features.EncoderNorm), ("encoder_bias", features.EncoderBias!),
            ("encoder_decoder_cosine_sim", features.EncoderDecoderCosineSim),
        })
        {
            c.Golden.Close(metric, [.. actual.Select(v => (float)v)], expected[metric]);
        }

        var heuristic = expected["consistent_activation_heuristic"];
        for (var j = 0; j < heuristic.Length; j++)
        {
            if (float.IsNaN(heuristic[j])) Assert.True(double.IsNaN(features.ConsistentActivationHeuristic[j]), $"feature {j}");
            else c.Near($"heuristic of feature {j}", features.ConsistentActivationHeuristic[j], heuristic[j]);
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Losses_of_every_token_are_SAELens(string name)
    {
        using var c = new EvalCase(name);
        using var scope = new TensorScope(c.Model.Device);
        var tokens = c.FirstBatch(scope);
        var expected = c.Golden.Floats("expected_per_token_batch0.safetensors");
        var clean = c.Model.Forward(scope, tokens);
        c.Golden.Close("clean", CrossEntropy.PerToken(scope, clean, tokens).ToArray<float>(), expected["ce_loss_without_sae"]);
        foreach (var (what, hook) in new[]
        {
            ("sae", SaeSplice.At(c.Hook, c.Sae)), ("ablation", Hook.On(c.Hook, (a, site) => site.Scope.Zeros(a.Shape))),
        })
        {
            var logits = c.Model.Forward(scope, tokens, new ForwardOptions { Hooks = [hook] });
            if (c.Excluded.Count > 0 && what == "sae") continue; // There the excluded tokens keep their activations.
            c.Golden.Close($"ce {what}", CrossEntropy.PerToken(scope, logits, tokens).ToArray<float>(), expected[$"ce_loss_with_{what}"]);
            c.Golden.Close($"kl {what}", KlDivergence.PerToken(scope, clean, logits).ToArray<float>(), expected[$"kl_div_with_{what}"]);
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_spliced_SAE_gives_SAELens_logits_cache_and_gradients(string name)
    {
        using var c = new EvalCase(name);
        var expected = c.Golden.Floats("expected_spliced_batch0.safetensors");
        foreach (var errorTerm in new[] { false, true })
        {
            using var scope = new TensorScope(c.Model.Device);
            using var tape = new Tape(scope);
            var tokens = c.FirstBatch(scope);
            Tensor? acts = null;
            var seen = new Dictionary<string, Tensor>(StringComparer.Ordinal);
            var hooks = new SaeHooks();
            foreach (var point in SaeHooks.Points)
            {
                hooks.On(point, value =>
                {
                    seen[point] = value;
                    if (point != SaeHooks.ActsPost) return null;
                    tape.Watch(acts = value);
                    return value;
                });
            }

            var logits = c.Model.Forward(scope, tokens, new ForwardOptions { Hooks = [SaeSplice.At(c.Hook, c.Sae, errorTerm, hooks)] });
            var loss = Reduce.Mean(scope, CrossEntropy.PerToken(scope, logits, tokens));
            tape.Backward(loss);
            var suffix = errorTerm ? "_error_term" : "";
            c.Golden.Close("logits", logits.ToArray<float>(), expected["logits_with_sae" + suffix]);
            c.Near("loss", loss.Scalar(), expected[errorTerm ? "loss_error_term" : "loss_with_sae"][0]);
            if (errorTerm)
            {
                foreach (var (point, value) in seen) c.Golden.Close(point, value.ToArray<float>(), expected[$"cache.{c.Hook}.{point}"]);
                Golden.Close("clean", logits.ToArray<float>(), expected["logits_clean"], 2e-4, 2e-4);
            }

            // Gradients exist where a feature is active: a feature that is zero is not stored.
            var (f, gradient, wanted) = (acts!.ToArray<float>(), tape.Gradient(acts).ToArray<float>(), expected["grad_feature_acts" + suffix]);
            var scale = wanted.Max(Math.Abs);
            var active = 0;
            for (var i = 0; i < f.Length; i++)
            {
                if (f[i] == 0) continue;
                Assert.True(Math.Abs(gradient[i] - wanted[i]) <= (c.Golden.Rel * scale) + c.Golden.Abs, $"gradient {i} is {gradient[i]}, expected {wanted[i]}");
                active++;
            }

            Assert.True(active > 100);
        }
    }

    /// <summary>Model, SAE and tokens of a case.</summary>
    private sealed class EvalCase : IDisposable
    {
        private readonly CpuDevice _device = new(2);

        public EvalCase(string name)
        {
            Golden = Golden.Open("eval", name);
            Model = HookedTransformer.Load(Golden.PathOf("model"), _device);
            Sae = SaeLensFolder.Load(Golden.PathOf("sae"), _device);
            Hook = Golden.Case.GetProperty("hook_name").GetString()!;
            var excluded = Golden.Case.GetProperty("exclude_special_tokens");
            Excluded = excluded.ValueKind == JsonValueKind.Array ? [.. excluded.EnumerateArray().Select(e => e.GetInt32())] : [];
        }

        public Golden Golden { get; }

        public HookedTransformer Model { get; }

        public Sae Sae { get; }

        public string Hook { get; }

        public IReadOnlyList<int> Excluded { get; }

        private int Prompts => Golden.Case.GetProperty("batch_size_prompts").GetInt32();

        public EvaluationResult Evaluate()
        {
            using var tokens = new TokenFileSource(Golden.PathOf("inputs.safetensors"));
            var batches = Golden.Case.GetProperty("n_batches").GetInt32();
            return new SaeEvaluator(Model, Sae, Hook, new EvaluationOptions
            {
                BatchSizePrompts = Prompts,
                NEvalReconstructionBatches = batches,
                NEvalSparsityVarianceBatches = batches,
                ExcludedTokens = Excluded,
            }).Run(tokens);
        }

        public Tensor FirstBatch(TensorScope scope) =>
            HookedTransformer.Tokens(scope, [.. Golden.Rows("inputs.safetensors", "tokens").Take(Prompts)]);

        /// <summary>Activations and reconstructions of kept tokens, batch by batch.</summary>
        public IEnumerable<(float[] X, float[] Y)> Rows()
        {
            foreach (var batch in Golden.Rows("inputs.safetensors", "tokens").Chunk(Prompts))
            {
                using var scope = new TensorScope(_device);
                var a = Model.Activations(scope, HookedTransformer.Tokens(scope, batch), Hook)[Hook];
                var y = Sae.Forward(scope, a);
                var d = Sae.Config.DIn;
                var kept = batch.SelectMany(b => b).Select((t, i) => (t, i)).Where(p => !Excluded.Contains(p.t)).Select(p => p.i).ToList();
                float[] all = a.ToArray<float>(), reconstructed = y.ToArray<float>();
                yield return ([.. kept.SelectMany(i => all.Skip(i * d).Take(d))], [.. kept.SelectMany(i => reconstructed.Skip(i * d).Take(d))]);
            }
        }

        public void Near(string what, double actual, double expected) =>
            Assert.True(Math.Abs(actual - expected) <= Golden.Abs + (Golden.Rel * Math.Abs(expected)), $"{what} is {actual:R}, expected {expected:R}");

        public void Dispose()
        {
            Sae.Dispose();
            Model.Dispose();
            _device.Dispose();
        }
    }
}
