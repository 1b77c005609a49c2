using IlgpuSae.Files;

namespace IlgpuSae.Saes.Formats;

/// <summary>
/// Llama Scope: <c>hyperparams.json</c> and <c>checkpoints/final.safetensors</c>. Matrices are transposes; activations are
/// multiplied by s = sqrt(d_model) / dataset_average_activation_norm.in, which is folded into the weights, and one
/// threshold holds for all features. Thresholds are compared with pre-activations, which the fold does not change.
/// </summary>
/// <remarks>
/// SAELens 6.18 multiplies the threshold by s, which is wrong and was mended there in 6.37.1. He et al. 2024, arXiv:2410.20526.
/// </remarks>
[SaeFormat("llama_scope", "Llama Scope: hyperparams.json, checkpoints/final.safetensors")]
public sealed class LlamaScope : SaeFormat
{
    private const string ConfigFile = "hyperparams.json";

    private static string Weights(string path) => Path.Combine(path, "checkpoints", "final.safetensors");

    /// <inheritdoc/>
    public override bool Recognises(string path) => File.Exists(Path.Combine(path, ConfigFile)) && File.Exists(Weights(path));

    /// <inheritdoc/>
    public override PublishedSae Read(string path, SaeHints hints)
    {
        var cfg = JsonConfig.Read(Path.Combine(path, ConfigFile));
        var act = cfg.GetStringOrNull("act_fn") ?? "jumprelu";
        var published = LlamaScopeWeights.Read(path, Weights(path), cfg, act, hints, "meta-llama/Llama-3.1-8B",
            act == "jumprelu" ? cfg.GetDouble("jump_relu_threshold") : null);
        return cfg.GetStringOrNull("hook_point_out") is { } hookOut && hookOut != cfg.GetString("hook_point_in")
            ? throw cfg.Wrong("hook_point_out", $"is \"{hookOut}\", another hook than hook_point_in: transcoders of Llama Scope are not known here")
            : published;
    }
}

/// <summary>
/// Llama Scope for the R1 distillation: <c>config.json</c> and <c>sae_weights.safetensors</c>. As <see cref="LlamaScope"/>, with a
/// threshold for each feature, saved as its logarithm.
/// </summary>
[SaeFormat("llama_scope_r1", "Llama Scope for DeepSeek-R1's distillation: config.json, sae_weights.safetensors")]
public sealed class LlamaScopeR1 : SaeFormat
{
    private const string ConfigFile = "config.json";

    /// <inheritdoc/>
    public override bool Recognises(string path) => File.Exists(Path.Combine(path, ConfigFile)) && File.Exists(Path.Combine(path, SaeLensFolder.WeightsFile))
        && !File.Exists(Path.Combine(path, SaeLensFolder.ConfigFile));

    /// <inheritdoc/>
    public override PublishedSae Read(string path, SaeHints hints)
    {
        var cfg = JsonConfig.Read(Path.Combine(path, ConfigFile));
        return LlamaScopeWeights.Read(path, Path.Combine(path, SaeLensFolder.WeightsFile), cfg, cfg.GetStringOrNull("act_fn") ?? "jumprelu", hints,
            cfg.GetStringOrNull("model_name") ?? "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", null);
    }
}

