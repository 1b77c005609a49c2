using IlgpuSae.Autograd;
using IlgpuSae.Kernels;
using IlgpuSae.Models;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Models;

/// <summary>Reading, replacing, stopping: what hooks may and may not do.</summary>
public sealed class HookTests
{
    public static TheoryData<string> Models => ["gpt2_tiny", "llama_gqa"];

    [Theory]
    [MemberData(nameof(Models))]
    public void Asking_for_a_hook_never_changes_another_number(string name) => Run(name, (model, scope, tokens) =>
    {
        var (logits, all) = model.RunWithCache(scope, tokens);
        var expected = logits.ToArray<float>();
        Assert.Equal(expected, model.Forward(scope, tokens).ToArray<float>());
        foreach (var hook in model.Hooks.All)
        {
            var (alone, one) = model.RunWithCache(scope, tokens, hook.Name);
            Assert.Equal(expected, alone.ToArray<float>());
            Assert.Equal(1, one.Count);
            if (!hook.OnRequest) Assert.Equal(all[hook.Name].ToArray<float>(), one[hook.Name].ToArray<float>());
            Assert.Equal(one[hook.Name].ToArray<float>(), model.Activations(scope, tokens, hook.Name)[hook.Name].ToArray<float>());
        }
    });

    [Theory]
    [MemberData(nameof(Models))]
    public void The_same_run_gives_the_same_bytes_on_any_number_of_threads(string name)
    {
        byte[] first = Bytes(name, 1);
        Assert.Equal(first, Bytes(name, 1));
        Assert.Equal(first, Bytes(name, 2));
        Assert.Equal(first, Bytes(name, 3));
    }

    [Fact]
    public void A_replaced_activation_is_what_the_model_goes_on_with() => Run("gpt2_tiny", (model, scope, tokens) =>
    {
        var zero = Hook.On("blocks.1.hook_attn_out", (x, site) => site.Scope.Zeros(x.Shape));
        var cache = model.RunWithCache(scope, tokens, "blocks.1.*", new ForwardOptions { Hooks = [zero] }).Cache;
        Assert.All(cache["attn_out", 1].ToArray<float>(), v => Assert.Equal(0, v));
        Assert.Equal(cache["resid_pre", 1].ToArray<float>(), cache["resid_mid", 1].ToArray<float>());
    });

    [Fact]
    public void Hooks_at_one_point_run_in_order_and_see_what_the_one_before_made() => Run("llama_gqa", (model, scope, tokens) =>
    {
        const string Name = "blocks.0.hook_resid_pre";
        var plain = model.Activations(scope, tokens, Name)[Name].ToArray<float>();
        var seen = new List<float[]>();
        var doubled = Hook.On(Name, (x, site) => Scale.By(site.Scope, x, 2));
        var read = Hook.Where(h => h.Name == Name, (x, _) =>
        {
            seen.Add(x.ToArray<float>());
            return null;
        });
        var cached = model.Activations(scope, tokens, Name, new ForwardOptions { Hooks = [read, doubled, read] })[Name].ToArray<float>();
        var twice = plain.Select(v => 2 * v).ToArray();
        Assert.Equal([plain, twice], seen);
        Assert.Equal(twice, cached);
    });

    [Fact]
    public void Attention_can_be_steered_at_scores_and_pattern() => Run("llama_gqa", (model, scope, tokens) =>
    {
        // Every position made to look at position 0 alone: z is then position 0's value.
        const string Pattern = "blocks.2.attn.hook_pattern";
        var first = Hook.On(Pattern, (x, site) =>
        {
            var p = new float[x.Count];
            for (var i = 0; i < p.Length; i += x.Shape.Last) p[i] = 1;
            return site.Scope.From<float>(p, x.Shape);
        });
        var cache = model.RunWithCache(scope, tokens, "blocks.2.attn.*", new ForwardOptions { Hooks = [first] }).Cache;
        float[] z = cache["z", 2].ToArray<float>(), v = cache["v", 2].ToArray<float>();
        int batch = tokens.Shape[0], positions = tokens.Shape[1], heads = model.Spec.NHeads, kv = model.Spec.NKvHeads, d = model.Spec.DHead;
        for (var b = 0; b < batch; b++)
            for (var p = 0; p < positions; p++)
                for (var h = 0; h < heads; h++)
                    for (var i = 0; i < d; i++)
                        Assert.Equal(v[(((b * positions * kv) + (h / (heads / kv))) * d) + i], z[((((b * positions) + p) * heads) + h) * d + i]);

        // Equal scores, the mask gone too: every weight is 1 / positions.
        var flat = Hook.On("blocks.2.attn.hook_attn_scores", (x, site) => site.Scope.Zeros(x.Shape));
        var even = model.Activations(scope, tokens, Pattern, new ForwardOptions { Hooks = [flat] })[Pattern].ToArray<float>();
        Assert.All(even, w => Assert.Equal(1.0 / positions, w, 1e-6));
    });

