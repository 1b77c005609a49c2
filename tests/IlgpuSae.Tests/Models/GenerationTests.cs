using IlgpuSae.Kernels;
using IlgpuSae.Models;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Models;

public sealed class GenerationTests
{
    private static readonly int[][] Prompts = [[3, 17, 42], [9, 2, 31]];

    [Theory]
    [InlineData("gpt2_tiny")]
    [InlineData("llama_gqa")]
    public void The_cache_changes_no_bit_of_any_hook(string name) => Run(name, model =>
    {
        int[][] rows = [[3, 17, 42, 5, 60, 1, 88], [9, 9, 2, 31, 77, 50, 0]];
        using var scope = new TensorScope(model.Device);
        var (logits, whole) = model.RunWithCache(scope, HookedTransformer.Tokens(scope, rows));
        // Three tokens at once, then one by one; the second time nobody looks at scores and pattern.
        foreach (var names in new[] { "all", "*resid*,*.hook_z" })
        {
            using var cache = new KeyValueCache(model, 2, 7);
            foreach (var (first, count) in new[] { (0, 3), (3, 1), (4, 2), (6, 1) })
            {
                var tokens = HookedTransformer.Tokens(scope, rows.Select(r => r[first..(first + count)]).ToList());
                var (part, hooks) = model.RunWithCache(scope, tokens, names, new ForwardOptions { Cache = cache });
                Assert.Equal(first + count, cache.Length);
                Assert.Equal(Positions(logits, 1, first, count), part.ToArray<float>());
                foreach (var (hook, tensor) in hooks.All)
                {
                    var point = model.Hooks[hook];
                    Assert.Equal(point.ShapeFor(2, count, first + count), tensor.Shape);
                    if (point.Width > 0) Assert.Equal(Positions(whole[hook], 1, first, count), tensor.ToArray<float>());
                    else Assert.Equal(KeysUpTo(Positions(whole[hook], 2, first, count), rows[0].Length, first + count), tensor.ToArray<float>());
                }
            }
        }
    });

    [Fact]
    public void Sampling_depends_on_the_seed_alone() => Run("llama_gqa", model =>
    {
        var options = new GenerationOptions { MaxNewTokens = 20, Temperature = 1, TopK = 40, TopP = 0.95, Seed = 7 };
        var first = Generate(model, options);
        Assert.Equal(first, Generate(model, options));
        Assert.Equal(first, Generate(model, options with { UseCache = false }));
        Assert.NotEqual(first, Generate(model, options with { Seed = 8 }));
        Assert.Equal([first[0]], model.Generate([Prompts[0]], options, TestContext.Current.CancellationToken));
    });

    [Fact]
    public void Cold_or_narrow_sampling_is_greedy() => Run("gpt2_tiny", model =>
    {
        var greedy = Generate(model, new GenerationOptions { MaxNewTokens = 12 });
        Assert.Equal(greedy, Generate(model, new GenerationOptions { MaxNewTokens = 12, Temperature = 5, TopK = 1 }));
        Assert.Equal(greedy, Generate(model, new GenerationOptions { MaxNewTokens = 12, Temperature = 1, TopP = 1e-9 }));
        Assert.Equal(greedy, Generate(model, new GenerationOptions { MaxNewTokens = 12, Temperature = 1e-4 }));
    });

    [Fact]
    public void A_row_ends_after_its_stop_token_and_the_others_go_on() => Run("gpt2_tiny", model =>
    {
        var options = new GenerationOptions { MaxNewTokens = 10, Temperature = 20, Seed = 1 };
        var all = Generate(model, options);
        var at = Enumerable.Range(5, 5).First(i => !all[0].AsSpan()[3..i].Contains(all[0][i]));
        var stop = all[0][at];
        var rows = Generate(model, options with { StopTokens = [stop] });
        Assert.Equal(all[0][..(at + 1)], rows[0]);
        var other = Array.IndexOf(all[1], stop, 3);
        Assert.Equal(other < 0 ? all[1] : all[1][..(other + 1)], rows[1]);
    });

