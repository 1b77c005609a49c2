using IlgpuSae.Analysis;
using IlgpuSae.Kernels;
using IlgpuSae.Models;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Analysis;

public sealed class PatchingTests
{
    private static readonly int[][] Clean = [[3, 17, 42, 5, 60, 1], [9, 2, 31, 77, 50, 8]];
    private static readonly int[][] Corrupted = [[3, 17, 13, 5, 60, 1], [9, 2, 44, 77, 50, 8]];
    private static readonly LogitMetric Metric = LogitMetrics.Difference([7, 20], [11, 30]);

    public static TheoryData<string> Models => ["gpt2_tiny", "llama_gqa", "gemma2"];

    [Theory]
    [MemberData(nameof(Models))]
    public void Activation_patching_equals_hooks_made_by_hand(string name) => Run(name, model =>
    {
        using var scope = new TensorScope(model.Device);
        Tensor good = HookedTransformer.Tokens(scope, Clean), bad = HookedTransformer.Tokens(scope, Corrupted);
        float[] Logits(Hook? hook) => model.Forward(scope, bad, new ForwardOptions { Hooks = hook is null ? [] : [hook] }).ToArray<float>();
        double Difference(float[] logits)
        {
            int v = model.Spec.DVocab, at = 5 * v, row = 6 * v;
            return ((double)logits[at + 7] - logits[at + 11] + logits[row + at + 20] - logits[row + at + 30]) / 2;
        }

        var corrupted = Difference(Logits(null));
        foreach (var (hook, axis) in new[]
        {
            ("blocks.1.hook_resid_pre", PatchAxis.Whole), ("blocks.1.hook_resid_pre", PatchAxis.Position), ("blocks.0.attn.hook_z", PatchAxis.Head),
            ("blocks.1.attn.hook_z", PatchAxis.PositionAndHead), ("blocks.1.attn.hook_pattern", PatchAxis.Head), ("blocks.1.attn.hook_pattern", PatchAxis.Position),
        })
        {
            var source = model.RunWithCache(scope, good, hook).Cache[hook];
            var from = source.ToArray<float>();
            var result = Patching.Activations(model, Clean, Corrupted, hook, Metric, axis, TestContext.Current.CancellationToken);
            Assert.Equal(corrupted, result.CorruptedMetric, 1e-5);
            var effects = result[hook];
            int heads = model.Spec.NHeads, n = 6;
            var expected = (hook.EndsWith("pattern", StringComparison.Ordinal), axis) switch
            {
                (_, PatchAxis.Whole) => (Shape)[],
                (_, PatchAxis.Position) => [n],
                (_, PatchAxis.Head) => [heads],
                _ => [n, heads],
            };
            Assert.Equal(expected, effects.Shape);
            for (var part = 0; part < effects.Effects.Length; part++)
            {
                var by = Hook.On(hook, (x, site) =>
                {
                    var values = x.ToArray<float>();
                    for (var i = 0; i < values.Length; i++) if (Belongs(i, part, hook, axis, x.Shape)) values[i] = from[i];
                    return site.Scope.From<float>(values, x.Shape);
                });
                Assert.Equal(Difference(Logits(by)) - corrupted, effects.Effects[part], 1e-5);
            }
        }
    });

    [Theory]
    [MemberData(nameof(Models))]
    public void Attribution_patching_is_the_slope_towards_the_clean_activation(string name) => Run(name, model =>
    {
        using var scope = new TensorScope(model.Device);
        Tensor good = HookedTransformer.Tokens(scope, Clean), bad = HookedTransformer.Tokens(scope, Corrupted);
        foreach (var hook in new[] { "blocks.0.hook_resid_pre", "blocks.0.attn.hook_z", "blocks.1.hook_mlp_out", "blocks.1.attn.hook_v" })
        {
            var whole = Patching.Attribution(model, Clean, Corrupted, hook, Metric);
            var clean = model.RunWithCache(scope, good, hook).Cache[hook];
            double At(float share)
            {
                var towards = Hook.On(hook, (x, site) => Add.Sum(site.Scope, Scale.By(site.Scope, x, 1 - share), Scale.By(site.Scope, clean, share)));
                return Metric(scope, model.Forward(scope, bad, new ForwardOptions { Hooks = [towards] })).Scalar();
            }

            const float Step = 5e-3f;
            var slope = (At(Step) - At(-Step)) / (2 * Step);
            var effect = whole[hook].Effects[0];
            Assert.Equal(slope, effect, (0.02 * Math.Abs(slope)) + 2e-3);
            // The parts add up to the whole, however it is cut.
            foreach (var axis in hook.Contains("attn", StringComparison.Ordinal) ? new[] { PatchAxis.Position, PatchAxis.Head, PatchAxis.PositionAndHead } : [PatchAxis.Position])
                Assert.Equal(effect, Patching.Attribution(model, Clean, Corrupted, hook, Metric, axis)[hook].Effects.Sum(), 1e-4 * Math.Max(1, Math.Abs(effect)));
        }
    });

