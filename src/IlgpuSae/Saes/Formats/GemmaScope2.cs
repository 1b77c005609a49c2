using System.Text.RegularExpressions;
using IlgpuSae.Files;

namespace IlgpuSae.Saes.Formats;

/// <summary>
/// Gemma Scope 2: <c>config.json</c> with Hugging Face's names of the places, and <c>params.safetensors</c>; JumpReLU SAEs and
/// transcoders, the latter with or without an affine skip connection. Of cross-layer transcoders, one layer's file
/// (<c>params_layer_L.safetensors</c>) is read as a transcoder whose decoder rows are summed over the layers they write to.
/// </summary>
/// <remarks>
/// The skip connection is x A with A as stored [d_in, d_out], as in the publisher's own example; SAELens takes A for its W_skip, which it transposes.
/// </remarks>
[SaeFormat("gemma_scope_2", "Gemma Scope 2, SAEs and (affine skip) transcoders: config.json, params.safetensors")]
public sealed partial class GemmaScope2 : SaeFormat
{
    private const string ConfigFile = "config.json";
    private const string WeightsFile = "params.safetensors";
    private const string Skip = "affine_skip_connection";

    /// <inheritdoc/>
    public override bool Recognises(string path) => File.Exists(Path.Combine(path, ConfigFile)) && File.Exists(Path.Combine(path, WeightsFile))
        || LayerFile().IsMatch(path) && File.Exists(path) && File.Exists(ConfigOf(path));

    /// <inheritdoc/>
    public override PublishedSae Read(string path, SaeHints hints)
    {
        var file = Directory.Exists(path) ? Path.Combine(path, WeightsFile) : path;
        var cfg = JsonConfig.Read(ConfigOf(file));
        if (cfg.GetString("architecture") is not "jump_relu" and var other) throw cfg.Wrong("architecture", $"is \"{other}\"; known: jump_relu");
        using var weights = WeightFile.Open(file);
        foreach (var name in weights.Names)
            if (name is not ("w_enc" or "w_dec" or "b_enc" or "b_dec" or "threshold" or Skip)) throw new InvalidFileException(file, $"tensor {name} is not known; known: w_enc, w_dec, b_enc, b_dec, threshold, {Skip}");
        var (dIn, dSae) = weights.Matrix("w_enc");
        var decoder = weights.ShapeOf("w_dec");
        var layered = decoder.Length == 3;
        string point = cfg.GetStringOrNull("hf_hook_point_in") ?? "", pointOut = cfg.GetStringOrNull("hf_hook_point_out") ?? point;
        var skip = weights.Contains(Skip);
        var transcoder = layered || skip || point != pointOut;
        var layer = PublishedConfig.Number(Point().Match(point)) ?? PublishedConfig.LayerOf(Path.GetFileName(path)) ?? PublishedConfig.LayerOf(hints.NameOf(path));
        var model = cfg.GetStringOrNull("model_name")?.Replace("-v3", "-3", StringComparison.Ordinal);
        double? l0 = cfg.Has("l0") ? cfg.GetDouble("l0") : null;
        var hook = Hook(point, layer);
        var config = PublishedConfig.Of(!transcoder ? "jumprelu" : skip ? "jumprelu_skip_transcoder" : "jumprelu_transcoder",
            dIn, dSae, weights.DtypeOf("w_enc"), subtractBDec: false,
            ("model_name", model), ("hook_name", hook), ("hook_name_out", transcoder ? Hook(pointOut, layer) : null),
            ("hf_hook_name", point.Length > 0 ? point : null), ("hf_hook_name_out", transcoder && pointOut.Length > 0 ? pointOut : null),
            ("context_size", 1024), ("prepend_bos", true), ("dataset_path", "monology/pile-uncopyrighted"));
        if (transcoder) config["d_out"] = decoder[^1];
        var notes = new List<string>();
        if (hook is null) notes.Add($"hf_hook_point_in is \"{point}\", a place that is not known here; give the hook yourself");
        if (layered) notes.Add(CltLayer.Warning);
        return new PublishedSae { Path = file, Config = config, ReadState = () => State(file), PublishedL0 = l0, Notes = notes };
    }

    private static string ConfigOf(string path) =>
        Path.Combine(Directory.Exists(path) ? path : Path.GetDirectoryName(Path.GetFullPath(path))!, ConfigFile);

    private static List<NamedValues> State(string file)
    {
        using var weights = WeightFile.Open(file);
        List<NamedValues> state =
        [
            weights.Read("b_dec", "b_dec"),
            weights.Read("b_enc", "b_enc"),
            weights.ShapeOf("w_dec").Length == 3 ? CltLayer.SummedOverLayers(weights, "w_dec") : weights.Read("w_dec", "W_dec"),
            weights.Read("w_enc", "W_enc"),
            weights.Read("threshold", "threshold"),
        ];
        if (weights.Contains(Skip)) state.Add(weights.Read(Skip, "W_skip", transposed: true));
        return state;
    }

    private static string? Hook(string point, int? layer) => Point().Match(point).Groups[2].Value switch
    {
        "output" => PublishedConfig.Block(layer, "hook_resid_post"),
        // What the output projection reads: all heads, merged.
        "self_attn.o_proj.input" => PublishedConfig.Block(layer, "attn.hook_z"),
        "pre_feedforward_layernorm.output" or "mlp.input" => PublishedConfig.Block(layer, "mlp.hook_in"),
        "post_feedforward_layernorm.output" => PublishedConfig.Block(layer, "hook_mlp_out"),
        "post_attention_layernorm.output" => PublishedConfig.Block(layer, "hook_attn_out"),
        _ => null,
    };

    [GeneratedRegex(@"layers\.(\d+|\{[a-z_]*\})\.(.+)$", RegexOptions.CultureInvariant)]
    private static partial Regex Point();

    [GeneratedRegex(@"params_layer_\d+\.safetensors$", RegexOptions.CultureInvariant)]
    private static partial Regex LayerFile();
}
