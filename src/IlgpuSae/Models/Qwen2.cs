using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>
/// Qwen 1.5, 2 and 2.5: Llama's blocks with biases of queries, keys and values; a window in the later layers if the
/// configuration asks for it. Source: transformers' modeling_qwen2.py and configuration_qwen2.py.
/// </summary>
[ModelFamily("Qwen2ForCausalLM", ModelType = "qwen2")]
public sealed class Qwen2 : ModelFamily
{
    private readonly Llama _llama = new();

    /// <inheritdoc/>
    public override string OptionalPrefix => _llama.OptionalPrefix;

    /// <inheritdoc/>
    public override ModelSpec ReadConfig(JsonConfig config, string architecture)
    {
        var spec = _llama.ReadConfig(config, architecture);
        return spec with { QkvBias = true, AttentionOutBias = false, Windows = ReadWindows(config, spec.NLayers) };
    }

    /// <inheritdoc/>
    public override IEnumerable<WeightRule> Weights(ModelSpec spec) => _llama.Weights(spec);

    /// <inheritdoc/>
    public override bool Ignores(string name) => _llama.Ignores(name);

    /// <summary>The window is off unless <c>use_sliding_window</c> is set, and then holds from <c>max_window_layers</c> on.</summary>
    internal static IReadOnlyList<int> ReadWindows(JsonConfig config, int layers)
    {
        var window = config.GetBool("use_sliding_window", false) ? config.GetInt("sliding_window", 0) : 0;
        var first = config.GetInt("max_window_layers", 28);
        return ReadWindows(config, layers, window, l => l >= first);
    }
}
