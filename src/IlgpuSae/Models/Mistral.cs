using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>
/// Mistral: Llama's blocks, with a sliding attention window in version 0.1. Sources: Jiang et al. 2023
/// (arXiv:2310.06825) and transformers' modeling_mistral.py.
/// </summary>
[ModelFamily("MistralForCausalLM", ModelType = "mistral")]
public sealed class Mistral : ModelFamily
{
    private readonly Llama _llama = new();

    /// <inheritdoc/>
    public override string OptionalPrefix => _llama.OptionalPrefix;

    /// <inheritdoc/>
    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        var spec = _llama.ReadConfig(config, architecture);
        return spec with { Windows = ReadWindows(config, spec.NLayers, config.GetInt("sliding_window", 0), _ => true) };
    }

    /// <inheritdoc/>
    public override IEnumerable<WeightRule> Weights(ModelSpec spec) => _llama.Weights(spec);

    /// <inheritdoc/>
    public override bool Ignores(string name) => _llama.Ignores(name);
}