    [Fact]
    public void Tokens_are_handed_out_as_they_are_made() => Run("gpt2_tiny", model =>
    {
        var all = Generate(model, new GenerationOptions { MaxNewTokens = 5 });
        var passes = 0;
        var count = Hook.On("hook_embed", (_, _) =>
        {
            passes++;
            return null;
        });
        var n = 0;
        foreach (var step in model.Stream(Prompts, new GenerationOptions { MaxNewTokens = 5, Hooks = [count] }, TestContext.Current.CancellationToken))
        {
            Assert.Equal(3 + n, step.Position);
            Assert.Equal([all[0][3 + n], all[1][3 + n]], step.Tokens.Select(t => t!.Value));
            Assert.Equal(++n, passes);
            if (n == 3) break;
        }

        using var cancelled = new CancellationTokenSource();
        cancelled.Cancel();
        Assert.Throws<OperationCanceledException>(() => model.Generate(Prompts, new GenerationOptions(), cancelled.Token));
        Assert.Equal(3, passes);
    });

    [Fact]
    public void Hooks_act_while_generating() => Run("gpt2_tiny", model =>
    {
        var positions = new List<(int First, int Count)>();
        var steer = Hook.On("blocks.1.hook_resid_post", (x, site) =>
        {
            positions.Add((site.FirstPosition, x.Shape[1]));
            return AddRow.Forward(site.Scope, x, model.Parameters["embed.W_E"].Slice(8, 1).Reshape([32]), 30);
        });
        var options = new GenerationOptions { MaxNewTokens = 4, Hooks = [steer] };
        var steered = Generate(model, options);
        Assert.Equal([(0, 3), (3, 1), (4, 1), (5, 1)], positions);
        Assert.NotEqual(Generate(model, options with { Hooks = [] }), steered);
        Assert.Equal(steered, Generate(model, options with { UseCache = false }));
        Assert.Equal((0, 6), positions[^1]);
    });

    [Fact]
    public void What_does_not_fit_the_context_is_refused_at_once() => Run("gpt2_tiny", model =>
    {
        string Message(int[][] prompts, GenerationOptions o) => Assert.Throws<InvalidInputException>(() => model.Stream(prompts, o, TestContext.Current.CancellationToken)).Message;
        Assert.Equal("generate: 30 prompt tokens and 3 new ones exceed the context of 32 (n_ctx); ask for at most 2 new tokens", Message([new int[30]], new() { MaxNewTokens = 3 }));
        Assert.Equal("generate: the prompt's 32 tokens leave no room in the context of 32 (n_ctx)", Message([new int[32]], new()));
        Assert.Equal("generate: the prompt is empty; begin with the BOS token at least", Message([[]], new()));
        Assert.Equal("generate: no prompt was given", Message([], new()));
        Assert.Equal("generate: prompt 1 is empty; begin with the BOS token at least", Message([[1, 2], []], new()));
        Assert.Equal("generate: temperature is -1, expected 0 (greedy) or more", Message(Prompts, new() { Temperature = -1 }));
        Assert.Equal("generate: top-p is 0, expected more than 0 and at most 1", Message(Prompts, new() { TopP = 0 }));
        Assert.Equal("generate: top-k is -2, expected 0 (all) or more", Message(Prompts, new() { TopK = -2 }));
        Assert.Equal("generate: max new tokens is 0, expected at least 1", Message(Prompts, new() { MaxNewTokens = 0 }));
        Assert.All(model.Generate([new int[30]], new(), TestContext.Current.CancellationToken), row => Assert.Equal(32, row.Length));
    });

    [Fact]
    public void Top_k_and_top_p_keep_the_likeliest_and_the_lower_id_among_equals()
    {
        double[] weights = [1, 4, 2, 2, 1];
        Assert.Equal([0, 1, 2, 3, 4], Sampler.Keep(weights, new()));
        Assert.Equal([1, 2], Sampler.Keep(weights, new() { TopK = 2 }));
        Assert.Equal([1], Sampler.Keep(weights, new() { TopP = 0.4 }));
        Assert.Equal([1, 2], Sampler.Keep(weights, new() { TopP = 0.41 }));
        Assert.Equal([1, 2, 3], Sampler.Keep(weights, new() { TopP = 0.8 }));
        // Top-p counts shares of what top-k left: 4 of 8.
        Assert.Equal([1], Sampler.Keep(weights, new() { TopK = 3, TopP = 0.5 }));
    }

