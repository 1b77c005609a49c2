using System.Globalization;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using IlgpuSae.Files;

namespace IlgpuSae.Saes.Formats;

/// <summary>
/// mwhanna's transcoders for Qwen3: <c>layer_L.safetensors</c> beside <c>wandb-config.yaml</c> (in some repositories
/// <c>wanb-config.yaml</c>) and, in most, <c>config.yaml</c>. The encoder is transposed, the rest as SAELens has it.
/// </summary>
[SaeFormat("mwhanna_transcoder", "mwhanna's transcoders: layer_L.safetensors, wandb-config.yaml")]
public sealed partial class MwHannaTranscoder : SaeFormat
{
    /// <inheritdoc/>
    public override bool Recognises(string path) => Layer().IsMatch(path) && !Path.GetFileName(path).StartsWith("params_", StringComparison.Ordinal) && File.Exists(path) && Settings(path) is not null;

    /// <inheritdoc/>
    public override PublishedSae Read(string path, SaeHints hints)
    {
        var layer = int.Parse(Layer().Match(path).Groups[1].ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture);
        var cfg = YamlConfig.Read(Settings(path) ?? throw new InvalidFileException(path, "has no wandb-config.yaml beside it"));
        var general = In(path, "config.yaml");
        var size = Size().Match(hints.NameOf(path));
        var model = File.Exists(general) ? YamlConfig.Read(general).GetStringOrNull("model_name") : size.Success ? $"Qwen/Qwen3-{size.Groups[1].Value}B" : null;
        using var weights = WeightFile.Open(path);
        var (dSae, dIn) = weights.Matrix("W_enc");
        Agree(cfg, "d_model", dIn);
        Agree(cfg, "d_feature", dSae);
        var skip = weights.Contains("W_skip");
        var config = PublishedConfig.Of(skip ? "skip_transcoder" : "transcoder", dIn, dSae, weights.DtypeOf("W_enc"), subtractBDec: false,
            ("model_name", model), ("hook_name", PublishedConfig.Block(layer, "mlp.hook_in")), ("hook_name_out", PublishedConfig.Block(layer, "hook_mlp_out")),
            ("context_size", cfg.GetObjectOrNull("batch_size") is { } context && context.Has("value") ? context.GetInt("value") : null),
            ("dataset_path", "monology/pile-uncopyrighted"), ("model_from_pretrained_kwargs", new JsonObject { ["fold_ln"] = false }));
        config["d_out"] = weights.Matrix("W_dec").Columns;
        return new PublishedSae { Path = path, Config = config, ReadState = () => State(path, skip) };
    }

    private static List<NamedValues> State(string path, bool skip)
    {
        using var weights = WeightFile.Open(path);
        List<NamedValues> state =
            [weights.Read("b_dec", "b_dec"), weights.Read("b_enc", "b_enc"), weights.Read("W_dec", "W_dec"), weights.Read("W_enc", "W_enc", transposed: true)];
        if (skip) state.Add(weights.Read("W_skip", "W_skip"));
        return state;
    }

    private static void Agree(JsonConfig cfg, string key, int found)
    {
        var stated = cfg.GetObject(key).GetInt("value");
        if (stated != found) throw cfg.Wrong(key, $"is {stated}, but tensor W_enc has {found}");
    }

    private static string? Settings(string path) => new[] { In(path, "wandb-config.yaml"), In(path, "wanb-config.yaml") }.FirstOrDefault(File.Exists);

    private static string In(string path, string file) => Path.Combine(Path.GetDirectoryName(Path.GetFullPath(path))!, file);

    [GeneratedRegex(@"layer_(\d+)\.safetensors$", RegexOptions.CultureInvariant)]
    private static partial Regex Layer();

    [GeneratedRegex(@"qwen3-(\d+(?:\.\d+)?)b", RegexOptions.CultureInvariant | RegexOptions.IgnoreCase)]
    private static partial Regex Size();
}
