using System.Globalization;
using System.Text.Json.Nodes;
using IlgpuSae.Files;

namespace IlgpuSae.Saes.Formats;

/// <summary>
/// Turns the flat configurations that SAELens wrote before version 6 into today's, as SAELens itself does, except that
/// what it would load wrongly (<c>tanh-relu</c>, a learned scaling factor) is refused or folded in.
/// </summary>
internal static class SaeLensMigration
{
    private static readonly string[] Lifted =
    [
        "model_name", "hook_name", "model_class_name", "hook_head_index", "model_from_pretrained_kwargs", "prepend_bos",
        "exclude_special_tokens", "neuronpedia_id", "context_size", "seqpos_slice", "dataset_path", "sae_lens_version",
        "sae_lens_training_version", "hook_name_out", "hook_head_index_out",
    ];

    /// <summary>Today's fields; a configuration of version 6 as it is.</summary>
    public static JsonObject Migrate(JsonObject json, string path)
    {
        var version = json["sae_lens_version"] ?? (json["metadata"] as JsonObject)?["sae_lens_version"];
        if (version is JsonValue v && v.TryGetValue<string>(out var text) && !IsBefore6(text)) return json;

        var old = (JsonObject)json.DeepClone();
        Rename(old, "hook_point", "hook_name");
        Rename(old, "hook_point_layer", "hook_layer");
        Rename(old, "hook_point_head_index", "hook_head_index");
        Rename(old, "activation_fn_str", "activation_fn");
        if (old["hook_name"] is JsonValue h && h.TryGetValue<string>(out var hook) && hook.Contains("{layer}", StringComparison.Ordinal))
            old["hook_name"] = hook = hook.Replace("{layer}", old["hook_layer"]?.ToJsonString(), StringComparison.Ordinal);
        else hook = old["hook_name"]?.ToString() ?? "";

        Default(old, "prepend_bos", true);
        Default(old, "apply_b_dec_to_input", true);
        Default(old, "architecture", "standard");
        Default(old, "neuronpedia_id", null);
        Default(old, "sae_lens_training_version", null);
        Default(old, "reshape_activations", hook.Contains("hook_z", StringComparison.Ordinal) ? "hook_z" : "none");
        // The device is where it was trained.
        old["device"] = "cpu";

        var activation = old["activation_fn"]?.ToString() ?? "relu";
        if (activation == "topk")
        {
            old["architecture"] = "topk";
            if ((old["activation_fn_kwargs"] as JsonObject)?["k"] is { } k) old["k"] = k.DeepClone();
        }
        else if (activation != "relu")
        {
            throw new InvalidFileException(path, $"field \"activation_fn\" is {Say.Quote(activation)}, which no architecture has; known: relu, topk");
        }

        old["normalize_activations"] = old["normalize_activations"] switch
        {
            null => "none",
            JsonValue n when n.TryGetValue<bool>(out var on) => on ? "expected_average_only_in" : "none",
            var n => n.DeepClone(),
        };

        var metadata = new JsonObject();
        foreach (var key in Lifted)
            if (old.TryGetPropertyValue(key, out var value) && key != "sae_lens_version") metadata[key] = value?.DeepClone();
        old["metadata"] = metadata;
        return old;
    }

    /// <summary>
    /// Today's tensors. A <c>scaling_factor</c> of ones, which old versions wrote always, is dropped; a learned one
    /// multiplies features before decoding, so it goes into W_dec.
    /// </summary>
    public static IReadOnlyList<NamedValues> Migrate(IReadOnlyList<NamedValues> state, string path, bool finetuned)
    {
        if (state.FirstOrDefault(s => s.Name is "scaling_factor" or "finetuning_scaling_factor") is not { } factor) return state;
        List<NamedValues> rest = [.. state.Where(s => s != factor)];
        if (Array.TrueForAll(factor.Values, v => v == 1)) return rest;
        if (!finetuned)
            throw new InvalidFileException(path, $"tensor \"{factor.Name}\" is not all ones, but finetuning_scaling_factor is not true in {SaeLensFolder.ConfigFile}");
        if (rest.FirstOrDefault(s => s.Name == "W_dec") is not { } decoder || decoder.Shape.Rank != 2 || decoder.Shape[0] != factor.Values.Length)
            throw new InvalidFileException(path, $"tensor \"{factor.Name}\" is {factor.Shape}, which does not fit W_dec's rows");
        var width = decoder.Shape[1];
        for (var i = 0; i < decoder.Values.Length; i++) decoder.Values[i] *= factor.Values[i / width];
        return rest;
    }

    /// <summary>Whether a version lies before 6.0.0-rc.0.</summary>
    internal static bool IsBefore6(string version)
    {
        var digits = new string([.. version.TakeWhile(char.IsAsciiDigit)]);
        if (!int.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out var major)) return true;
        if (major != 6 || !version.StartsWith("6.0.0", StringComparison.Ordinal)) return major < 6;
        var tail = version[5..].TrimStart('-', '.', '_');
        return tail.StartsWith('a') || tail.StartsWith('b') || tail.StartsWith("dev", StringComparison.Ordinal);
    }

    private static void Rename(JsonObject json, string from, string to)
    {
        if (!json.TryGetPropertyValue(from, out var value)) return;
        json.Remove(from);
        if (!json.ContainsKey(to)) json[to] = value;
    }

    private static void Default(JsonObject json, string key, JsonNode? value)
    {
        if (!json.ContainsKey(key)) json[key] = value;
    }
}