    [Fact]
    public void Draws_follow_the_distribution()
    {
        float[] logits = [0, 1, 2, float.NegativeInfinity];
        var options = new GenerationOptions { Temperature = 2, Seed = 3 };
        const int Draws = 40000;
        var counts = new int[4];
        for (var i = 0; i < Draws; i++) counts[Sampler.Draw(logits, options, i % 4, i / 4)]++;
        var total = 1 + Math.Exp(0.5) + Math.E;
        for (var i = 0; i < 3; i++)
        {
            var p = Math.Exp(i / 2.0) / total;
            // Five standard deviations.
            Assert.InRange(counts[i], Draws * p - 5 * Math.Sqrt(Draws * p * (1 - p)), Draws * p + 5 * Math.Sqrt(Draws * p * (1 - p)));
        }

        Assert.Equal(0, counts[3]);
        Assert.Equal("generate: the logit of token 1 is not a number (row 0, new token 2)",
            Assert.Throws<IlgpuSaeException>(() => Sampler.Draw([0, float.NaN], options, 0, 2)).Message);
    }

    [Fact]
    public void A_cache_can_be_shortened_and_refuses_what_does_not_fit() => Run("llama_gqa", model =>
    {
        using var scope = new TensorScope(model.Device);
        using var cache = new KeyValueCache(model, 1, 4);
        var options = new ForwardOptions { Cache = cache };
        var tokens = HookedTransformer.Tokens(scope, [3, 17, 42]);
        var first = model.Forward(scope, tokens, options).ToArray<float>();
        Assert.Equal("tokens: 6 positions exceed the key/value cache's capacity of 4",
            Assert.Throws<InvalidInputException>(() => model.Forward(scope, tokens, options)).Message);
        cache.Truncate(0);
        Assert.Equal(first, model.Forward(scope, tokens, options).ToArray<float>());
        Assert.Throws<InvalidInputException>(() => cache.Truncate(4));
        Assert.Equal("tokens: 2 sequences, the key/value cache has 1",
            Assert.Throws<InvalidInputException>(() => model.Forward(scope, HookedTransformer.Tokens(scope, [1], [2]), options)).Message);
        using var tape = new Autograd.Tape(scope);
        Assert.Equal("model: gradients do not pass through a key/value cache; run without one or without a tape",
            Assert.Throws<InvalidInputException>(() => model.Forward(scope, HookedTransformer.Tokens(scope, [1]), options)).Message);
        Assert.Throws<InvalidInputException>(() => new KeyValueCache(model, 0));
        Assert.Throws<InvalidInputException>(() => new KeyValueCache(model, 1, 65));
    });

    [Fact]
    public void A_cache_grows_with_the_context()
    {
        using var device = new CpuDevice(1);
        var spec = HookedTransformer.ReadSpec(Golden.Open("lm", "llama_gqa").PathOf("model")) with { NCtx = 300, NLayers = 1 };
        using var model = HookedTransformer.WithRandomWeights(spec, device, 5, 0.3f);
        using var scope = new TensorScope(device);
        int[][] rows = [Enumerable.Range(0, 150).Select(i => i * 7 % 99).ToArray(), Enumerable.Range(0, 150).Select(i => i * 5 % 99).ToArray()];
        var whole = model.Forward(scope, HookedTransformer.Tokens(scope, rows));
        using var cache = new KeyValueCache(model, 2);
        foreach (var (first, count) in new[] { (0, 60), (60, 10), (70, 80) })
        {
            var part = model.Forward(scope, HookedTransformer.Tokens(scope, rows.Select(r => r[first..(first + count)]).ToList()), new ForwardOptions { Cache = cache });
            Assert.Equal(Positions(whole, 1, first, count), part.ToArray<float>());
        }
    }

    /// <summary>Positions first .. first+count-1 along an axis.</summary>
    private static float[] Positions(Tensor t, int axis, int first, int count)
    {
        var values = t.ToArray<float>();
        var dims = t.Shape.Dims.ToArray();
        int inner = dims[(axis + 1)..].Aggregate(1, (a, b) => a * b), outer = dims[..axis].Aggregate(1, (a, b) => a * b);
        return Enumerable.Range(0, outer).SelectMany(o => values.AsSpan(((o * dims[axis]) + first) * inner, count * inner).ToArray()).ToArray();
    }

    private static float[] KeysUpTo(float[] rows, int width, int keys) =>
        rows.Chunk(width).SelectMany(r => r[..keys]).ToArray();

    private static int[][] Generate(HookedTransformer model, GenerationOptions options) => model.Generate(Prompts, options, TestContext.Current.CancellationToken);

    private static void Run(string name, Action<HookedTransformer> body)
    {
        using var device = new CpuDevice(2);
        using var model = HookedTransformer.Load(Golden.Open("lm", name).PathOf("model"), device);
        body(model);
    }
}
