using IlgpuSae.Autograd;
using IlgpuSae.Kernels;
using IlgpuSae.Models;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Models;

/// <summary>Families for which TransformerLens 2.16 gives no numbers, against <see cref="ReferenceModels"/>; and gradients of every family.</summary>
public sealed class FamilyTests
{
    private static readonly int[] Tokens = [3, 17, 42, 5, 60, 1, 29, 9, 33, 12, 7, 50];

    public static TheoryData<string> Families => [.. ReferenceModels.All.Keys];

    public static TheoryData<string> Goldens => ModelGoldenTests.Models;

    [Theory]
    [MemberData(nameof(Families))]
    public void Every_block_and_the_logits_are_those_of_transformers_written_out(string name) => Run(name, (model, checkpoint) =>
    {
        var expected = ReferenceModels.All[name].Run(checkpoint, Tokens, null);
        using var scope = new TensorScope(model.Device);
        var (logits, cache) = model.RunWithCache(scope, HookedTransformer.Tokens(scope, Tokens));
        for (var l = 0; l < model.Spec.NLayers; l++) Near($"resid_post {l}", cache["resid_post", l], expected.ResidPost[l]);
        Near("logits", logits, expected.Logits);
        foreach (var (hook, tensor) in cache.All) Assert.Equal(model.Hooks[hook].ShapeFor(1, Tokens.Length), tensor.Shape);
        Assert.Equal(model.Hooks.All.Where(h => !h.OnRequest).Select(h => h.Name), cache.All.Keys);
    });

    [Theory]
    [MemberData(nameof(Families))]
    public void The_gradient_at_the_first_block_is_the_references_slope(string name) => Run(name, (model, checkpoint) =>
    {
        using var scope = new TensorScope(model.Device);
        using var tape = new Tape(scope);
        const string Hook0 = "blocks.0.hook_resid_pre";
        var tokens = HookedTransformer.Tokens(scope, Tokens);
        var (logits, cache) = model.RunWithCache(scope, tokens, Hook0, new ForwardOptions { Hooks = [Hook.Watch(Hook0, tape)] });
        tape.Backward(Reduce.Mean(scope, CrossEntropy.PerToken(scope, logits, tokens)));
        var gradient = tape.Gradient(cache[Hook0]).ToArray<float>();
        var random = new Random(5);
        for (var trial = 0; trial < 3; trial++)
        {
            var direction = Enumerable.Range(0, Tokens.Length).Select(_ => Enumerable.Range(0, 24).Select(_ => random.NextDouble() - 0.5).ToArray()).ToArray();
            double At(double h) => ReferenceMath.Loss(ReferenceModels.All[name].Run(checkpoint, Tokens, ReferenceMath.Map(direction, v => h * v)).Logits, Tokens);
            var slope = (At(1e-5) - At(-1e-5)) / 2e-5;
            Assert.Equal(slope, direction.SelectMany(r => r).Zip(gradient, (a, b) => a * b).Sum(), 2e-5 * Math.Max(1, Math.Abs(slope)));
        }
    });

    [Theory]
    [MemberData(nameof(Families))]
    public void A_cache_and_looking_on_change_no_bit(string name) => Run(name, (model, _) =>
    {
        using var scope = new TensorScope(model.Device);
        var tokens = HookedTransformer.Tokens(scope, Tokens);
        var whole = model.Forward(scope, tokens).ToArray<float>();
        foreach (var hook in model.Hooks.All) Assert.Equal(whole, model.RunWithCache(scope, tokens, hook.Name).Output.ToArray<float>());
        using var cache = new KeyValueCache(model, 1, Tokens.Length);
        var options = new ForwardOptions { Cache = cache };
        model.Forward(scope, HookedTransformer.Tokens(scope, Tokens[..7]), options);
        var rest = model.Forward(scope, HookedTransformer.Tokens(scope, Tokens[7..]), options).ToArray<float>();
        Assert.Equal(whole[(7 * model.Spec.DVocab)..], rest);
    });

