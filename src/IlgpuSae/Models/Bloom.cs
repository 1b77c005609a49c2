using IlgpuSae.Files;
using IlgpuSae.Kernels;

namespace IlgpuSae.Models;

/// <summary>
/// BLOOM: ALiBi instead of positions, a LayerNorm of the embeddings, queries, keys and values interleaved by head, a tied
/// unembedding. Sources: arXiv:2211.05100; transformers' modeling_bloom.py; TransformerLens' weight_conversions/bloom.py.
/// </summary>
[ModelFamily("BloomForCausalLM", "BloomModel", ModelType = "bloom")]
public sealed class Bloom : ModelFamily
{
    /// <inheritdoc/>
    public override string OptionalPrefix => "transformer.";

    /// <inheritdoc/>
    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        if (config.GetBool("apply_residual_connection_post_layernorm", false))
            throw config.Wrong("apply_residual_connection_post_layernorm", "is true; only residual connections before the norm are supported");
        string width = Spelling(config, "hidden_size", "n_embed"), headsKey = Spelling(config, "n_head", "num_attention_heads");
        int d = config.GetInt(width), heads = config.GetInt(headsKey), head = ReadHeadWidth(config, headsKey, width);
        return new ModelSpec
        {
            Architecture = architecture,
            DModel = d,
            NLayers = config.GetInt(Spelling(config, "n_layer", "num_hidden_layers")),
            NHeads = heads,
            NKvHeads = heads,
            DHead = head,
            DMlp = 4 * d,
            // ALiBi knows no longest context; this is what the models were trained with.
            NCtx = config.GetInt("seq_length", 2048),
            DVocab = config.GetInt("vocab_size"),
            Norm = NormKind.LayerNorm,
            Eps = (float)config.GetDouble("layer_norm_epsilon", 1e-5),
            Activation = ActivationKind.GeluFast,
            Positions = PositionKind.Alibi,
            EmbedNorm = true,
            QkvBias = true,
            AttentionOutBias = true,
            MlpBias = true,
            TiedEmbeddings = config.GetBool("tie_word_embeddings", true),
        };
    }

    /// <inheritdoc/>
    public override IEnumerable<WeightRule> Weights(ModelSpec spec)
    {
        int d = spec.DModel, m = spec.DMlp, h = spec.DHead;
        yield return Matrix("word_embeddings.weight", "embed.W_E", spec.DVocab, d);
        yield return Vector("word_embeddings_layernorm.weight", "embed.ln.w", d);
        yield return Vector("word_embeddings_layernorm.bias", "embed.ln.b", d);
        for (var l = 0; l < spec.NLayers; l++)
        {
            string from = $"h.{l}.", to = $"blocks.{l}.";
            foreach (var (norm, target) in new[] { ("input_layernorm", "ln1"), ("post_attention_layernorm", "ln2") })
            {
                yield return Vector($"{from}{norm}.weight", $"{to}{target}.w", d);
                yield return Vector($"{from}{norm}.bias", $"{to}{target}.b", d);
            }

            for (var i = 0; i < 3; i++)
            {
                var rows = new RowRuns(i * h, h, spec.NHeads, 3 * h);
                yield return Matrix(from + "self_attention.query_key_value.weight", to + "attn.W_" + "QKV"[i], 3 * d, d) with { Rows = rows };
                yield return Vector(from + "self_attention.query_key_value.bias", to + "attn.b_" + "QKV"[i], 3 * d) with { Rows = rows };
            }

            yield return Matrix(from + "self_attention.dense.weight", to + "attn.W_O", d, d);
            yield return Vector(from + "self_attention.dense.bias", to + "attn.b_O", d);
            yield return Matrix(from + "mlp.dense_h_to_4h.weight", to + "mlp.W_in", m, d);
            yield return Vector(from + "mlp.dense_h_to_4h.bias", to + "mlp.b_in", m);
            yield return Matrix(from + "mlp.dense_4h_to_h.weight", to + "mlp.W_out", d, m);
            yield return Vector(from + "mlp.dense_4h_to_h.bias", to + "mlp.b_out", d);
        }

        yield return Vector("ln_f.weight", "ln_final.w", d);
        yield return Vector("ln_f.bias", "ln_final.b", d);
        if (!spec.TiedEmbeddings) yield return Matrix("lm_head.weight", "unembed.W_U", spec.DVocab, d);
    }

    /// <summary>A copy of the tied unembedding.</summary>
    /// <param name="name">Tensor name.</param>
    public override bool Ignores(string name) => name == "lm_head.weight";
}
