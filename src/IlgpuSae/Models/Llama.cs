using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>
/// Llama 1 to 3: RMSNorm, rotary positions with their scalings, grouped-query attention, SwiGLU. Sources: Touvron et al.
/// 2023 (arXiv:2302.13971) and transformers' modeling_llama.py.
/// </summary>
[ModelFamily("LlamaForCausalLM", ModelType = "llama")]
public sealed class Llama : ModelFamily
{
    /// <inheritdoc/>
    public override string OptionalPrefix => "model.";

    /// <inheritdoc/>
    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        int d = config.GetInt("hidden_size"), heads = config.GetInt("num_attention_heads");
        if (heads < 1) throw config.Wrong("num_attention_heads", $"is {heads}, expected at least 1");
        if (!config.Has("head_dim") && d % heads != 0)
            throw config.Wrong("num_attention_heads", $"is {heads}, which does not divide hidden_size {d}, and \"head_dim\" is missing");
        int head = config.GetInt("head_dim", d / heads), context = config.GetInt("max_position_embeddings");
        var bias = config.GetBool("attention_bias", false);
        var scaling = RopeScaling.Read(config, context);
        return new ModelSpec
        {
            Architecture = architecture,
            DModel = d,
            NLayers = config.GetInt("num_hidden_layers"),
            NHeads = heads,
            NKvHeads = config.GetInt("num_key_value_heads", heads),
            DHead = head,
            DMlp = config.GetInt("intermediate_size"),
            NCtx = scaling is RopeScaling.LongRope l ? Math.Min(context, l.OriginalContext) : context,
            DVocab = config.GetInt("vocab_size"),
            Norm = NormKind.RmsNorm,
            Eps = (float)config.GetDouble("rms_norm_eps", 1e-6),
            Activation = ReadActivation(config, "hidden_act", "silu"),
            GatedMlp = true,
            Positions = PositionKind.Rotary,
            RotaryDim = head,
            RotaryBase = RopeScaling.ReadTheta(config, 10000),
            RotaryScaling = scaling,
            QkvBias = bias,
            AttentionOutBias = bias,
            MlpBias = config.GetBool("mlp_bias", false),
            TiedEmbeddings = config.GetBool("tie_word_embeddings", false),
        };
    }

    /// <inheritdoc/>
    public override IEnumerable<WeightRule> Weights(ModelSpec spec)
    {
        int d = spec.DModel, m = spec.DMlp, q = spec.NHeads * spec.DHead, kv = spec.NKvHeads * spec.DHead;
        yield return Matrix("embed_tokens.weight", "embed.W_E", spec.DVocab, d);
        for (var l = 0; l < spec.NLayers; l++)
        {
            string from = $"layers.{l}.", to = $"blocks.{l}.";
            yield return Vector(from + "input_layernorm.weight", to + "ln1.w", d);
            foreach (var (name, letter, rows) in new[] { ("q_proj", 'Q', q), ("k_proj", 'K', kv), ("v_proj", 'V', kv) })
            {
                yield return Matrix($"{from}self_attn.{name}.weight", $"{to}attn.W_{letter}", rows, d);
                if (spec.QkvBias) yield return Vector($"{from}self_attn.{name}.bias", $"{to}attn.b_{letter}", rows);
            }

            yield return Matrix(from + "self_attn.o_proj.weight", to + "attn.W_O", d, q);
            if (spec.AttentionOutBias) yield return Vector(from + "self_attn.o_proj.bias", to + "attn.b_O", d);
            yield return Vector(from + "post_attention_layernorm.weight", to + "ln2.w", d);
            yield return Matrix(from + "mlp.gate_proj.weight", to + "mlp.W_gate", m, d);
            yield return Matrix(from + "mlp.up_proj.weight", to + "mlp.W_in", m, d);
            yield return Matrix(from + "mlp.down_proj.weight", to + "mlp.W_out", d, m);
            if (spec.MlpBias)
            {
                yield return Vector(from + "mlp.gate_proj.bias", to + "mlp.b_gate", m);
                yield return Vector(from + "mlp.up_proj.bias", to + "mlp.b_in", m);
                yield return Vector(from + "mlp.down_proj.bias", to + "mlp.b_out", d);
            }
        }

        yield return Vector("norm.weight", "ln_final.w", d);
        if (!spec.TiedEmbeddings) yield return Matrix("lm_head.weight", "unembed.W_U", spec.DVocab, d);
    }

    /// <summary>Rotary frequencies that old versions stored, and a copy of a tied unembedding.</summary>
    /// <param name="name">Tensor name.</param>
    public override bool Ignores(string name) =>
        name == "lm_head.weight" || name.EndsWith("rotary_emb.inv_freq", StringComparison.Ordinal);
}
