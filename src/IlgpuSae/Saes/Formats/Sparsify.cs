using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using IlgpuSae.Files;

namespace IlgpuSae.Saes.Formats;

/// <summary>
/// EleutherAI's sparsify: <c>cfg.json</c> and <c>sae.safetensors</c> in a folder named after the module, with the run's
/// <c>config.json</c> above it. encoder.weight is the transpose of W_enc, W_dec is as SAELens has it; b_dec is subtracted
/// from the input unless it transcodes; ReLU, then the k largest (<c>signed</c>: the k largest in magnitude, no ReLU).
/// </summary>
/// <remarks>SAELens 6.18 transposes W_dec, which does not fit, and takes the subtraction from <c>normalize_decoder</c>.</remarks>
[SaeFormat("sparsify", "EleutherAI's sparsify: cfg.json, sae.safetensors")]
public sealed partial class Sparsify : SaeFormat
{
    internal const string ConfigFile = "cfg.json";
    internal const string WeightsFile = "sae.safetensors";

    /// <summary>Fields that say nothing about what is computed, and those that are honoured below.</summary>
    private static readonly string[] Understood =
        ["activation", "expansion_factor", "normalize_decoder", "num_latents", "k", "multi_topk", "skip_connection", "transcode", "signed", "d_in", "lookup_max_order", "gram_table_hash", "jumprelu", "init_enc_as_dec_transpose"];

    /// <inheritdoc/>
    public override bool Recognises(string path) => File.Exists(Path.Combine(path, ConfigFile)) && File.Exists(Path.Combine(path, WeightsFile));