/// <summary>What the two share.</summary>
internal static class LlamaScopeWeights
{
    internal static PublishedSae Read(string path, string file, JsonConfig cfg, string act, SaeHints hints, string model, double? threshold)
    {
        using var weights = WeightFile.Open(file);
        var (dSae, dIn) = weights.Matrix("encoder.weight");
        if (cfg.GetInt("d_model") != dIn) throw cfg.Wrong("d_model", $"is {cfg.GetInt("d_model")}, but tensor encoder.weight has {dIn}");
        var stated = cfg.Has("d_sae") ? cfg.GetInt("d_sae") : checked(dIn * (cfg.Has("expansion_factor") ? (int)cfg.GetDouble("expansion_factor") : dSae / dIn));
        if (stated != dSae) throw cfg.Wrong(cfg.Has("d_sae") ? "d_sae" : "expansion_factor", $"makes {stated} features, but tensor encoder.weight has {dSae}");
        var architecture = act switch
        {
            "jumprelu" => "jumprelu",
            "topk" => "topk",
            "relu" => "standard",
            _ => throw cfg.Wrong("act_fn", $"is \"{act}\"; known: jumprelu, topk, relu"),
        };
        var norms = cfg.GetObjectOrNull("dataset_average_activation_norm");
        double? scale = hints.NormScalingFactor ?? (norms is not null && norms.Has("in") ? Math.Sqrt(dIn) / norms.GetDouble("in") : null);
        if (scale is { } s && !(s > 0 && double.IsFinite(s))) throw cfg.Wrong("dataset_average_activation_norm", $"gives the activation scale {s}, which is no positive number");
        var config = PublishedConfig.Of(architecture, dIn, dSae, weights.DtypeOf("encoder.weight"), cfg.GetBool("apply_decoder_bias_to_pre_encoder", false),
            ("model_name", model), ("hook_name", cfg.GetString("hook_point_in")), ("context_size", 1024), ("prepend_bos", true), ("dataset_path", "cerebras/SlimPajama-627B"));
        if (cfg.GetStringOrNull("norm_activation") is { } norm and not ("dataset-wise" or "none")) throw cfg.Wrong("norm_activation", $"is \"{norm}\"; known: dataset-wise, none");
        var scaled = cfg.GetStringOrNull("norm_activation") != "none";
        if (scaled) config["normalize_activations"] = "expected_average_only_in";
        if (architecture == "topk") config["k"] = cfg.GetInt("top_k");
        if (architecture == "topk") config["rescale_acts_by_decoder_norm"] = false;
        var byNorm = cfg.GetBool("sparsity_include_decoder_norm", false);
        return new PublishedSae
        {
            Path = path,
            Config = config,
            ReadState = () => State(file, architecture, threshold, byNorm),
            ActivationScale = scaled ? scale : null,
            PublishedL0 = architecture == "topk" ? cfg.GetInt("top_k") : null,
            Notes = scaled && scale is null
                ? ["expects activations multiplied by sqrt(d_model) / (their mean norm), which the settings do not state; give norm_scaling_factor"]
                : [],
        };
    }

    private static List<NamedValues> State(string file, string architecture, double? threshold, bool byNorm)
    {
        using var weights = WeightFile.Open(file);
        var decoder = weights.Read("decoder.weight", "W_dec", transposed: true);
        var bias = weights.Read("encoder.bias", "b_enc");
        List<NamedValues> state = [weights.Read("decoder.bias", "b_dec"), bias, decoder, weights.Read("encoder.weight", "W_enc", transposed: true)];
        if (architecture != "jumprelu") return state;
        var values = threshold is null ? Array.ConvertAll(weights.Floats("log_jumprelu_threshold"), MathF.Exp) : new float[bias.Values.Length];
        if (threshold is { } one) values.AsSpan().Fill((float)one);
        // The threshold is then compared with the pre-activation times the norm of its decoder row.
        if (byNorm) DivideByNorms(values, decoder);
        state.Add(new NamedValues("threshold", [values.Length], values));
        return state;
    }

    private static void DivideByNorms(float[] values, NamedValues decoder)
    {
        var width = decoder.Shape[1];
        for (var j = 0; j < values.Length; j++)
        {
            double squares = 0;
            foreach (var v in decoder.Values.AsSpan(j * width, width)) squares += (double)v * v;
            // Rounded unit norms leave the threshold as it is stated.
            if (Math.Abs(squares - 1) > 1e-2) values[j] = (float)(values[j] / Math.Max(Math.Sqrt(squares), 1e-8));
        }
    }
}
