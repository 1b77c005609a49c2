using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>
/// Gemma 1: Llama's blocks with GELU, norms that store weight - 1, embeddings times sqrt(d_model), heads whose width is
/// given, a tied unembedding. Sources: arXiv:2403.08295 and transformers' modeling_gemma.py.
/// </summary>
[ModelFamily("GemmaForCausalLM", ModelType = "gemma")]
public sealed class Gemma : ModelFamily
{
    private readonly Llama _llama = new();

    /// <inheritdoc/>
    public override string OptionalPrefix => _llama.OptionalPrefix;

    /// <inheritdoc/>
    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        var spec = _llama.ReadConfig(config, architecture);
        var head = config.GetInt("head_dim", 256);
        return spec with
        {
            DHead = head,
            RotaryDim = head,
            // hidden_act is "gelu" in early files, which never was what the model computed: transformers passes over it.
            Activation = ReadActivation(config, "hidden_activation", "gelu_pytorch_tanh"),
            NormWeightOffset = 1,
            EmbedScale = (float)Math.Sqrt(spec.DModel),
            TiedEmbeddings = config.GetBool("tie_word_embeddings", true),
        };
    }

    /// <inheritdoc/>
    public override IEnumerable<WeightRule> Weights(ModelSpec spec) => _llama.Weights(spec);

    /// <inheritdoc/>
    public override bool Ignores(string name) => _llama.Ignores(name);
}
