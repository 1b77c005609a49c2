using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>
/// GPT-NeoX (Pythia): blocks with attention and MLP in parallel, a part of each head rotated, queries, keys and values
/// interleaved by head. Sources: arXiv:2204.06745 and transformers' modeling_gpt_neox.py.
/// </summary>
[ModelFamily("GPTNeoXForCausalLM", ModelType = "gpt_neox")]
public sealed class GptNeoX : ModelFamily
{
    /// <inheritdoc/>
    public override string OptionalPrefix => "gpt_neox.";

    /// <inheritdoc/>
    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        int heads = config.GetInt("num_attention_heads"), head = ReadHeadWidth(config, "num_attention_heads", "hidden_size");
        var context = config.GetInt("max_position_embeddings");
        var bias = config.GetBool("attention_bias", true);
        return new ModelSpec
        {
            Architecture = architecture,
            DModel = config.GetInt("hidden_size"),
            NLayers = config.GetInt("num_hidden_layers"),
            NHeads = heads,
            NKvHeads = heads,
            DHead = head,
            DMlp = config.GetInt("intermediate_size"),
            NCtx = context,
            DVocab = config.GetInt("vocab_size"),
            Norm = NormKind.LayerNorm,
            Eps = (float)config.GetDouble("layer_norm_eps", 1e-5),
            Activation = ReadActivation(config, "hidden_act", "gelu"),
            Positions = PositionKind.Rotary,
            RotaryDim = (int)(head * Fraction(config)),
            RotaryBase = RopeScaling.ReadTheta(config, config.GetDouble(Spelling(config, "rotary_emb_base", "rope_theta"), 10000)),
            RotaryScaling = RopeScaling.Read(config, context),
            ParallelBlock = config.GetBool("use_parallel_residual", true),
            QkvBias = bias,
            AttentionOutBias = bias,
            MlpBias = true,
            TiedEmbeddings = config.GetBool("tie_word_embeddings", false),
        };
    }

    /// <inheritdoc/>
    public override IEnumerable<WeightRule> Weights(ModelSpec spec)
    {
        int d = spec.DModel, m = spec.DMlp, h = spec.DHead;
        yield return Matrix("embed_in.weight", "embed.W_E", spec.DVocab, d);
        for (var l = 0; l < spec.NLayers; l++)
        {
            string from = $"layers.{l}.", to = $"blocks.{l}.";
            foreach (var (norm, target) in new[] { ("input_layernorm", "ln1"), ("post_attention_layernorm", "ln2") })
            {
                yield return Vector($"{from}{norm}.weight", $"{to}{target}.w", d);
                yield return Vector($"{from}{norm}.bias", $"{to}{target}.b", d);
            }

            for (var i = 0; i < 3; i++)
            {
                var rows = new RowRuns(i * h, h, spec.NHeads, 3 * h);
                yield return Matrix(from + "attention.query_key_value.weight", to + "attn.W_" + "QKV"[i], 3 * d, d) with { Rows = rows };
                if (spec.QkvBias) yield return Vector(from + "attention.query_key_value.bias", to + "attn.b_" + "QKV"[i], 3 * d) with { Rows = rows };
            }

            yield return Matrix(from + "attention.dense.weight", to + "attn.W_O", d, d);
            if (spec.AttentionOutBias) yield return Vector(from + "attention.dense.bias", to + "attn.b_O", d);
            yield return Matrix(from + "mlp.dense_h_to_4h.weight", to + "mlp.W_in", m, d);
            yield return Vector(from + "mlp.dense_h_to_4h.bias", to + "mlp.b_in", m);
            yield return Matrix(from + "mlp.dense_4h_to_h.weight", to + "mlp.W_out", d, m);
            yield return Vector(from + "mlp.dense_4h_to_h.bias", to + "mlp.b_out", d);
        }

        yield return Vector("final_layer_norm.weight", "ln_final.w", d);
        yield return Vector("final_layer_norm.bias", "ln_final.b", d);
        if (!spec.TiedEmbeddings) yield return Matrix("embed_out.weight", "unembed.W_U", spec.DVocab, d);
    }

    /// <summary>The causal mask and its fill value, rotary frequencies, and a copy of a tied unembedding.</summary>
    /// <param name="name">Tensor name.</param>
    public override bool Ignores(string name) =>
        name == "embed_out.weight" || name.EndsWith(".attention.bias", StringComparison.Ordinal)
        || name.EndsWith(".attention.masked_bias", StringComparison.Ordinal) || name.EndsWith("rotary_emb.inv_freq", StringComparison.Ordinal);

    /// <summary>The rotated part of a head: <c>rotary_pct</c>, or transformers 5's <c>partial_rotary_factor</c>.</summary>
    private static double Fraction(JsonConfig config)
    {
        if (config.GetObjectOrNull("rope_parameters") is { } r && r.Has("partial_rotary_factor")) return r.GetDouble("partial_rotary_factor");
        return config.GetDouble(Spelling(config, "rotary_pct", "partial_rotary_factor"), 0.25);
    }
}
