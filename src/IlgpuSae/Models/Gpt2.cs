using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>
/// GPT-2: LayerNorm, learned positions, biases everywhere, a tied unembedding. Its linear layers are Conv1D, stored [in, out],
/// with queries, keys and values side by side. Source: Radford et al. 2019 and transformers' modeling_gpt2.py.
/// </summary>
[ModelFamily("GPT2LMHeadModel", "GPT2Model", ModelType = "gpt2")]
public sealed class Gpt2 : ModelFamily
{
    /// <inheritdoc/>
    public override string OptionalPrefix => "transformer.";

    /// <inheritdoc/>
    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        string width = Spelling(config, "n_embd", "hidden_size"), headsKey = Spelling(config, "n_head", "num_attention_heads");
        int d = config.GetInt(width), heads = config.GetInt(headsKey), head = ReadHeadWidth(config, headsKey, width);
        if (config.GetBool("add_cross_attention", false)) throw config.Wrong("add_cross_attention", "is true; only decoders without it are supported");
        return new ModelSpec
        {
            Architecture = architecture,
            DModel = d,
            NLayers = config.GetInt(Spelling(config, "n_layer", "num_hidden_layers")),
            NHeads = heads,
            NKvHeads = heads,
            DHead = head,
            DMlp = config.GetInt("n_inner", 4 * d),
            NCtx = config.GetInt(Spelling(config, "n_positions", "max_position_embeddings", "n_ctx")),
            DVocab = config.GetInt("vocab_size"),
            Norm = NormKind.LayerNorm,
            Eps = (float)config.GetDouble("layer_norm_epsilon", 1e-5),
            Activation = ReadActivation(config, "activation_function", "gelu_new"),
            Positions = PositionKind.Learned,
            AttentionScale = config.GetBool("scale_attn_weights", true) ? null : 1,
            ScaleByInverseLayer = config.GetBool("scale_attn_by_inverse_layer_idx", false),
            QkvBias = true,
            AttentionOutBias = true,
            MlpBias = true,
            TiedEmbeddings = config.GetBool("tie_word_embeddings", true),
        };
    }

    /// <inheritdoc/>
    public override IEnumerable<WeightRule> Weights(ModelSpec spec)
    {
        int d = spec.DModel, m = spec.DMlp;
        yield return Matrix("wte.weight", "embed.W_E", spec.DVocab, d);
        yield return Matrix("wpe.weight", "pos_embed.W_pos", spec.NCtx, d);
        for (var l = 0; l < spec.NLayers; l++)
        {
            string from = $"h.{l}.", to = $"blocks.{l}.";
            yield return Vector(from + "ln_1.weight", to + "ln1.w", d);
            yield return Vector(from + "ln_1.bias", to + "ln1.b", d);
            for (var i = 0; i < 3; i++)
            {
                yield return Conv1D(from + "attn.c_attn.weight", to + "attn.W_" + "QKV"[i], d, 3 * d) with { Rows = new(i * d, d) };
                yield return Vector(from + "attn.c_attn.bias", to + "attn.b_" + "QKV"[i], 3 * d) with { Rows = new(i * d, d) };
            }

            yield return Conv1D(from + "attn.c_proj.weight", to + "attn.W_O", d, d);
            yield return Vector(from + "attn.c_proj.bias", to + "attn.b_O", d);
            yield return Vector(from + "ln_2.weight", to + "ln2.w", d);
            yield return Vector(from + "ln_2.bias", to + "ln2.b", d);
            yield return Conv1D(from + "mlp.c_fc.weight", to + "mlp.W_in", d, m);
            yield return Vector(from + "mlp.c_fc.bias", to + "mlp.b_in", m);
            yield return Conv1D(from + "mlp.c_proj.weight", to + "mlp.W_out", m, d);
            yield return Vector(from + "mlp.c_proj.bias", to + "mlp.b_out", d);
        }

        yield return Vector("ln_f.weight", "ln_final.w", d);
        yield return Vector("ln_f.bias", "ln_final.b", d);
        if (!spec.TiedEmbeddings) yield return Matrix("lm_head.weight", "unembed.W_U", spec.DVocab, d);
    }

    /// <summary>The causal mask and its fill value, and a copy of the tied unembedding.</summary>
    /// <param name="name">Tensor name.</param>
    public override bool Ignores(string name) =>
        name == "lm_head.weight" || name.EndsWith(".attn.bias", StringComparison.Ordinal) || name.EndsWith(".attn.masked_bias", StringComparison.Ordinal);

    private static WeightRule Conv1D(string source, string target, int inputs, int outputs) =>
        new(source, target, [inputs, outputs]) { Transposed = true };
}
