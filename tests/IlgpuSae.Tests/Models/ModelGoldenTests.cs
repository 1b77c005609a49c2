using System.Text.Json.Nodes;
using IlgpuSae.Autograd;
using IlgpuSae.Kernels;
using IlgpuSae.Models;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Models;

/// <summary>Whole models against TransformerLens 2.16.1 (tests/Golden/lm), within the tolerance each case states.</summary>
public sealed class ModelGoldenTests
{
    public static TheoryData<string> Models =>
    [
        "gpt2_tiny", "gpt_neo_tinystories", "gpt_neox_pythia", "llama_gqa", "mistral_sliding", "qwen2_bias", "gemma_mqa", "gemma2",
    ];

    public static TheoryData<string> Generating => ["gpt2_tiny", "gpt_neo_tinystories", "llama_gqa", "gemma2"];

    [Theory]
    [MemberData(nameof(Models))]
    public void Every_hook_and_the_logits_are_those_of_TransformerLens(string name)
    {
        using var device = new CpuDevice(2);
        ModelChecks.EveryHook(Golden.Open("lm", name), device);
    }

    [Fact]
    public void A_family_of_another_assembly_is_as_exact()
    {
        // Llama's golden model with the two halves of each head laced together is the same model under Helium's rotation.
        var golden = Golden.Open("lm", "llama_gqa");
        var c = Checkpoint.Of("llama_gqa");
        c.Config["architectures"] = new JsonArray("HeliumForCausalLM");
        foreach (var name in c.Tensors.Keys.Where(n => n.EndsWith("q_proj.weight", StringComparison.Ordinal) || n.EndsWith("k_proj.weight", StringComparison.Ordinal)).ToList())
        {
            var (shape, values) = c.Tensors[name];
            // Row 2p of a head of 8 was row p, row 2p + 1 was row p + 4.
            c.Set(name, shape, i => values[((((i / 32 / 8 * 8) + (i / 32 % 8 / 2) + (i / 32 % 2 * 4)) * 32) + (i % 32))]);
        }

        using var folder = new TempFolder();
        using var device = new CpuDevice(2);
        using var model = HookedTransformer.Load(c.Save(folder), device,
            new ModelLoadOptions { Families = ModelFamilies.Builtin.Including(typeof(ModelGoldenTests).Assembly) });
        using var scope = new TensorScope(device);
        var logits = model.Forward(scope, HookedTransformer.Tokens(scope, golden.Rows("inputs.safetensors", "tokens")));
        golden.Close("logits", logits.ToArray<float>(), golden.Floats("expected.safetensors")["logits"]);
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Loss_is_that_of_TransformerLens(string name)
    {
        var golden = Golden.Open("lm", name);
        using var device = new CpuDevice(2);
        using var model = HookedTransformer.Load(golden.PathOf("model"), device);
        using var scope = new TensorScope(device);
        var expected = golden.Floats("expected_loss.safetensors");
        var tokens = HookedTransformer.Tokens(scope, golden.Rows("inputs.safetensors", "tokens"));
        golden.Close("loss_per_token", model.LossPerToken(scope, tokens).ToArray<float>(), expected["loss_per_token"]);
        golden.Close("loss", [model.Loss(scope, tokens).Scalar()], expected["loss"]);
    }

    [Theory]
    [MemberData(nameof(Generating))]
    public void Greedy_generation_gives_the_tokens_of_TransformerLens_with_and_without_cache(string name)
    {
        var golden = Golden.Open("lm", name);
        using var device = new CpuDevice(2);
        using var model = HookedTransformer.Load(golden.PathOf("model"), device);
        var prompts = golden.Rows("expected_generate.safetensors", "prompt");
        var expected = golden.Rows("expected_generate.safetensors", "tokens");
        foreach (var useCache in new[] { true, false })
        {
            var options = new GenerationOptions { MaxNewTokens = expected[0].Length - prompts[0].Length, UseCache = useCache };
            Assert.Equal(expected, model.Generate(prompts, options, TestContext.Current.CancellationToken));
        }
    }

    [Theory]
    [InlineData("gpt2_tiny")]
    [InlineData("llama_gqa")]
    public void Gradients_of_the_loss_at_hooks_are_those_of_autograd(string name)
    {
        var golden = Golden.Open("lm", name);
        using var device = new CpuDevice(2);
        using var model = HookedTransformer.Load(golden.PathOf("model"), device);
        var expected = golden.Floats("expected_grads.safetensors");
        var names = expected.Keys.Where(k => k.StartsWith("grad.", StringComparison.Ordinal)).Select(k => k["grad.".Length..]).ToHashSet();
        Assert.True(names.Count > 10);
        using var scope = new TensorScope(device);
        using var tape = new Tape(scope);
        var tokens = HookedTransformer.Tokens(scope, golden.Rows("inputs.safetensors", "tokens"));
        var (logits, cache) = model.RunWithCache(scope, tokens, h => names.Contains(h.Name),
            new ForwardOptions { Hooks = [Hook.Watch(h => names.Contains(h.Name), tape)] });
        var loss = Reduce.Mean(scope, CrossEntropy.PerToken(scope, logits, tokens));
        tape.Backward(loss);
        golden.Close("loss", [loss.Scalar()], expected["loss"]);
        // Many gradients are smaller than the case's absolute tolerance: each hook's are held to the largest of them.
        foreach (var hook in names)
        {
            var wanted = expected["grad." + hook];
            var scale = wanted.Max(Math.Abs);
            Assert.True(scale > 0);
            Golden.Close("grad." + hook, tape.Gradient(cache[hook]).ToArray<float>(), wanted, 1e-4 * scale, golden.Rel);
        }
    }
}
