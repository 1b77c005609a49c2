using System.Globalization;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace IlgpuSae.Saes.Formats;

/// <summary>Settings in SAELens' form, made from what other formats say.</summary>
internal static partial class PublishedConfig
{
    /// <summary>The fields every architecture has.</summary>
    /// <param name="architecture">SAELens' name.</param>
    /// <param name="dIn">Width of the input.</param>
    /// <param name="dSae">Features.</param>
    /// <param name="dtype">Element type of the weights.</param>
    /// <param name="subtractBDec">Whether b_dec is subtracted from the input.</param>
    /// <param name="metadata">Where the SAE comes from; null values are left out.</param>
    public static JsonObject Of(string architecture, int dIn, int dSae, string dtype, bool subtractBDec, params ReadOnlySpan<(string Name, JsonNode? Value)> metadata)
    {
        var notes = new SaeMetadata().ToJson();
        foreach (var (name, value) in metadata)
            if (value is not null) notes[name] = value.DeepClone();
        var hook = notes["hook_name"]?.ToString() ?? "";
        return new JsonObject
        {
            ["d_in"] = dIn,
            ["d_sae"] = dSae,
            ["dtype"] = dtype,
            ["device"] = "cpu",
            ["apply_b_dec_to_input"] = subtractBDec,
            ["normalize_activations"] = "none",
            ["reshape_activations"] = hook.EndsWith("hook_z", StringComparison.Ordinal) ? "hook_z" : "none",
            ["metadata"] = notes,
            ["architecture"] = architecture,
        };
    }

    /// <summary>The number behind <c>layer_</c>; null if a name has none.</summary>
    /// <param name="name">Folders and file.</param>
    public static int? LayerOf(string name) => Number(Layer().Match(name));

    /// <summary>The number behind <c>l0_</c> or <c>average_l0_</c>; null if a name has none.</summary>
    /// <param name="name">Folders and file.</param>
    public static double? AverageL0Of(string name) => Number(AverageL0().Match(name));

    /// <summary>A number of a match's first group.</summary>
    /// <param name="match">The match.</param>
    public static int? Number(Match match) =>
        match.Success && int.TryParse(match.Groups[1].ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture, out var n) ? n : null;

    /// <summary>A hook of a block.</summary>
    /// <param name="layer">The block; null: not known.</param>
    /// <param name="hook">Its name within the block.</param>
    /// <returns>Null if the block is not known.</returns>
    public static string? Block(int? layer, string hook) => layer is { } l ? string.Create(CultureInfo.InvariantCulture, $"blocks.{l}.{hook}") : null;

    [GeneratedRegex(@"layer_(\d+)", RegexOptions.CultureInvariant | RegexOptions.RightToLeft)]
    private static partial Regex Layer();

    [GeneratedRegex(@"average_l0_(\d+)", RegexOptions.CultureInvariant | RegexOptions.RightToLeft)]
    private static partial Regex AverageL0();
}
