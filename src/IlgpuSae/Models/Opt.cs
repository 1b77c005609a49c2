using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>
/// OPT: learned positions whose table begins with two unused rows, ReLU, biases everywhere, a tied unembedding. Sources:
/// arXiv:2205.01068; transformers' modeling_opt.py; TransformerLens' weight_conversions/opt.py.
/// </summary>
[ModelFamily("OPTForCausalLM", "OPTModel", ModelType = "opt")]
public sealed class Opt : ModelFamily
{
    /// <summary>Rows of the table of positions before that of position 0.</summary>
    private const int PositionOffset = 2;

    private static readonly string[] Prefixes = ["model.decoder.", "decoder."];

    /// <inheritdoc/>
    public override IReadOnlyList<string> OptionalPrefixes => Prefixes;

    /// <inheritdoc/>
    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        int d = config.GetInt("hidden_size"), heads = config.GetInt("num_attention_heads"), head = ReadHeadWidth(config, "num_attention_heads", "hidden_size");
        // OPT-350m is built differently from all the others; TransformerLens does not have it either.
        if (!config.GetBool("do_layer_norm_before", true)) throw config.Wrong("do_layer_norm_before", "is false (OPT-350m); only OPT with its norms before attention and MLP is supported");
        var inner = config.GetInt("word_embed_proj_dim", d);
        if (inner != d) throw config.Wrong("word_embed_proj_dim", $"is {inner} but hidden_size {d} (OPT-350m); embeddings with a projection are not supported");
        if (config.GetBool("_remove_final_layer_norm", false)) throw config.Wrong("_remove_final_layer_norm", "is true; OPT without its final norm is not supported");
        if (!config.GetBool("layer_norm_elementwise_affine", true)) throw config.Wrong("layer_norm_elementwise_affine", "is false; norms without weights are not supported");
        if (!config.GetBool("enable_bias", true)) throw config.Wrong("enable_bias", "is false; OPT without biases is not supported");
        return new ModelSpec
        {
            Architecture = architecture,
            DModel = d,
            NLayers = config.GetInt("num_hidden_layers"),
            NHeads = heads,
            NKvHeads = heads,
            DHead = head,
            DMlp = config.GetInt("ffn_dim"),
            NCtx = config.GetInt("max_position_embeddings"),
            DVocab = config.GetInt("vocab_size"),
            Norm = NormKind.LayerNorm,
            Eps = 1e-5f,
            Activation = ReadActivation(config, "activation_function", "relu"),
            Positions = PositionKind.Learned,
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
        yield return Matrix("embed_tokens.weight", "embed.W_E", spec.DVocab, d);
        yield return Matrix("embed_positions.weight", "pos_embed.W_pos", spec.NCtx + PositionOffset, d) with { Rows = new RowRuns(PositionOffset, spec.NCtx) };
        for (var l = 0; l < spec.NLayers; l++)
        {
            string from = $"layers.{l}.", to = $"blocks.{l}.";
            foreach (var (norm, target) in new[] { ("self_attn_layer_norm", "ln1"), ("final_layer_norm", "ln2") })
            {
                yield return Vector($"{from}{norm}.weight", $"{to}{target}.w", d);
                yield return Vector($"{from}{norm}.bias", $"{to}{target}.b", d);
            }

            foreach (var (name, target) in new[] { ("q_proj", "Q"), ("k_proj", "K"), ("v_proj", "V"), ("out_proj", "O") })
            {
                yield return Matrix($"{from}self_attn.{name}.weight", $"{to}attn.W_{target}", d, d);
                yield return Vector($"{from}self_attn.{name}.bias", $"{to}attn.b_{target}", d);
            }

            yield return Matrix(from + "fc1.weight", to + "mlp.W_in", m, d);
            yield return Vector(from + "fc1.bias", to + "mlp.b_in", m);
            yield return Matrix(from + "fc2.weight", to + "mlp.W_out", d, m);
            yield return Vector(from + "fc2.bias", to + "mlp.b_out", d);
        }

        yield return Vector("final_layer_norm.weight", "ln_final.w", d);
        yield return Vector("final_layer_norm.bias", "ln_final.b", d);
        if (!spec.TiedEmbeddings) yield return Matrix("lm_head.weight", "unembed.W_U", spec.DVocab, d);
    }

    /// <summary>A copy of the tied unembedding.</summary>
    /// <param name="name">Tensor name.</param>
    public override bool Ignores(string name) => name == "lm_head.weight";
}
