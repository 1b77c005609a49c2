using IlgpuSae.Files;
using IlgpuSae.Models;

namespace IlgpuSae.Tests.Models;

/// <summary>Helium 1: Llama's blocks with neighbouring dimensions rotated. Source: transformers' modeling_helium.py.</summary>
[ModelFamily("HeliumForCausalLM", ModelType = "helium")]
public sealed class Helium : ModelFamily
{
    private readonly Llama _llama = new();

    /// <inheritdoc/>
    public override string OptionalPrefix => _llama.OptionalPrefix;

    /// <inheritdoc/>
    public override ModelSpec ReadConfig(JsonConfig config, string architecture) =>
        _llama.ReadConfig(config, architecture) with { RotaryAdjacentPairs = true };

    /// <inheritdoc/>
    public override IEnumerable<WeightRule> Weights(ModelSpec spec) => _llama.Weights(spec);

    /// <inheritdoc/>
    public override bool Ignores(string name) => _llama.Ignores(name);
}
