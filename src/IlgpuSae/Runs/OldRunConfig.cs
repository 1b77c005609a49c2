using System.Text.Json.Nodes;
using IlgpuSae.Saes.Formats;

namespace IlgpuSae.Runs;

/// <summary>
/// Turns a run's configuration from before SAELens 6 (one flat object) into today's fields. What such a file does not
/// name has the default it had then, not today's. Fields that had no effect there are noted; what cannot be done
/// is an error.
/// </summary>
/// <param name="old">The file's fields.</param>
/// <param name="where">The file, for messages.</param>
internal sealed class OldRunConfig(JsonObject old, string where)
{
    /// <summary>Fields that only those versions had.</summary>
    private static readonly string[] Telling =
    [
        "activation_fn", "activation_fn_str", "activation_fn_kwargs", "expansion_factor", "decoder_orthogonal_init", "decoder_heuristic_init",
        "decoder_heuristic_init_norm", "hook_point", "hook_point_layer", "hook_point_head_index", "hook_layer", "resume", "store_batch_size",
        "train_batch_size", "total_training_tokens", "n_eval_seqs", "log_to_wandb",
    ];

    private readonly JsonObject _new = [];
    private readonly List<string> _idle = [];

    /// <summary>Whether a configuration is of before version 6: it says so, or says no version and has a field only those had.</summary>
    /// <param name="json">The file's content.</param>
    public static bool Is(JsonObject json)
    {
        if (json["sae"] is JsonObject || json["sae_cfg"] is JsonObject) return false;
        return json["sae_lens_version"] is JsonValue v && v.TryGetValue<string>(out var version)
            ? SaeLensMigration.IsBefore6(version)
            : Telling.Any(json.ContainsKey);
    }

    /// <summary>Today's fields.</summary>
    /// <param name="old">The file's fields.</param>
    /// <param name="where">The file, for messages.</param>
    /// <param name="idle">Fields that had no effect in such a run.</param>
    /// <exception cref="InvalidInputException">A field asks for what cannot be done.</exception>
    public static JsonObject Migrate(JsonObject old, string where, out IReadOnlyList<string> idle)
    {
        var migration = new OldRunConfig((JsonObject)old.DeepClone(), where);
        migration.Run();
        idle = migration._idle;
        return migration._new;
    }

    private void Run()
    {
        foreach (var (name, value) in old)
            if (value is JsonArray && name is not ("seqpos_slice" or "exclude_special_tokens"))
                throw Cannot(name, value, "several SAEs of one run are several runs here; give one value");
        Rename("hook_point", "hook_name");
        Rename("hook_point_layer", "hook_layer");
        Rename("hook_point_head_index", "hook_head_index");
        Rename("activation_fn_str", "activation_fn");
        Rename("total_training_tokens", "training_tokens");
        Rename("store_batch_size", "store_batch_size_prompts");
        Rename("train_batch_size", "train_batch_size_tokens");
        Rename("n_eval_seqs", "eval_batch_size_prompts");
        var version = Text("sae_lens_version") ?? Text("sae_lens_training_version");
        foreach (var name in new[] { "sae_lens_version", "sae_lens_training_version", "hook_point_eval", "tokens_per_buffer" }) old.Remove(name);
        if (Flag("resume", false)) throw Cannot("resume", true, "start from saved weights by from_pretrained_path");

        Hook();
        var architecture = Architecture();
        Widths();
        Losses(architecture);
        FirstWeights();
        Trainer(version);
        foreach (var (name, value) in old) _new[name] = value?.DeepClone();
    }

    private void Hook()
    {
        var layer = Take("hook_layer");
        if (Take("hook_name") is not JsonValue v) return;
        _new["hook_name"] = v.TryGetValue<string>(out var hook) && hook.Contains("{layer}", StringComparison.Ordinal)
            ? hook.Replace("{layer}", layer?.ToJsonString() ?? throw Cannot("hook_name", v, "it needs hook_layer"), StringComparison.Ordinal)
            : v.DeepClone();
        // The layer follows from the hook's name.
        if (layer is not null) _idle.Add("hook_layer");
    }

