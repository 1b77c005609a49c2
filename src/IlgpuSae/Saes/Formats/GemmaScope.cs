using System.Text.RegularExpressions;
using IlgpuSae.Files;

namespace IlgpuSae.Saes.Formats;

/// <summary>
/// Gemma Scope: <c>params.npz</c> in <c>layer_L/width_W/average_l0_N</c> of a repository named after model and place. JumpReLU
/// SAEs that subtract nothing from their input; in a repository of transcoders, jumprelu transcoders. Tensors are as SAELens
/// has them; SAEs of the embedding were trained on activations times sqrt(d_in), which is folded in.
/// </summary>
/// <remarks>Lieberum et al. 2024, arXiv:2408.05147; names as SAELens' loaders gemma_2 and gemma_2_transcoder take them.</remarks>
[SaeFormat("gemma_scope", "Gemma Scope, SAEs and transcoders: params.npz")]
public sealed partial class GemmaScope : SaeFormat
{
    internal const string WeightsFile = "params.npz";

    private static readonly (string Target, string[] Names)[] Tensors =
    [
        ("b_dec", ["b_dec", "bdec", "b_d"]),
        ("b_enc", ["b_enc", "benc", "b_e"]),
        ("W_dec", ["w_dec", "wdec", "w_d"]),
        ("W_enc", ["w_enc", "wenc", "w_e"]),
        ("threshold", ["threshold"]),
    ];

    /// <inheritdoc/>
    public override bool Recognises(string path) => path.EndsWith(".npz", StringComparison.Ordinal) ? File.Exists(path) : File.Exists(Path.Combine(path, WeightsFile));

    /// <inheritdoc/>
    public override PublishedSae Read(string path, SaeHints hints)
    {
        var file = Directory.Exists(path) ? Path.Combine(path, WeightsFile) : path;
        var name = hints.NameOf(path);
        using var weights = WeightFile.Open(file);
        var found = Find(weights);
        var (dIn, dSae) = weights.Matrix(found["W_enc"]);
        var transcoder = name.Contains("transcoder", StringComparison.OrdinalIgnoreCase);
        var embedding = name.Contains("embedding", StringComparison.Ordinal);
        var layer = PublishedConfig.LayerOf(name);
        var (hook, hookOut) = Hooks(name, layer, transcoder, embedding);
        var model = Model().Match(name);
        var config = PublishedConfig.Of(transcoder ? "jumprelu_transcoder" : "jumprelu", dIn, dSae, "float32", subtractBDec: false,
            ("model_name", model.Success ? $"gemma-2-{model.Groups[1].Value}{(model.Groups[2].Value == "it" ? "-it" : "")}" : null),
            ("hook_name", hook), ("hook_name_out", hookOut), ("context_size", 1024), ("prepend_bos", true), ("dataset_path", "monology/pile-uncopyrighted"));
        if (transcoder) config["d_out"] = weights.Matrix(found["W_dec"]).Columns;
        return new PublishedSae
        {
            Path = file,
            Config = config,
            ReadState = () => State(file, embedding),
            PublishedL0 = PublishedConfig.AverageL0Of(name),
            Notes = hook is null ? ["the path does not say where it belongs (such as gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71); give the hook yourself"] : [],
        };
    }

    /// <inheritdoc/>
    public override bool Writes => true;

    /// <inheritdoc/>
    public override void Write(string folder, Sae sae, float[]? logSparsity)
    {
        const string name = "gemma_scope";
        RequirePlain(name, sae);
        if (sae.Config.Architecture is not ("jumprelu" or "jumprelu_transcoder"))
            throw Inexpressible(name, $"its architecture is {sae.Config.Architecture}, and Gemma Scope has jumprelu and jumprelu_transcoder");
        if (sae.Config.ApplyBDecToInput) throw Inexpressible(name, "apply_b_dec_to_input is true, and Gemma Scope subtracts nothing from its input");
        var state = StateOf(sae);
        var writer = new NpzWriter();
        foreach (var (target, names) in Tensors)
            writer.Add(names[0], [.. state[target].Shape.Dims.ToArray().Select(d => (long)d)], state[target].Values);
        writer.Save(Path.Combine(folder, WeightsFile));
    }

    private static List<NamedValues> State(string file, bool embedding)
    {
        using var weights = WeightFile.Open(file);
        var found = Find(weights);
        List<NamedValues> state = [.. Tensors.Select(t => weights.Read(found[t.Target], t.Target))];
        if (!embedding) return state;
        var root = Math.Sqrt(state.First(s => s.Name == "W_enc").Shape[0]);
        foreach (var s in state)
        {
            if (s.Name == "W_enc") Multiply(s.Values, 1 / root);
            if (s.Name == "W_dec") Multiply(s.Values, root);
        }

        return state;
    }

    private static void Multiply(float[] values, double factor)
    {
        foreach (ref var v in values.AsSpan()) v = (float)(v * factor);
    }

    /// <summary>The arrays by SAELens' names; one that has none of them is an error.</summary>
    private static Dictionary<string, string> Find(WeightFile weights)
    {
        var found = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var name in weights.Names)
        {
            var target = Array.Find(Tensors, t => t.Names.Contains(name.ToLowerInvariant())).Target;
            if (target is null && name == "scaling_factor" && Array.TrueForAll(weights.Floats(name), v => v == 1)) continue;
            if (target is null || !found.TryAdd(target, name))
                throw new InvalidFileException(weights.Path, $"array \"{name}\" is not known; known: {string.Join(", ", Tensors.Select(t => t.Target))}");
        }

        return Array.Find(Tensors, t => !found.ContainsKey(t.Target)).Target is { } missing
            ? throw new InvalidFileException(weights.Path, $"has no array {missing}; it has {string.Join(", ", weights.Names)}")
            : found;
    }

    private static (string? Hook, string? HookOut) Hooks(string name, int? layer, bool transcoder, bool embedding)
    {
        if (transcoder) return (PublishedConfig.Block(layer, "ln2.hook_normalized"), PublishedConfig.Block(layer, "hook_mlp_out"));
        if (embedding) return ("hook_embed", null);
        return (Place().Match(name).Groups[1].Value switch
        {
            "res" => PublishedConfig.Block(layer, "hook_resid_post"),
            "mlp" => PublishedConfig.Block(layer, "hook_mlp_out"),
            "att" => PublishedConfig.Block(layer, "attn.hook_z"),
            _ => null,
        }, null);
    }

    [GeneratedRegex(@"gemma-scope-(2b|9b|27b)-(pt|it)", RegexOptions.CultureInvariant)]
    private static partial Regex Model();

    [GeneratedRegex(@"(?:pt|it)-(res|mlp|att)\b", RegexOptions.CultureInvariant)]
    private static partial Regex Place();
}
