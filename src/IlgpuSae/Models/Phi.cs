using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>
/// Phi 1, 1.5 and 2: attention and MLP in parallel behind one LayerNorm, a part of each head rotated, biases everywhere,
/// at the logits too. As in TransformerLens, ln1 and ln2 are two copies of the one norm. Sources: transformers'
/// modeling_phi.py; TransformerLens' weight_conversions/phi.py.
/// </summary>
[ModelFamily("PhiForCausalLM", ModelType = "phi")]
public sealed class Phi : ModelFamily
{
    /// <inheritdoc/>
    public override string OptionalPrefix => "model.";

    /// <inheritdoc/>
    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        if (config.GetBool("qk_layernorm", false)) throw config.Wrong("qk_layernorm", "is true; Phi with LayerNorm of queries and keys is not supported");
        int heads = config.GetInt("num_attention_heads"), head = ReadHeadWidth(config, "num_attention_heads", "hidden_size");
        var context = config.GetInt("max_position_embeddings");
        var rope = config.GetObjectOrNull("rope_parameters");
        return new ModelSpec
        {
            Architecture = architecture,
            DModel = config.GetInt("hidden_size"),
            NLayers = config.GetInt("num_hidden_layers"),
            NHeads = heads,
            NKvHeads = config.GetInt("num_key_value_heads", heads),
            DHead = head,
            DMlp = config.GetInt("intermediate_size"),
            NCtx = context,
            DVocab = config.GetInt("vocab_size"),
            Norm = NormKind.LayerNorm,
            Eps = (float)config.GetDouble("layer_norm_eps", 1e-5),
            Activation = ReadActivation(config, "hidden_act", "gelu_new"),
            Positions = PositionKind.Rotary,
            RotaryDim = (int)(head * (rope?.GetDouble("partial_rotary_factor", 0.5) ?? config.GetDouble("partial_rotary_factor", 0.5))),
            RotaryBase = RopeScaling.ReadTheta(config, 10000),
            RotaryScaling = RopeScaling.Read(config, context),
            ParallelBlock = true,
            QkvBias = true,
            AttentionOutBias = true,
            MlpBias = true,
            UnembedBias = true,
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
            for (var i = 1; i <= 2; i++)
            {
                yield return Vector(from + "input_layernorm.weight", $"{to}ln{i}.w", d);
                yield return Vector(from + "input_layernorm.bias", $"{to}ln{i}.b", d);
            }

            foreach (var (letter, rows) in new[] { ('q', q), ('k', kv), ('v', kv) })
            {
                yield return Matrix($"{from}self_attn.{letter}_proj.weight", $"{to}attn.W_{char.ToUpperInvariant(letter)}", rows, d);
                yield return Vector($"{from}self_attn.{letter}_proj.bias", $"{to}attn.b_{char.ToUpperInvariant(letter)}", rows);
            }

            yield return Matrix(from + "self_attn.dense.weight", to + "attn.W_O", d, q);
            yield return Vector(from + "self_attn.dense.bias", to + "attn.b_O", d);
            yield return Matrix(from + "mlp.fc1.weight", to + "mlp.W_in", m, d);
            yield return Vector(from + "mlp.fc1.bias", to + "mlp.b_in", m);
            yield return Matrix(from + "mlp.fc2.weight", to + "mlp.W_out", d, m);
            yield return Vector(from + "mlp.fc2.bias", to + "mlp.b_out", d);
        }

        yield return Vector("final_layernorm.weight", "ln_final.w", d);
        yield return Vector("final_layernorm.bias", "ln_final.b", d);
        if (!spec.TiedEmbeddings) yield return Matrix("lm_head.weight", "unembed.W_U", spec.DVocab, d);
        yield return Vector("lm_head.bias", "unembed.b_U", spec.DVocab);
    }

    /// <summary>Rotary frequencies that old versions stored, and a copy of a tied unembedding.</summary>
    /// <param name="name">Tensor name.</param>
    public override bool Ignores(string name) =>
        name == "lm_head.weight" || name.EndsWith("rotary_emb.inv_freq", StringComparison.Ordinal);
}
