using IlgpuSae.Files;
using IlgpuSae.Models;

namespace IlgpuSae.Tests.Models;

// Families that an application might bring along: each uses parts of ModelSpec and WeightRule that the library's own do not.

/// <summary>Mistral 7B: Llama's blocks with a sliding attention window; the example of docs/adding-a-model.md.</summary>
[ModelFamily("MistralForCausalLM", ModelType = "mistral")]
public sealed class Mistral : ModelFamily
{
    private readonly Llama _llama = new();

    public override string OptionalPrefix => _llama.OptionalPrefix;

    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        var spec = _llama.ReadConfig(config, architecture);
        var window = config.GetInt("sliding_window", 0);
        return spec with { Windows = [.. Enumerable.Repeat(window, spec.NLayers)] };
    }

    public override IEnumerable<WeightRule> Weights(ModelSpec spec) => _llama.Weights(spec);

    public override bool Ignores(string name) => _llama.Ignores(name);
}

/// <summary>Gemma 2: norms with weight - 1 before and behind, soft caps, every other layer local, scaled embeddings.</summary>
[ModelFamily("Gemma2ForCausalLM", ModelType = "gemma2")]
public sealed class Gemma2 : ModelFamily
{
    private readonly Llama _llama = new();

    public override string OptionalPrefix => _llama.OptionalPrefix;

    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        var spec = _llama.ReadConfig(config, architecture);
        var window = config.GetInt("sliding_window");
        return spec with
        {
            Activation = ReadActivation(config, "hidden_activation", "gelu_pytorch_tanh"),
            NormWeightOffset = 1,
            PostNorms = true,
            EmbedScale = (float)Math.Sqrt(spec.DModel),
            AttentionScale = 1 / Math.Sqrt(config.GetDouble("query_pre_attn_scalar")),
            AttentionSoftCap = (float)config.GetDouble("attn_logit_softcapping"),
            LogitSoftCap = (float)config.GetDouble("final_logit_softcapping"),
            Windows = [.. Enumerable.Range(0, spec.NLayers).Select(l => l % 2 == 0 ? window : 0)],
            TiedEmbeddings = true,
        };
    }

    public override IEnumerable<WeightRule> Weights(ModelSpec spec)
    {
        foreach (var rule in _llama.Weights(spec))
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

/// <summary>GPT-NeoX (Pythia): parallel blocks, a quarter of each head rotated, queries, keys and values interleaved by head.</summary>
[ModelFamily("GPTNeoXForCausalLM", ModelType = "gpt_neox")]
public sealed class GptNeoX : ModelFamily
{
    public override string OptionalPrefix => "gpt_neox.";

    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        int d = config.GetInt("hidden_size"), heads = config.GetInt("num_attention_heads");
        return new ModelSpec
        {
            Architecture = architecture,
            DModel = d,
            NLayers = config.GetInt("num_hidden_layers"),
            NHeads = heads,
            NKvHeads = heads,
            DHead = d / heads,
            DMlp = config.GetInt("intermediate_size"),
            NCtx = config.GetInt("max_position_embeddings"),
            DVocab = config.GetInt("vocab_size"),
            Norm = NormKind.LayerNorm,
            Eps = (float)config.GetDouble("layer_norm_eps", 1e-5),
            Activation = ReadActivation(config, "hidden_act", "gelu"),
            Positions = PositionKind.Rotary,
            RotaryDim = (int)(d / heads * config.GetDouble("rotary_pct", 0.25)),
            RotaryBase = config.GetDouble("rotary_emb_base", 10000),
            ParallelBlock = config.GetBool("use_parallel_residual", true),
            QkvBias = true,
            AttentionOutBias = true,
            MlpBias = true,
            TiedEmbeddings = config.GetBool("tie_word_embeddings", false),
        };
    }

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
                yield return Vector(from + "attention.query_key_value.bias", to + "attn.b_" + "QKV"[i], 3 * d) with { Rows = rows };
            }

            yield return Matrix(from + "attention.dense.weight", to + "attn.W_O", d, d);
            yield return Vector(from + "attention.dense.bias", to + "attn.b_O", d);
            yield return Matrix(from + "mlp.dense_h_to_4h.weight", to + "mlp.W_in", m, d);
            yield return Vector(from + "mlp.dense_h_to_4h.bias", to + "mlp.b_in", m);
            yield return Matrix(from + "mlp.dense_4h_to_h.weight", to + "mlp.W_out", d, m);
            yield return Vector(from + "mlp.dense_4h_to_h.bias", to + "mlp.b_out", d);
        }

        yield return Vector("final_layer_norm.weight", "ln_final.w", d);
        yield return Vector("final_layer_norm.bias", "ln_final.b", d);
        yield return Matrix("embed_out.weight", "unembed.W_U", spec.DVocab, d);
    }
}

/// <summary>GPT-Neo (TinyStories): unscaled attention, local in every other layer, queries, keys and values without biases.</summary>
[ModelFamily("GPTNeoForCausalLM", ModelType = "gpt_neo")]
public sealed class GptNeo : ModelFamily
{
    public override string OptionalPrefix => "transformer.";

    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        int d = config.GetInt("hidden_size"), heads = config.GetInt("num_heads"), window = config.GetInt("window_size");
        return new ModelSpec
        {
            Architecture = architecture,
            DModel = d,
            NLayers = config.GetInt("num_layers"),
            NHeads = heads,
            NKvHeads = heads,
            DHead = d / heads,
            DMlp = config.GetInt("intermediate_size", 4 * d),
            NCtx = config.GetInt("max_position_embeddings"),
            DVocab = config.GetInt("vocab_size"),
            Norm = NormKind.LayerNorm,
            Eps = (float)config.GetDouble("layer_norm_epsilon", 1e-5),
            Activation = ReadActivation(config, "activation_function", "gelu_new"),
            Positions = PositionKind.Learned,
            AttentionScale = 1,
            Windows = [.. config.GetStrings("attention_layers").Select(kind => kind == "local" ? window : 0)],
            AttentionOutBias = true,
            MlpBias = true,
            TiedEmbeddings = true,
        };
    }

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
    }
}