    [Theory]
    [MemberData(nameof(Families))]
    public void Missing_tensors_are_named_and_processing_keeps_the_probabilities(string name) => Run(name, (model, checkpoint) =>
    {
        using var scope = new TensorScope(model.Device);
        var tokens = HookedTransformer.Tokens(scope, Tokens);
        using var processed = model.Process(WeightProcessing.Default with { RefactorFactoredAttentionMatrices = true });
        Golden.Close("loss", processed.LossPerToken(scope, tokens).ToArray<float>(), model.LossPerToken(scope, tokens).ToArray<float>(), 1e-4, 1e-4);
        var gone = checkpoint.Tensors.Keys.First(k => k.EndsWith(".weight", StringComparison.Ordinal) && (k.Contains("layers.1.", StringComparison.Ordinal) || k.Contains("h.1.", StringComparison.Ordinal)));
        checkpoint.Tensors.Remove(gone);
        using var folder = new TempFolder();
        var message = Assert.Throws<InvalidFileException>(() => HookedTransformer.Load(checkpoint.Save(folder), model.Device)).Message;
        Assert.Contains("its weights lack", message, StringComparison.Ordinal);
        Assert.Contains(string.Join('.', gone.Split('.')[^3..]), message, StringComparison.Ordinal);
    });

    [Theory]
    [MemberData(nameof(Goldens))]
    public void Gradients_are_the_slopes_of_the_loss_at_every_kind_of_hook(string name)
    {
        using var device = new CpuDevice(1);
        using var model = HookedTransformer.Load(Golden.Open("lm", name).PathOf("model"), device);
        int[] row = [3, 17, 42, 5, 60, 1, 29, 9];
        // Steps in float: what is left of the difference is about 1e-7 / step.
        const float Step = 2e-2f;
        var random = new Random(3);
        foreach (var hook in model.Hooks.All.Where(h => h.Layer == 1 && h.Width > 0 && !h.Name.EndsWith("scale", StringComparison.Ordinal)).Select(h => h.Name))
        {
            using var scope = new TensorScope(device);
            using var tape = new Tape(scope);
            var tokens = HookedTransformer.Tokens(scope, row);
            var (logits, cache) = model.RunWithCache(scope, tokens, hook, new ForwardOptions { Hooks = [Hook.Watch(hook, tape)] });
            tape.Backward(Reduce.Mean(scope, CrossEntropy.PerToken(scope, logits, tokens)));
            var gradient = tape.Gradient(cache[hook]).ToArray<float>();
            scope.Recorder = null;
            // Along the gradient's signs, so that the slope is large against the rounding.
            var direction = gradient.Select(g => (g < 0 ? -1f : 1f) * (float)random.NextDouble()).ToArray();
            var expected = gradient.Zip(direction, (g, d) => (double)g * d).Sum();
            double At(float h)
            {
                var push = Hook.On(hook, (x, site) => Add.Sum(site.Scope, x, site.Scope.From<float>(direction.Select(d => h * d / direction.Length * 100).ToArray(), x.Shape)));
                return model.Loss(scope, tokens, new ForwardOptions { Hooks = [push] }).Scalar();
            }

            var slope = (At(Step) - At(-Step)) / (2 * Step) * direction.Length / 100;
            Assert.True(Math.Abs(slope - expected) <= (0.02 * Math.Abs(expected)) + (1e-5 / Step * direction.Length / 100), $"{hook}: slope {slope}, gradient {expected}");
        }
    }

    private static void Near(string what, Tensor actual, double[][] expected)
    {
        var flat = expected.SelectMany(r => r).Select(v => (float)v).ToArray();
        Golden.Close(what, actual.ToArray<float>(), flat, 2e-5 * Math.Max(1, flat.Max(Math.Abs)), 1e-4);
    }

    private static void Run(string name, Action<HookedTransformer, Checkpoint> body)
    {
        var checkpoint = ReferenceModels.Make(name);
        using var folder = new TempFolder();
        using var device = new CpuDevice(2);
        using var model = HookedTransformer.Load(checkpoint.Save(folder), device);
        body(model, checkpoint);
    }
}
