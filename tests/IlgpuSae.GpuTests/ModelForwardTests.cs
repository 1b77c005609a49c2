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
}
