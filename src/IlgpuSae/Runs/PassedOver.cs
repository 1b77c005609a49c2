using System.Text.Json.Nodes;

namespace IlgpuSae.Runs;

/// <summary>
/// Fields of SAELens that have no meaning here. Most change nothing (logging, compilation, devices, precision that is
/// higher here, where data lie); a value that would change the result is an error.
/// </summary>
internal static class PassedOver
{
    private static readonly HashSet<string> Names = new(StringComparer.Ordinal)
    {
        "act_store_device", "autocast", "autocast_lm", "cached_activations_path", "checkpoint_path", "compile_llm", "compile_sae",
        "dataset_trust_remote_code", "dead_feature_threshold", "device", "hook_eval", "hook_layer", "is_dataset_tokenized", "llm_compilation_mode",
        "logger", "model_class_name", "model_kwargs", "n_checkpoints", "resume_from_checkpoint",
        "sae_compilation_mode", "sae_lens_training_version", "sae_lens_version", "save_final_checkpoint", "streaming",
        "tokens_per_buffer", "use_cached_activations", "verbose",
    };

    /// <summary>Beginnings of the logger's fields, should they stand at the top.</summary>
    private static readonly string[] OfLogging = ["wandb", "run_name", "log_", "eval_every_"];

    /// <summary>Whether a field is one of these.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="value">Its value.</param>
    /// <param name="where">The file, for messages.</param>
    /// <exception cref="InvalidInputException">The value would change the result.</exception>
    public static bool Has(string name, JsonNode? value, string where)
    {
        if (!Names.Contains(name)) return OfLogging.Any(p => name.StartsWith(p, StringComparison.Ordinal));
        switch (name)
        {
            case "model_class_name" when value is JsonValue v && v.TryGetValue<string>(out var kind) && kind == "HookedMamba":
                throw Cannot(name, value, where, "only transformers can be run");
            case "resume_from_checkpoint" when value is not null:
                throw Cannot(name, value, where, "start from saved weights by init_from");
            case "model_kwargs" when value is JsonObject { Count: > 0 }:
                throw Cannot(name, value, where, "the model's forward pass takes no settings; use {}");
        }

        return true;
    }

    private static InvalidInputException Cannot(string field, JsonNode value, string where, string why) =>
        new($"{where}: field \"{field}\" cannot be {value.ToJsonString()}; {why}");
}