    [Theory]
    [MemberData(nameof(Models))]
    public void Scores_are_masked_and_their_softmax_is_the_pattern(string name) => Run(name, (model, scope, tokens) =>
    {
        var cache = model.RunWithCache(scope, tokens, "*attn_scores,*pattern").Cache;
        var scores = cache["attn_scores", 1];
        Assert.Equal(cache["pattern", 1].ToArray<float>(), Softmax.Rows(scope, scores).ToArray<float>());
        var s = scores.ToArray<float>();
        int n = tokens.Shape[1];
        for (var i = 0; i < s.Length; i++) Assert.Equal(i % n > i / n % n, float.IsNegativeInfinity(s[i]));
    });

    [Theory]
    [MemberData(nameof(Models))]
    public void Stopping_at_a_layer_returns_what_enters_it_and_reaches_no_later_hook(string name) => Run(name, (model, scope, tokens) =>
    {
        var cache = model.RunWithCache(scope, tokens, "*resid*").Cache;
        for (var stop = 0; stop <= model.Spec.NLayers; stop++)
        {
            var reached = new List<string>();
            var log = Hook.Where(_ => true, (_, site) =>
            {
                reached.Add(site.Point.Name);
                return null;
            });
            var x = model.Forward(scope, tokens, new ForwardOptions { StopAtLayer = stop, Hooks = [log] }).ToArray<float>();
            Assert.Equal((stop < model.Spec.NLayers ? cache["resid_pre", stop] : cache["resid_post", stop - 1]).ToArray<float>(), x);
            Assert.Equal(model.Hooks.All.Where(h => (h.Layer ?? (h.Name.StartsWith("ln_final", StringComparison.Ordinal) ? 99 : -1)) < stop).Select(h => h.Name), reached);
            if (stop < model.Spec.NLayers)
                Assert.Equal(x, model.Forward(scope, tokens, new ForwardOptions { StopAtLayer = stop - model.Spec.NLayers }).ToArray<float>());
        }
    });

    [Theory]
    [MemberData(nameof(Models))]
    public void Activations_alone_compute_nothing_past_the_last_one_asked_for(string name) => Run(name, (model, scope, tokens) =>
    {
        foreach (var wanted in model.Hooks.All.Where(h => !h.OnRequest))
        {
            HookPoint? last = null;
            var log = Hook.Where(h => !h.OnRequest, (_, site) =>
            {
                last = site.Point;
                return null;
            });
            model.Activations(scope, tokens, wanted.Name, new ForwardOptions { Hooks = [log] });
            Assert.Same(wanted, last);
        }
    });

    [Fact]
    public void A_forward_pass_keeps_nothing_but_its_result() => Run("gpt2_tiny", (model, scope, tokens) =>
    {
        var before = model.Device.UsedBytes;
        using (var inner = new TensorScope(model.Device))
        {
            var logits = model.Forward(inner, tokens);
            Assert.InRange(model.Device.UsedBytes - before, logits.Bytes, (logits.Bytes * 9 / 8) + 256);
        }

        Assert.Equal(before, model.Device.UsedBytes);
    });