    /// <inheritdoc/>
    public override PublishedSae Read(string path, SaeHints hints)
    {
        var cfg = JsonConfig.Read(Path.Combine(path, ConfigFile));
        foreach (var key in cfg.Keys.Where(k => !Understood.Contains(k)))
        {
            // What is switched off changes nothing.
            if (cfg.TryGet(key, out var value) && value.ValueKind is not JsonValueKind.False)
                throw cfg.Wrong(key, "is a setting of sparsify that is not known here; the SAE may compute something else than it seems");
        }

        if (cfg.GetStringOrNull("activation") is { } activation and not "topk") throw cfg.Wrong("activation", $"is \"{activation}\"; known: topk");
        if (cfg.GetBool("jumprelu", false)) throw cfg.Wrong("jumprelu", "is true, which is not known here");
        var file = Path.Combine(path, WeightsFile);
        using var weights = WeightFile.Open(file);
        var encoder = weights.FirstOf("encoder.weight", "W_enc");
        var (dSae, dIn) = weights.Matrix(encoder);
        if (encoder == "W_enc") (dSae, dIn) = (dIn, dSae);
        if (cfg.GetInt("d_in") != dIn) throw cfg.Wrong("d_in", $"is {cfg.GetInt("d_in")}, but tensor {encoder} of {WeightsFile} has {dIn}");
        var transcode = cfg.GetBool("transcode", false);
        var skip = cfg.GetBool("skip_connection", false);
        var signed = cfg.GetBool("signed", false);
        if (signed && (transcode || skip)) throw cfg.Wrong("signed", "is true for a transcoder, which is not known here");
        if (skip && !transcode) throw cfg.Wrong("skip_connection", "is true for an SAE that does not transcode, which is not known here");

        var run = Path.Combine(Path.GetDirectoryName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(path)))!, "config.json");
        var info = File.Exists(run) ? JsonConfig.Read(run) : null;
        var (hook, hookOut) = Hooks(hints.NameOf(path), transcode);
        var architecture = signed ? "abstopk" : !transcode ? "topk" : skip ? "topk_skip_transcoder" : "topk_transcoder";
        var config = PublishedConfig.Of(architecture, dIn, dSae, weights.DtypeOf(encoder), subtractBDec: !transcode,
            ("model_name", info?.GetStringOrNull("model")), ("hook_name", hook), ("hook_name_out", hookOut), ("dataset_path", info?.GetStringOrNull("dataset")),
            ("context_size", info is not null && info.Has("ctx_len") ? info.GetInt("ctx_len") : null), ("prepend_bos", true));
        config["k"] = cfg.GetInt("k");
        if (architecture != "abstopk") config["rescale_acts_by_decoder_norm"] = false;
        if (transcode) config["d_out"] = weights.Matrix("W_dec").Columns;
        return new PublishedSae
        {
            Path = path,
            Config = config,
            ReadState = () => State(file, encoder, skip),
            PublishedL0 = cfg.GetInt("k"),
            Notes = hook is null ? [$"the folder's name says no layer (layers.N or embed_tokens); give the hook yourself"] : [],
        };
    }

    /// <inheritdoc/>
    public override bool Writes => true;

    /// <inheritdoc/>
    public override void Write(string folder, Sae sae, float[]? logSparsity)
    {
        const string name = "sparsify";
        RequirePlain(name, sae);
        var json = ConfigJson.ToJson(sae.Config);
        var architecture = sae.Config.Architecture;
        if (architecture is not ("topk" or "abstopk" or "topk_transcoder" or "topk_skip_transcoder"))
            throw Inexpressible(name, $"its architecture is {architecture}, and sparsify has topk, abstopk (signed), topk_transcoder and topk_skip_transcoder");
        if (json["rescale_acts_by_decoder_norm"] is JsonValue v && v.GetValue<bool>())
            throw Inexpressible(name, "rescale_acts_by_decoder_norm is true; fold the decoder's norms first");
        var transcode = sae.Config.IsTranscoder;
        if (sae.Config.ApplyBDecToInput == transcode) throw Inexpressible(name, $"apply_b_dec_to_input is {(transcode ? "true" : "false")}");
        var skip = architecture == "topk_skip_transcoder";
        var state = StateOf(sae);
        var writer = new SafetensorsWriter();
        writer.Metadata["format"] = "pt";
        void Add(string file, string own, bool transposed = false)
        {
            var s = state[own];
            var values = transposed ? Sae.Transposed(s.Values, s.Shape[0], s.Shape[1]) : s.Values;
            SaeLensFolder.Add(writer, file, transposed ? [s.Shape[1], s.Shape[0]] : s.Shape, values, sae.Config.StorageType);
        }

        Add("encoder.weight", "W_enc", transposed: true);
        Add("encoder.bias", "b_enc");
        Add("W_dec", "W_dec");
        Add("b_dec", "b_dec");
        if (skip) Add("W_skip", "W_skip");
        writer.Save(Path.Combine(folder, WeightsFile));
        var cfg = new JsonObject
        {
            ["activation"] = "topk",
            ["expansion_factor"] = Math.Max(1, sae.Config.DSae / sae.Config.DIn),
            ["normalize_decoder"] = false,
            ["num_latents"] = sae.Config.DSae,
            ["k"] = json["k"]!.DeepClone(),
            ["multi_topk"] = false,
            ["skip_connection"] = skip,
            ["transcode"] = transcode,
            ["d_in"] = sae.Config.DIn,
        };
        if (architecture == "abstopk") cfg["signed"] = true;
        SaeLensFolder.WriteJson(Path.Combine(folder, ConfigFile), cfg);
    }

    private static List<NamedValues> State(string file, string encoder, bool skip)
    {
        using var weights = WeightFile.Open(file);
        List<NamedValues> state =
        [
            weights.Read(weights.FirstOf("b_dec", "decoder.bias"), "b_dec"),
            weights.Read(weights.FirstOf("encoder.bias", "b_enc"), "b_enc"),
            weights.Contains("W_dec") ? weights.Read("W_dec", "W_dec") : weights.Read("decoder.weight", "W_dec", transposed: true),
            weights.Read(encoder, "W_enc", transposed: encoder == "encoder.weight"),
        ];
        if (skip) state.Add(weights.Read("W_skip", "W_skip"));
        return state;
    }

    /// <summary>sparsify names modules of the model; SAEs sit at their outputs, transcoders between input and output.</summary>
    private static (string? Hook, string? HookOut) Hooks(string name, bool transcode)
    {
        var module = name[(name.LastIndexOf('/') + 1)..];
        if (module.Contains("embed_tokens", StringComparison.Ordinal) || module.EndsWith("wte", StringComparison.Ordinal)) return ("hook_embed", null);
        var match = Module().Match(module);
        var layer = PublishedConfig.Number(match);
        var part = match.Groups[2].Value.TrimStart('.', '_');
        if (transcode) return (PublishedConfig.Block(layer, "mlp.hook_in"), PublishedConfig.Block(layer, "hook_mlp_out"));
        return (PublishedConfig.Block(layer, part switch
        {
            "" => "hook_resid_post",
            "mlp" => "hook_mlp_out",
            "attn" or "self_attn" or "attention" => "hook_attn_out",
            _ => "hook_" + part,
        }), null);
    }

    [GeneratedRegex(@"(?:layers|h)[._](\d+)(.*)$", RegexOptions.CultureInvariant)]
    private static partial Regex Module();
}
