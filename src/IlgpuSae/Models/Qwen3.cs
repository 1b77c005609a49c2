using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>
/// Qwen 3 (dense): Llama's blocks with every head's queries and keys normalised before rotation, and heads whose width
/// is given. Sources: transformers' modeling_qwen3.py; TransformerLens' weight_conversions/qwen3.py.
/// </summary>
[ModelFamily("Qwen3ForCausalLM", ModelType = "qwen3")]
public sealed class Qwen3 : ModelFamily
{
    private readonly Llama _llama = new();

    /// <inheritdoc/>
    public override string OptionalPrefix => _llama.OptionalPrefix;

    /// <inheritdoc/>
    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        var spec = _llama.ReadConfig(config, architecture);
        var head = config.GetInt("head_dim", 128);
        return spec with { DHead = head, RotaryDim = head, QueryKeyNorm = QueryKeyNorm.EachHead, Windows = Qwen2.ReadWindows(config, spec.NLayers) };
    }

    /// <inheritdoc/>
    public override IEnumerable<WeightRule> Weights(ModelSpec spec) => [.. _llama.Weights(spec), .. Norms(spec)];

    /// <inheritdoc/>
    public override bool Ignores(string name) => _llama.Ignores(name);

    private static IEnumerable<WeightRule> Norms(ModelSpec spec)
    {
        for (var l = 0; l < spec.NLayers; l++)
        {
            foreach (var letter in "qk")
                yield return Vector($"layers.{l}.self_attn.{letter}_norm.weight", $"blocks.{l}.attn.{letter}_norm.w", spec.DHead);
        }
    }
}