    [Fact]
    public void A_hook_that_fails_leaves_no_memory_behind() => Run("llama_gqa", (model, scope, tokens) =>
    {
        var before = model.Device.UsedBytes;
        using (var inner = new TensorScope(model.Device))
        {
            var fail = Hook.On("blocks.1.mlp.hook_post", (_, _) => throw new InvalidInputException("stop"));
            Assert.Throws<InvalidInputException>(() => model.Forward(inner, tokens, new ForwardOptions { Hooks = [fail] }));
        }

        Assert.Equal(before, model.Device.UsedBytes);
    });

    [Theory]
    [MemberData(nameof(Models))]
    public void Result_is_what_each_head_adds_to_attn_out(string name) => Run(name, (model, scope, tokens) =>
    {
        var cache = model.RunWithCache(scope, tokens, "*attn.hook_result,*attn_out").Cache;
        float[] result = cache["result", 1].ToArray<float>(), attended = cache["attn_out", 1].ToArray<float>();
        var bias = model.Parameters.TryGetValue("blocks.1.attn.b_O", out var b) ? b.ToArray<float>() : new float[model.Spec.DModel];
        int heads = model.Spec.NHeads, d = model.Spec.DModel;
        var sums = new float[attended.Length];
        for (var i = 0; i < sums.Length; i++)
            sums[i] = bias[i % d] + Enumerable.Range(0, heads).Sum(h => result[(((i / d * heads) + h) * d) + (i % d)]);
        Golden.Close("attn_out", attended, sums, 1e-5, 1e-5);

        // A head switched off: what is left is the sum of the others.
        var off = Hook.On("blocks.1.attn.hook_result", (x, site) =>
        {
            var r = x.ToArray<float>();
            for (var i = 0; i < r.Length; i++)
                if (i / d % heads == 2) r[i] = 0;
            return site.Scope.From<float>(r, x.Shape);
        });
        var without = model.Activations(scope, tokens, "blocks.1.hook_attn_out", new ForwardOptions { Hooks = [off] })["attn_out", 1].ToArray<float>();
        for (var i = 0; i < sums.Length; i++) sums[i] -= result[(((i / d * heads) + 2) * d) + (i % d)];
        Golden.Close("attn_out without head 2", without, sums, 1e-5, 1e-5);
    });

    [Fact]
    public void Every_heads_result_has_the_gradient_of_what_it_is_added_to() => Run("gpt2_tiny", (model, scope, tokens) =>
    {
        using var tape = new Tape(scope);
        const string Result = "blocks.1.attn.hook_result", Out = "blocks.1.hook_attn_out", Z = "blocks.1.attn.hook_z";
        var watch = new[] { Hook.Watch(Z, tape), Hook.Watch(Result, tape), Hook.Watch(Out, tape) };
        var (logits, cache) = model.RunWithCache(scope, tokens, $"{Z},{Result},{Out}", new ForwardOptions { Hooks = watch });
        tape.Backward(Reduce.Mean(scope, CrossEntropy.PerToken(scope, logits, tokens)));
        float[] each = tape.Gradient(cache[Result]).ToArray<float>(), sum = tape.Gradient(cache[Out]).ToArray<float>();
        int heads = model.Spec.NHeads, d = model.Spec.DModel;
        Assert.Contains(sum, v => v != 0);
        for (var i = 0; i < each.Length; i++) Assert.Equal(sum[(i / d / heads * d) + (i % d)], each[i]);

        // The gradient at z comes out the same through the heads' results and through the product of all at once.
        var through = tape.Gradient(cache[Z]).ToArray<float>();
        using var direct = new TensorScope(model.Device);
        using var other = new Tape(direct);
        var again = HookedTransformer.Tokens(direct, [3, 17, 42, 5, 60, 1, 88], [9, 9, 2, 31, 77, 50, 0]);
        var (plain, z) = model.RunWithCache(direct, again, Z, new ForwardOptions { Hooks = [Hook.Watch(Z, other)] });
        other.Backward(Reduce.Mean(direct, CrossEntropy.PerToken(direct, plain, again)));
        Golden.Close("gradient at z", through, other.Gradient(z[Z]).ToArray<float>(), 1e-6, 1e-4);
    });