    private string Architecture()
    {
        var named = Text("architecture") ?? "standard";
        old.Remove("architecture");
        var kwargs = Take("activation_fn_kwargs") as JsonObject;
        var activation = Text("activation_fn") ?? (named == "topk" ? "topk" : "relu");
        old.Remove("activation_fn");
        if (named is not ("standard" or "gated" or "jumprelu" or "topk")) throw Cannot("architecture", named, "known there: standard, gated, jumprelu, topk");
        if (activation is not ("relu" or "topk"))
            throw Cannot("activation_fn", activation, "no architecture here has that activation; known: relu, topk");
        if (activation == "topk" && named is "gated" or "jumprelu") throw Cannot("activation_fn", activation, $"architecture {named} has its own activation");
        if (activation == "relu" && named == "topk") throw Cannot("activation_fn", activation, "architecture topk needs topk");
        var architecture = activation == "topk" ? "topk" : named;
        _new["architecture"] = architecture;
        foreach (var (name, value) in kwargs ?? [])
            if (name != "k") throw Cannot($"activation_fn_kwargs.{name}", value, "only k is known");
        if (architecture != "topk")
        {
            if (kwargs?.ContainsKey("k") == true) _idle.Add("activation_fn_kwargs");
            return architecture;
        }

        _new["k"] = kwargs?["k"]?.DeepClone() ?? 100;
        _new["rescale_acts_by_decoder_norm"] = false;
        _new["aux_loss_coefficient"] = 1.0;
        return architecture;
    }

    private void Widths()
    {
        var dIn = Take("d_in") ?? 512;
        var (dSae, factor) = (Take("d_sae"), Take("expansion_factor"));
        _new["d_in"] = dIn.DeepClone();
        // SAELens wrote files with both: d_sae computed from the factor.
        if (dSae is not null && factor is not null && (int)Number(dSae, "d_sae") != (int)(Number(dIn, "d_in") * Number(factor, "expansion_factor")))
            throw Cannot("expansion_factor", factor, $"d_sae = {dSae.ToJsonString()} is another width than d_in = {dIn.ToJsonString()} times it; give one of them");
        _new["d_sae"] = dSae?.DeepClone() ?? (int)(Number(dIn, "d_in") * (factor is null ? 4 : Number(factor, "expansion_factor")));
    }

    private void Losses(string architecture)
    {
        Coefficients(architecture);
        var weigh = Flag("scale_sparsity_penalty_by_decoder_norm", false);
        var unit = Flag("normalize_sae_decoder", true);
        if (unit && weigh) throw Cannot("scale_sparsity_penalty_by_decoder_norm", true, "normalize_sae_decoder keeps these norms at 1; set one of them to false");
        Only("standard", architecture, "scale_sparsity_penalty_by_decoder_norm", weigh, false);
        _new["normalize_sae_decoder"] = unit;
        var ghosts = Flag("use_ghost_grads", false);
        if (ghosts && architecture != "standard") throw Cannot("use_ghost_grads", true, $"architecture {architecture} has no ghost gradients; use false");
        if (architecture == "standard") _new["use_ghost_grads"] = ghosts;
        // Gated SAEs were never given it.
        Only(architecture == "gated" ? "" : architecture, architecture, "noise_scale", Take("noise_scale") ?? 0.0, 0.0);
        _new["mse_loss_normalization"] = Take("mse_loss_normalization");
        _new["normalize_activations"] = Take("normalize_activations") switch
        {
            null => "none",
            JsonValue v when v.TryGetValue<bool>(out var on) => on ? "expected_average_only_in" : "none",
            var v => v.DeepClone(),
        };
        _new["apply_b_dec_to_input"] = Flag("apply_b_dec_to_input", true);
        foreach (var name in new[] { "jumprelu_init_threshold", "jumprelu_bandwidth" }) Only("jumprelu", architecture, name, Take(name) ?? 0.001, 0.001);
        // What came later, as it was before.
        if (architecture == "jumprelu") _new["jumprelu_sparsity_loss_mode"] = "step";
    }

    private void Coefficients(string architecture)
    {
        var coefficient = Take("l1_coefficient") ?? 1e-3;
        var warmUp = Take("l1_warm_up_steps") ?? 0;
        var power = Take("lp_norm") ?? 1;
        if (architecture == "topk")
        {
            foreach (var (name, value) in new[] { ("l1_coefficient", coefficient), ("l1_warm_up_steps", warmUp) })
                if (Number(value, name) != 0) _idle.Add(name);
        }
        else
        {
            var l = architecture == "jumprelu" ? "l0" : "l1";
            _new[l + "_coefficient"] = coefficient.DeepClone();
            _new[l + "_warm_up_steps"] = warmUp.DeepClone();
        }

        Only("standard", architecture, "lp_norm", power, 1);
    }

