using IlgpuSae.Models;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.GpuTests;

/// <summary>Whole models on ILGPU's CPU accelerator against TransformerLens' numbers.</summary>
public sealed class ModelForwardTests
{
    [Theory]
    [InlineData("gpt2_tiny")]
    [InlineData("llama_gqa")]
    public void Every_hook_and_the_logits_are_those_of_TransformerLens(string name)
    {
        using var device = TestDevice.Open();
        ModelChecks.EveryHook(Golden.Open("lm", name), device, maxRows: 1);
    }

    [Fact]
    public void Generation_with_the_cache_gives_the_tokens_of_TransformerLens()
    {
        var golden = Golden.Open("lm", "llama_gqa");
        using var device = TestDevice.Open();
        using var model = HookedTransformer.Load(golden.PathOf("model"), device);
        var expected = golden.Rows("expected_generate.safetensors", "tokens").Select(r => r[..10]).ToArray();
        Assert.Equal(expected, model.Generate(expected.Select(r => r[..8]).ToArray(), new GenerationOptions { MaxNewTokens = 2 }, TestContext.Current.CancellationToken));
    }

    [Fact]
    public void Weights_of_16_bits_and_padded_prompts_give_what_the_CPU_gives()
    {
        var folder = Golden.Open("lm", "gemma_mqa").PathOf("model");
        var load = new ModelLoadOptions { Storage = WeightStorage.BF16 };
        int[][] prompts = [[3, 17, 42], [9]];
        using var gpu = TestDevice.Open();
        using var cpu = new CpuDevice(1);
        using HookedTransformer there = HookedTransformer.Load(folder, gpu, load), here = HookedTransformer.Load(folder, cpu, load);
        Assert.Equal(DType.BF16, there.Parameters["embed.W_E"].Type);
        using TensorScope a = new(gpu), b = new(cpu);
        var options = new ForwardOptions { Padding = [0, 2] };
        int[][] padded = [prompts[0], [0, 0, 9]];
        float[] Values(HookedTransformer m, TensorScope s) => m.Forward(s, HookedTransformer.Tokens(s, padded), options).ToArray<float>();
        Golden.Close("logits", Values(there, a), Values(here, b), 1e-4, 1e-4);
    }
}
