using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>
/// OLMo 2: Llama's blocks with the norms behind attention and MLP instead of before them, and queries and keys
/// normalised over all heads. ln1 is the norm behind attention, ln2 the one behind the MLP, as in TransformerLens.
/// Sources: arXiv:2501.00656; transformers' modeling_olmo2.py; TransformerLens' weight_conversions/olmo2.py.
/// </summary>
[ModelFamily("Olmo2ForCausalLM", ModelType = "olmo2")]
public sealed class Olmo2 : ModelFamily
{
    private readonly Llama _llama = new();

    /// <inheritdoc/>
    public override string OptionalPrefix => _llama.OptionalPrefix;

    /// <inheritdoc/>
    public override ModelSpec ReadConfig(JsonConfig config, string architecture) => _llama.ReadConfig(config, architecture) with
    {
        NormPlacement = NormPlacement.Behind,
        QueryKeyNorm = QueryKeyNorm.AllHeads,
        Eps = (float)config.GetDouble("rms_norm_eps", 1e-5),
    };

    /// <inheritdoc/>
    public override IEnumerable<WeightRule> Weights(ModelSpec spec)
    {
        foreach (var rule in _llama.Weights(spec))
        {
            var l = rule.Target.Split('.') is ["blocks", var n, ..] ? n : "";
            if (rule.Target.EndsWith(".ln1.w", StringComparison.Ordinal)) yield return rule with { Source = $"layers.{l}.post_attention_layernorm.weight" };
            else if (rule.Target.EndsWith(".ln2.w", StringComparison.Ordinal)) yield return rule with { Source = $"layers.{l}.post_feedforward_layernorm.weight" };
            else yield return rule;
        }

        for (var l = 0; l < spec.NLayers; l++)
        {
            yield return Vector($"layers.{l}.self_attn.q_norm.weight", $"blocks.{l}.attn.q_norm.w", spec.NHeads * spec.DHead);
            yield return Vector($"layers.{l}.self_attn.k_norm.weight", $"blocks.{l}.attn.k_norm.w", spec.NKvHeads * spec.DHead);
        }
    }

    /// <inheritdoc/>
    public override bool Ignores(string name) => _llama.Ignores(name);
}