    private void FirstWeights()
    {
        _new["b_dec_init_method"] = Text("b_dec_init_method") ?? "geometric_median";
        old.Remove("b_dec_init_method");
        bool orthogonal = Flag("decoder_orthogonal_init", false), heuristic = Flag("decoder_heuristic_init", false);
        if (heuristic && _new["normalize_sae_decoder"]!.GetValue<bool>())
            throw Cannot("decoder_heuristic_init", true, "normalize_sae_decoder would undo it; set one of them to false");
        var norm = Take("decoder_heuristic_init_norm");
        _new["decoder_init_method"] = orthogonal ? "orthogonal" : heuristic ? "normal" : "kaiming_uniform";
        _new["decoder_init_norm"] = heuristic && !orthogonal ? norm?.DeepClone() ?? 0.1 : null;
        if (norm is not null && (!heuristic || orthogonal)) _idle.Add("decoder_heuristic_init_norm");
        if (heuristic && orthogonal) _idle.Add("decoder_heuristic_init");
        _new["init_encoder_as_decoder_transpose"] = Flag("init_encoder_as_decoder_transpose", false);
    }

    private void Trainer(string? version)
    {
        // The median was over half a buffer; more rows than these hardly move it.
        int batches = (int)Count("n_batches_in_buffer", 20), prompts = (int)Count("store_batch_size_prompts", 32), context = (int)Count("context_size", 128);
        _new["b_dec_init_samples"] = Math.Clamp((long)Math.Max(1, batches / 2) * prompts * context, 1, 32768);
        _new["adam_beta1"] = Take("adam_beta1")?.DeepClone() ?? 0.0;
        _new["lr_warm_up_steps"] = Take("lr_warm_up_steps")?.DeepClone() ?? (version is not null && Version.TryParse(version, out var v) && v < new Version(2, 1, 2) ? 500 : 0);
        var schedule = Text("lr_scheduler_name");
        if (schedule is not null)
        {
            old.Remove("lr_scheduler_name");
            _new["lr_scheduler_name"] = schedule switch
            {
                // Warm-up is what lr_warm_up_steps says, whatever the name.
                "constantwithwarmup" => "constant",
                "cosineannealingwarmup" => "cosineannealing",
                _ => schedule,
            };
        }

        var further = Count("finetuning_tokens", 0);
        var method = Take("finetuning_method");
        old.Remove("finetuning_tokens");
        var tokens = Count("training_tokens", 2_000_000);
        old.Remove("training_tokens");
        if (method is not null && further > 0)
        {
            _new["finetuning_method"] = method.DeepClone();
            _new["finetuning_tokens"] = further;
        }
        else
        {
            // Without a method it was more of the same training; without tokens nothing.
            tokens += further;
            if (method is not null) _idle.Add("finetuning_method");
        }

        _new["training_tokens"] = tokens;
        if (Take("feature_sampling_method") is { } sampling) throw Cannot("feature_sampling_method", sampling, "dead features start anew by resample_every_steps; use null");
    }

    /// <summary>A field that one architecture has; elsewhere a value other than the default is noted.</summary>
    private void Only(string owner, string architecture, string name, JsonNode value, JsonNode usual)
    {
        old.Remove(name);
        if (owner == architecture) _new[name] = value.DeepClone();
        else if (!Same(value, usual)) _idle.Add(name);
    }

    private static bool Same(JsonNode a, JsonNode b) => a is JsonValue x && b is JsonValue y && x.GetValueKind() == System.Text.Json.JsonValueKind.Number
        ? double.Parse(x.ToJsonString(), System.Globalization.CultureInfo.InvariantCulture) == double.Parse(y.ToJsonString(), System.Globalization.CultureInfo.InvariantCulture)
        : JsonNode.DeepEquals(a, b);

    private void Rename(string from, string to)
    {
        if (!old.TryGetPropertyValue(from, out var value)) return;
        old.Remove(from);
        if (!old.ContainsKey(to)) old[to] = value;
    }

    private JsonNode? Take(string name)
    {
        if (!old.TryGetPropertyValue(name, out var value)) return null;
        old.Remove(name);
        return value;
    }

    private bool Flag(string name, bool missing) => Take(name) switch
    {
        null => missing,
        JsonValue v when v.TryGetValue<bool>(out var flag) => flag,
        var v => throw Cannot(name, v, "it is true or false"),
    };

    private string? Text(string name) => old[name] switch
    {
        null => null,
        JsonValue v when v.TryGetValue<string>(out var text) => text,
        var v => throw Cannot(name, v, "it is a text"),
    };

    private long Count(string name, long missing) => old[name] is { } v ? (long)Number(v, name) : missing;

    private double Number(JsonNode value, string name) =>
        value is JsonValue v && v.GetValueKind() == System.Text.Json.JsonValueKind.Number
            ? double.Parse(v.ToJsonString(), System.Globalization.CultureInfo.InvariantCulture)
            : throw Cannot(name, value, "it is a number");

    private InvalidInputException Cannot(string field, JsonNode? value, string why) =>
        new($"{where}: field \"{field}\" cannot be {value?.ToJsonString() ?? "null"}; {why}");
}
