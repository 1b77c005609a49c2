using System.Text.Json.Nodes;

namespace IlgpuSae.Saes.Formats;

/// <summary>
/// SAELens' folder, versions 1 to 6 (<see cref="SaeLensFolder"/>): tensors as they are. A scale that activations were
/// multiplied by in training and that is not folded in is folded if the hints state it.
/// </summary>
[SaeFormat("saelens", "SAELens' folder: cfg.json, sae_weights.safetensors")]
public sealed class SaeLens : SaeFormat
{
    /// <inheritdoc/>
    public override bool Recognises(string path) =>
        File.Exists(Path.Combine(path, SaeLensFolder.ConfigFile)) && File.Exists(Path.Combine(path, SaeLensFolder.WeightsFile));

    /// <inheritdoc/>
    public override PublishedSae Read(string path, SaeHints hints)
    {
        var config = SaeLensFolder.ReadMigrated(path);
        var scaled = config["normalize_activations"]?.ToString() == "expected_average_only_in";
        return new PublishedSae
        {
            Path = Path.Combine(path, SaeLensFolder.ConfigFile),
            Config = config,
            ReadState = () => SaeLensFolder.ReadState(path),
            ReadLogSparsity = () => SaeLensFolder.ReadSparsity(path),
            ActivationScale = scaled ? hints.NormScalingFactor : null,
            PublishedL0 = Stated(config),
            Notes = scaled && hints.NormScalingFactor is null
                ? ["normalize_activations is expected_average_only_in: the SAE expects activations multiplied by sqrt(d_in) / (their mean norm), and no such factor is known"]
                : [],
        };
    }

    /// <inheritdoc/>
    public override bool Writes => true;

    /// <inheritdoc/>
    public override void Write(string folder, Sae sae, float[]? logSparsity) => SaeLensFolder.WriteInto(folder, sae, logSparsity);

    private static double? Stated(JsonObject config)
    {
        if (config["k"] is JsonValue k && k.TryGetValue<double>(out var number)) return number;
        var metadata = config["metadata"] as JsonObject;
        return (metadata?["l0"] ?? metadata?["final_l0"]) is JsonValue l0 && l0.TryGetValue<double>(out var stated) && stated > 0 ? stated : null;
    }
}