    [Fact]
    public void Names_have_short_forms_patterns_layers_and_widths()
    {
        var names = new HookNames(HookedTransformer.ReadSpec(Golden.Open("lm", "llama_gqa").PathOf("model")));
        Assert.Equal("blocks.2.hook_resid_pre", names.Full("resid_pre", 2));
        Assert.Equal("blocks.0.attn.hook_z", names.Full("z", 0));
        Assert.Equal("blocks.0.attn.hook_attn_scores", names.Full("scores", 0));
        Assert.Equal("blocks.0.attn.hook_rot_q", names.Full("rot_q", 0));
        Assert.Equal("blocks.1.mlp.hook_pre_linear", names.Full("pre_linear", 1));
        Assert.Equal("blocks.1.ln2.hook_normalized", names.Full("ln2.normalized", 1));
        Assert.Equal("hook_embed", names.Full("embed"));
        Assert.Equal("ln_final.hook_scale", names.Full("ln_final.hook_scale"));
        Assert.Throws<InvalidInputException>(() => names.Full("resid_pre", 3));
        Assert.Equal(["blocks.0.hook_resid_post", "blocks.1.hook_resid_post", "blocks.2.hook_resid_post"], names.Select("blocks.*.hook_resid_post").Select(h => h.Name));
        Assert.Equal(["hook_embed", "blocks.2.attn.hook_z"], names.Select("blocks.2.attn.hook_z, hook_embed").Select(h => h.Name));
        Assert.DoesNotContain(names.Select("all"), h => h.Name.EndsWith("hook_result", StringComparison.Ordinal));
        Assert.Equal(3, names.StopLayerFor("blocks.2.hook_resid_pre"));
        Assert.Equal(0, names.StopLayerFor("hook_embed"));
        Assert.Null(names.StopLayerFor("ln_final.hook_normalized"));
        Assert.Equal(2, names["blocks.2.hook_mlp_out"].Layer);
        Assert.Equal(32, names["blocks.2.hook_mlp_out"].Width);
        Assert.Equal(16, names["blocks.2.attn.hook_v"].Width);
        Assert.Equal(0, names["blocks.2.attn.hook_pattern"].Width);
        Assert.Equal("blocks.0.attn.hook_pattern [batch, 4, query, key]", names["blocks.0.attn.hook_pattern"].ToString());
        Assert.False(names.Contains("hook_pos_embed"));
        Assert.Throws<InvalidInputException>(() => names.Select("blocks.*.hook_nothing"));
        Assert.Throws<InvalidInputException>(() => names.Select(" , "));
    }

    /// <summary>Logits, all hooks and a gradient.</summary>
    private static byte[] Bytes(string name, int threads)
    {
        using var all = new MemoryStream();
        using var device = new CpuDevice(threads);
        using var model = HookedTransformer.Load(Golden.Open("lm", name).PathOf("model"), device);
        using var scope = new TensorScope(device);
        using var tape = new Tape(scope);
        var tokens = HookedTransformer.Tokens(scope, Enumerable.Range(0, 24).Select(i => i * 7 % 90).ToArray(), Enumerable.Range(0, 24).Select(i => i * 11 % 90).ToArray());
        var (logits, cache) = model.RunWithCache(scope, tokens, "all", new ForwardOptions { Hooks = [Hook.Watch("hook_embed", tape)] });
        tape.Backward(Reduce.Mean(scope, CrossEntropy.PerToken(scope, logits, tokens)));
        foreach (var t in cache.All.Values.Append(logits).Append(tape.Gradient(cache["hook_embed"])))
            all.Write(System.Runtime.InteropServices.MemoryMarshal.AsBytes<float>(t.ToArray<float>()));
        return all.ToArray();
    }

    private static void Run(string name, Action<HookedTransformer, TensorScope, Tensor> body)
    {
        using var device = new CpuDevice(2);
        using var model = HookedTransformer.Load(Golden.Open("lm", name).PathOf("model"), device);
        using var scope = new TensorScope(device);
        body(model, scope, HookedTransformer.Tokens(scope, [3, 17, 42, 5, 60, 1, 88], [9, 9, 2, 31, 77, 50, 0]));
    }
}
