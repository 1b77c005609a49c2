using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>
/// Gemma 3, text: Gemma 2 without soft caps, with queries and keys normalised by head, five local layers to a global
/// one, and a rotary base for each kind. Of the models that also see images (4B and larger) the text part is loaded.
/// Sources: arXiv:2503.19786; transformers' modeling_gemma3.py and configuration_gemma3.py; TransformerLens'
/// weight_conversions/gemma.py.
/// </summary>
[ModelFamily("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration", ModelType = "gemma3_text")]
public sealed class Gemma3 : ModelFamily
{
    private static readonly string[] Prefixes = ["model.language_model.", "language_model.model.", "language_model.", "model."];
    private readonly Gemma _gemma = new();

    /// <inheritdoc/>
    public override IReadOnlyList<string> OptionalPrefixes => Prefixes;

    /// <inheritdoc/>
    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        // Files of the models with images leave out what equals the defaults of transformers' Gemma3TextConfig.
        var c = config.GetObjectOrNull("text_config") ?? config;
        if (c.GetBool("use_bidirectional_attention", false)) throw c.Wrong("use_bidirectional_attention", "is true; only causal attention is supported");
        int d = c.GetInt("hidden_size", 2304), layers = c.GetInt("num_hidden_layers", 26), head = c.GetInt("head_dim", 256);
        int context = c.GetInt("max_position_embeddings", 131072), pattern = c.GetInt(Spelling(c, "sliding_window_pattern", "_sliding_window_pattern"), 6);
        var rope = c.GetObjectOrNull("rope_parameters");
        JsonConfig? global = rope?.GetObjectOrNull("full_attention"), local = rope?.GetObjectOrNull("sliding_attention");
        return new ModelSpec
        {
            Architecture = architecture,
            DModel = d,
            NLayers = layers,
            NHeads = c.GetInt("num_attention_heads", 8),
            NKvHeads = c.GetInt("num_key_value_heads", 4),
            DHead = head,
            DMlp = c.GetInt("intermediate_size", 9216),
            NCtx = context,
            DVocab = c.GetInt("vocab_size", 262208),
            Norm = NormKind.RmsNorm,
            NormWeightOffset = 1,
            NormPlacement = NormPlacement.BeforeAndBehind,
            QueryKeyNorm = QueryKeyNorm.EachHead,
            Eps = (float)c.GetDouble("rms_norm_eps", 1e-6),
            Activation = ReadActivation(c, "hidden_activation", "gelu_pytorch_tanh"),
            GatedMlp = true,
            Positions = PositionKind.Rotary,
            RotaryDim = head,
            RotaryBase = global?.GetDouble("rope_theta", 1_000_000) ?? c.GetDouble("rope_theta", 1_000_000),
            RotaryScaling = global is not null ? RopeScaling.ReadObject(global, context) : RopeScaling.Read(c, context),
            LocalRotaryBase = local?.GetDouble("rope_theta", 10_000) ?? c.GetDouble("rope_local_base_freq", 10_000),
            AttentionScale = 1 / Math.Sqrt(c.GetDouble("query_pre_attn_scalar", 256)),
            AttentionSoftCap = (float)c.GetDouble("attn_logit_softcapping", 0),
            LogitSoftCap = (float)c.GetDouble("final_logit_softcapping", 0),
            Windows = ReadWindows(c, layers, c.GetInt("sliding_window", 4096), l => (l + 1) % Math.Max(1, pattern) != 0),
            TiedEmbeddings = config.GetBool("tie_word_embeddings", c.GetBool("tie_word_embeddings", true)),
            EmbedScale = (float)Math.Sqrt(d),
        };
    }

    /// <inheritdoc/>
    public override IEnumerable<WeightRule> Weights(ModelSpec spec)
    {
        foreach (var rule in Gemma2.WithPostNorms(_gemma.Weights(spec), spec)) yield return rule;
        for (var l = 0; l < spec.NLayers; l++)
        {
            foreach (var letter in "qk")
                yield return Vector($"layers.{l}.self_attn.{letter}_norm.weight", $"blocks.{l}.attn.{letter}_norm.w", spec.DHead);
        }
    }

    /// <summary>The parts that see images, and what Llama's checkpoints carry too much.</summary>
    /// <param name="name">Tensor name.</param>
    public override bool Ignores(string name) =>
        name.StartsWith("vision_tower.", StringComparison.Ordinal) || name.StartsWith("multi_modal_projector.", StringComparison.Ordinal) || _gemma.Ignores(name);
}