    [Fact]
    public void Attribution_equals_patching_where_the_metric_is_linear_in_the_activation() => Run("gpt2_tiny", model =>
    {
        // After the last norm the logits are linear.
        const string Hook = "ln_final.hook_normalized";
        var exact = Patching.Activations(model, Clean, Corrupted, Hook, Metric, PatchAxis.Position, TestContext.Current.CancellationToken);
        var estimate = Patching.Attribution(model, Clean, Corrupted, Hook, Metric, PatchAxis.Position);
        Assert.Equal(exact.CleanMetric, estimate.CleanMetric);
        Golden.Close("effects", estimate[Hook].Effects, exact[Hook].Effects, 2e-5, 1e-5);
        Assert.Equal(exact.CleanMetric - exact.CorruptedMetric, exact[Hook].Effects.Sum(), 1e-4);
    });

    [Fact]
    public void What_cannot_be_patched_is_refused() => Run("gpt2_tiny", model =>
    {
        string Message(int[][] corrupted, string hooks, PatchAxis axis) =>
            Assert.Throws<InvalidInputException>(() => Patching.Attribution(model, Clean, corrupted, hooks, Metric, axis)).Message;
        Assert.Equal("patching: the clean batch is [2, 6], the corrupted [1, 3]; give rows of the same number and length", Message([[1, 2, 3]], "hook_embed", PatchAxis.Whole));
        Assert.Equal("patching: hook_embed [batch, pos, 32] has no heads; patch it whole or by position", Message(Corrupted, "hook_embed", PatchAxis.Head));
        Assert.Throws<InvalidInputException>(() => LogitMetrics.Difference([1], [2, 3]));
        Assert.Equal("logit difference: token 500 of row 0 is not in 0..100",
            Assert.Throws<InvalidInputException>(() => Patching.Attribution(model, Clean, Corrupted, "hook_embed", LogitMetrics.Difference([500, 1], [2, 3]))).Message);
        var result = Patching.Attribution(model, Clean, Corrupted, "blocks.*.hook_mlp_out", LogitMetrics.Loss(Corrupted));
        Assert.Equal(3, result.Effects.Count);
        Assert.Equal("hook \"hook_embed\" was not patched; patched were blocks.0.hook_mlp_out, blocks.1.hook_mlp_out, blocks.2.hook_mlp_out",
            Assert.Throws<InvalidInputException>(() => result["hook_embed"]).Message);
    });

    /// <summary>Whether element i of an activation belongs to a part, counted from the axes' own definition.</summary>
    private static bool Belongs(int i, int part, string hook, PatchAxis axis, Shape shape)
    {
        var dims = shape.Dims.ToArray();
        var index = new int[dims.Length];
        for (var a = dims.Length - 1; a >= 0; a--) (i, index[a]) = Math.DivRem(i, dims[a]);
        var square = hook.EndsWith("pattern", StringComparison.Ordinal);
        int position = square ? index[2] : index[1], head = dims.Length < 4 ? 0 : square ? index[1] : index[2];
        return axis switch
        {
            PatchAxis.Whole => true,
            PatchAxis.Position => position == part,
            PatchAxis.Head => head == part,
            _ => (position * dims[2]) + head == part,
        };
    }

    private static void Run(string name, Action<HookedTransformer> body)
    {
        using var device = new CpuDevice(2);
        using var model = HookedTransformer.Load(Golden.Open("lm", name).PathOf("model"), device);
        body(model);
    }
}
