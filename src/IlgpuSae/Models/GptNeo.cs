using System.Text.Json;
using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>
/// GPT-Neo (TinyStories): GPT-2's blocks with unscaled attention, local in some layers, and queries, keys and values
/// without biases. Source: transformers' modeling_gpt_neo.py.
/// </summary>
[ModelFamily("GPTNeoForCausalLM", ModelType = "gpt_neo")]
public sealed class GptNeo : ModelFamily
{
    /// <inheritdoc/>
    public override string OptionalPrefix => "transformer.";

    /// <inheritdoc/>
    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        string headsKey = Spelling(config, "num_heads", "num_attention_heads");
        int d = config.GetInt("hidden_size"), heads = config.GetInt(headsKey), head = ReadHeadWidth(config, headsKey, "hidden_size");
        var layers = config.GetInt(Spelling(config, "num_layers", "num_hidden_layers"));
        return new ModelSpec
        {
            Architecture = architecture,
            DModel = d,
            NLayers = layers,
            NHeads = heads,
            NKvHeads = heads,
            DHead = head,
            DMlp = config.GetInt("intermediate_size", 4 * d),
            NCtx = config.GetInt("max_position_embeddings"),
            DVocab = config.GetInt("vocab_size"),
            Norm = NormKind.LayerNorm,
            Eps = (float)config.GetDouble("layer_norm_epsilon", 1e-5),
            Activation = ReadActivation(config, "activation_function", "gelu_new"),
            Positions = PositionKind.Learned,
            AttentionScale = 1,
            Windows = ReadLocalLayers(config, layers),
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
            for (var i = 1; i <= 2; i++)
            {
                yield return Vector($"{from}ln_{i}.weight", $"{to}ln{i}.w", d);
                yield return Vector($"{from}ln_{i}.bias", $"{to}ln{i}.b", d);
            }

            foreach (var letter in "qkv")
                yield return Matrix($"{from}attn.attention.{letter}_proj.weight", $"{to}attn.W_{char.ToUpperInvariant(letter)}", d, d);
            yield return Matrix(from + "attn.attention.out_proj.weight", to + "attn.W_O", d, d);
            yield return Vector(from + "attn.attention.out_proj.bias", to + "attn.b_O", d);
            yield return Matrix(from + "mlp.c_fc.weight", to + "mlp.W_in", m, d);
            yield return Vector(from + "mlp.c_fc.bias", to + "mlp.b_in", m);
            yield return Matrix(from + "mlp.c_proj.weight", to + "mlp.W_out", d, m);
            yield return Vector(from + "mlp.c_proj.bias", to + "mlp.b_out", d);
        }

        yield return Vector("ln_f.weight", "ln_final.w", d);
        yield return Vector("ln_f.bias", "ln_final.b", d);
        if (!spec.TiedEmbeddings) yield return Matrix("lm_head.weight", "unembed.W_U", spec.DVocab, d);
    }

    /// <summary>The causal mask and its fill value, and a copy of the tied unembedding.</summary>
    /// <param name="name">Tensor name.</param>
    public override bool Ignores(string name) =>
        name == "lm_head.weight" || name.EndsWith(".attention.bias", StringComparison.Ordinal) || name.EndsWith(".attention.masked_bias", StringComparison.Ordinal);

    /// <summary><c>attention_layers</c> names each layer's kind; <c>attention_types</c> is [[kinds, repeats], ...] for the same.</summary>
    private static IReadOnlyList<int> ReadLocalLayers(JsonConfig config, int layers)
    {
        var window = config.GetInt("window_size", 256);
        string key = Spelling(config, "attention_layers", "attention_types");
        List<string> kinds = [];
        if (key == "attention_layers" && config.Has(key))
        {
            kinds.AddRange(config.GetStrings(key));
        }
        else if (config.TryGet(key, out var types))
        {
            const string Form = "is not a list of [kinds, number] pairs, such as [[[\"global\", \"local\"], 12]]";
            if (types.ValueKind != JsonValueKind.Array) throw config.Wrong(key, Form);
            foreach (var pair in types.EnumerateArray())
            {
                if (pair.ValueKind != JsonValueKind.Array || pair.GetArrayLength() != 2 || pair[0].ValueKind != JsonValueKind.Array || !pair[1].TryGetInt32(out var repeats)
                    || pair[0].EnumerateArray().Any(k => k.ValueKind != JsonValueKind.String)) throw config.Wrong(key, Form);
                var list = pair[0].EnumerateArray().Select(k => k.GetString()!).ToList();
                for (var i = 0; i < repeats && kinds.Count <= layers; i++) kinds.AddRange(list);
            }
        }
        else
        {
            kinds.AddRange(Enumerable.Range(0, layers).Select(l => l % 2 == 0 ? "global" : "local"));
        }

        if (kinds.Count != layers) throw config.Wrong(key, $"names {kinds.Count} layers, the model has {layers}");
        return [.. kinds.Select(k => k switch
        {
            "global" => 0,
            "local" => window,
            _ => throw config.Wrong(key, $"has \"{k}\", which is not known; known: global, local"),
        })];
    }
}
