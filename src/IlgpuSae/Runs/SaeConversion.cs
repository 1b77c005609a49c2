using System.Text.Json.Nodes;
using IlgpuSae.Files;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;

namespace IlgpuSae.Runs;

/// <summary>What <see cref="SaeConversion"/> did.</summary>
/// <param name="From">Format that was read.</param>
/// <param name="To">Format that was written.</param>
/// <param name="Config">The SAE's settings.</param>
/// <param name="Notes">What the user ought to know.</param>
public sealed record SaeConversionReport(string From, string To, SaeConfig Config, IReadOnlyList<string> Notes);

/// <summary>
/// Reads an SAE of any known format and writes it in another. What was written is read back before it gets its name, and
/// must have the same weights, bit for bit, and the same settings: it encodes and decodes as the input does.
/// </summary>
/// <param name="device">Where the SAE is loaded; <c>cpu</c> will do.</param>
public sealed class SaeConversion(Device device)
{
    /// <summary>Known formats; null: this library's.</summary>
    public SaeFormats? Formats { get; init; }

    /// <summary>What the input's path does not say.</summary>
    public SaeHints Hints { get; init; } = SaeHints.None;

    /// <summary>Whether decoder rows are scaled to norm 1 first: reconstructions stay, features come in units of activations.</summary>
    public bool FoldDecoderNorm { get; init; }

    /// <summary>Converts.</summary>
    /// <param name="input">File or folder.</param>
    /// <param name="output">Folder to write; it must not exist, or be empty.</param>
    /// <param name="format">Format to write.</param>
    /// <param name="inputFormat">Format of the input; null: the one that recognises it.</param>
    /// <exception cref="InvalidInputException">A file cannot be used, or the format cannot express the SAE.</exception>
    public SaeConversionReport Execute(string input, string output, string format, string? inputFormat = null)
    {
        var formats = Formats ?? SaeFormats.Default;
        var writer = formats.Writer(format);
        using var target = AtomicDirectory.Create(output);
        var published = formats.Describe(input, Hints, inputFormat);
        using var sae = SaeFormats.Load(published, device);
        if (FoldDecoderNorm) sae.FoldDecoderNorm();
        writer.Write(target.PartialPath, sae, published.ReadLogSparsity?.Invoke());
        using (var again = formats.Load(target.PartialPath, device, new SaeHints { PublishedAs = NameFor(sae.Config, output) }, format)) RequireSame(sae, again, format);
        target.Commit();
        return new SaeConversionReport(published.Format, format, sae.Config, published.Notes);
    }

    /// <summary>Formats that leave the kind of SAE to the name of its folder are read back under one that says it.</summary>
    private static string NameFor(SaeConfig config, string output) => config.IsTranscoder ? "transcoder/" + Path.GetFileName(output) : Path.GetFileName(output);

    private static void RequireSame(Sae sae, Sae again, string format)
    {
        InvalidInputException Differs(string what) => new($"format {format}: {what} would not survive; the SAE was not written");
        JsonObject before = Semantics(sae.Config), after = Semantics(again.Config);
        foreach (var (name, value) in before)
            if (!JsonNode.DeepEquals(value, after[name])) throw Differs($"{name} ({value?.ToJsonString() ?? "null"}, read back as {after[name]?.ToJsonString() ?? "null"})");
        var state = again.ExportState().ToDictionary(s => s.Name, StringComparer.Ordinal);
        foreach (var s in sae.ExportState())
        {
            if (!state.TryGetValue(s.Name, out var other) || other.Shape != s.Shape || !System.Runtime.InteropServices.MemoryMarshal.AsBytes(other.Values.AsSpan()).SequenceEqual(System.Runtime.InteropServices.MemoryMarshal.AsBytes(s.Values.AsSpan())))
                throw Differs($"{s.Name} (saved as {sae.Config.Dtype})");
        }
    }

    /// <summary>The settings that decide what is computed.</summary>
    private static JsonObject Semantics(SaeConfig config)
    {
        var json = ConfigJson.ToJson(config);
        foreach (var name in new[] { "metadata", "device", "dtype", "reshape_activations" }) json.Remove(name);
        return json;
    }
}
