using IlgpuSae.Models;
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
}
