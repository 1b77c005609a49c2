using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>
/// GPT-J: attention and MLP in parallel behind one LayerNorm, neighbouring dimensions rotated, no biases in attention,
/// a bias at the logits. As in TransformerLens, ln1 and ln2 are two copies of the one norm. Sources: transformers'
/// modeling_gptj.py; TransformerLens' weight_conversions/gptj.py.
/// </summary>
[ModelFamily("GPTJForCausalLM", ModelType = "gptj")]
public sealed class GptJ : ModelFamily
{
    /// <inheritdoc/>
    public override string OptionalPrefix => "transformer.";

    /// <inheritdoc/>
    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        string width = Spelling(config, "n_embd", "hidden_size"), headsKey = Spelling(config, "n_head", "num_attention_heads");
        int d = config.GetInt(width), heads = config.GetInt(headsKey), head = ReadHeadWidth(config, headsKey, width);
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
            Positions = PositionKind.Rotary,
            RotaryDim = config.GetInt("rotary_dim", head),
            RotaryAdjacentPairs = true,
            ParallelBlock = true,
            MlpBias = true,
            UnembedBias = true,
            TiedEmbeddings = config.GetBool("tie_word_embeddings", false),
        };
    }

    /// <inheritdoc/>
    public override IEnumerable<WeightRule> Weights(ModelSpec spec)
    {
        int d = spec.DModel, m = spec.DMlp;
        yield return Matrix("wte.weight", "embed.W_E", spec.DVocab, d);
        for (var l = 0; l < spec.NLayers; l++)
        {
            string from = $"h.{l}.", to = $"blocks.{l}.";
            for (var i = 1; i <= 2; i++)
            {
                yield return Vector(from + "ln_1.weight", $"{to}ln{i}.w", d);
                yield return Vector(from + "ln_1.bias", $"{to}ln{i}.b", d);
            }

            foreach (var letter in "qkv")
                yield return Matrix($"{from}attn.{letter}_proj.weight", $"{to}attn.W_{char.ToUpperInvariant(letter)}", d, d);
            yield return Matrix(from + "attn.out_proj.weight", to + "attn.W_O", d, d);
            yield return Matrix(from + "mlp.fc_in.weight", to + "mlp.W_in", m, d);
            yield return Vector(from + "mlp.fc_in.bias", to + "mlp.b_in", m);
            yield return Matrix(from + "mlp.fc_out.weight", to + "mlp.W_out", d, m);
            yield return Vector(from + "mlp.fc_out.bias", to + "mlp.b_out", d);
        }

        yield return Vector("ln_f.weight", "ln_final.w", d);
        yield return Vector("ln_f.bias", "ln_final.b", d);
        if (!spec.TiedEmbeddings) yield return Matrix("lm_head.weight", "unembed.W_U", spec.DVocab, d);
        yield return Vector("lm_head.bias", "unembed.b_U", spec.DVocab);
    }

    /// <summary>The causal mask and its fill value, rotary tables, and a copy of a tied unembedding.</summary>
    /// <param name="name">Tensor name.</param>
    public override bool Ignores(string name) =>
        name == "lm_head.weight" || name.EndsWith(".attn.bias", StringComparison.Ordinal) || name.EndsWith(".attn.masked_bias", StringComparison.Ordinal)
        || name.EndsWith(".attn.embed_positions", StringComparison.Ordinal);
}
