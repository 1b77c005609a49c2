using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>
/// Gemma 2: Gemma with norms before and behind attention and MLP, soft caps of scores and logits, a window in every
/// other layer beginning with the first, and a scale of its own. Sources: arXiv:2408.00118 and transformers'
/// modeling_gemma2.py. (TransformerLens 2.16 has the windows in the other half of the layers.)
/// </summary>
[ModelFamily("Gemma2ForCausalLM", ModelType = "gemma2")]
public sealed class Gemma2 : ModelFamily
{
    private readonly Gemma _gemma = new();

    /// <inheritdoc/>
    public override string OptionalPrefix => _gemma.OptionalPrefix;

    /// <inheritdoc/>
    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        var spec = _gemma.ReadConfig(config, architecture);
        return spec with
        {
            NormPlacement = NormPlacement.BeforeAndBehind,
            AttentionScale = 1 / Math.Sqrt(config.GetDouble("query_pre_attn_scalar", 256)),
            AttentionSoftCap = (float)config.GetDouble("attn_logit_softcapping", 0),
            LogitSoftCap = (float)config.GetDouble("final_logit_softcapping", 0),
            Windows = ReadWindows(config, spec.NLayers, config.GetInt("sliding_window", 4096), l => l % 2 == 0),
        };
    }

    /// <inheritdoc/>
    public override IEnumerable<WeightRule> Weights(ModelSpec spec) => WithPostNorms(_gemma.Weights(spec), spec);

    /// <inheritdoc/>
    public override bool Ignores(string name) => _gemma.Ignores(name);

    /// <summary>What Llama calls post_attention_layernorm stands before the MLP; here it stands behind attention.</summary>
    internal static IEnumerable<WeightRule> WithPostNorms(IEnumerable<WeightRule> rules, ModelSpec spec)
    {
        foreach (var rule in rules)
        {
            yield return rule.Target.EndsWith(".ln2.w", StringComparison.Ordinal)
                ? rule with { Source = rule.Source.Replace("post_attention", "pre_feedforward", StringComparison.Ordinal) }
                : rule;
        }

        for (var l = 0; l < spec.NLayers; l++)
        {
            yield return Vector($"layers.{l}.post_attention_layernorm.weight", $"blocks.{l}.ln1_post.w", spec.DModel);
            yield return Vector($"layers.{l}.post_feedforward_layernorm.weight", $"blocks.{l}.ln2_post.w", spec.DModel);
        }
    }
}
