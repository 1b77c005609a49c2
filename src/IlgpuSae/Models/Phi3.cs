using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>
/// Phi 3 and 4: Llama's blocks with queries, keys and values in one matrix, gate and input of the MLP in another, and a
/// window in some sizes. Sources: transformers' modeling_phi3.py; TransformerLens' weight_conversions/phi3.py (which
/// leaves the window out).
/// </summary>
[ModelFamily("Phi3ForCausalLM", ModelType = "phi3")]
public sealed class Phi3 : ModelFamily
{
    private readonly Llama _llama = new();

    /// <inheritdoc/>
    public override string OptionalPrefix => _llama.OptionalPrefix;

    /// <inheritdoc/>
    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        var spec = _llama.ReadConfig(config, architecture);
        var fraction = config.GetObjectOrNull("rope_parameters")?.GetDouble("partial_rotary_factor", 1) ?? config.GetDouble("partial_rotary_factor", 1);
        return spec with
        {
            RotaryDim = (int)(spec.DHead * fraction),
            Windows = ReadWindows(config, spec.NLayers, config.GetInt("sliding_window", 0), _ => true),
        };
    }

    /// <inheritdoc/>
    public override IEnumerable<WeightRule> Weights(ModelSpec spec)
    {
        int d = spec.DModel, m = spec.DMlp, q = spec.NHeads * spec.DHead, kv = spec.NKvHeads * spec.DHead;
        foreach (var rule in _llama.Weights(spec))
        {
            var l = rule.Target.Split('.') is ["blocks", var n, ..] ? n : "";
            yield return rule.Target[(rule.Target.LastIndexOf('.') + 1)..] switch
            {
                "W_Q" => Fused(new RowRuns(0, q)),
                "W_K" => Fused(new RowRuns(q, kv)),
                "W_V" => Fused(new RowRuns(q + kv, kv)),
                "W_gate" => Matrix($"layers.{l}.mlp.gate_up_proj.weight", rule.Target, 2 * m, d) with { Rows = new RowRuns(0, m) },
                "W_in" => Matrix($"layers.{l}.mlp.gate_up_proj.weight", rule.Target, 2 * m, d) with { Rows = new RowRuns(m, m) },
                _ => rule,
            };

            WeightRule Fused(RowRuns rows) => Matrix($"layers.{l}.self_attn.qkv_proj.weight", rule.Target, q + (2 * kv), d) with { Rows = rows };
        }
    }

    /// <inheritdoc/>
    public override bool Ignores(string name) => _llama.Ignores(name);
}
