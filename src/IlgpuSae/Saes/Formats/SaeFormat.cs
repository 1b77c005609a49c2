using System.Text.Json.Nodes;

namespace IlgpuSae.Saes.Formats;

/// <summary>
/// A published format of SAEs: recognises a file or folder, and reads it into SAELens' settings and tensors. One class a
/// format, found by its <see cref="SaeFormatAttribute"/>; it has a public constructor without parameters.
/// </summary>
public abstract class SaeFormat
{
    /// <summary>Whether a path holds this format, judged by names and headers; never throws for what is something else.</summary>
    /// <param name="path">A file or folder.</param>
    public abstract bool Recognises(string path);

    /// <summary>Reads settings, and says where the weights are and what is to be done with them.</summary>
    /// <param name="path">A file or folder that is recognised.</param>
    /// <param name="hints">What the path does not say.</param>
    /// <exception cref="InvalidInputException">A file is damaged, or holds a setting that is not known.</exception>
    public abstract PublishedSae Read(string path, SaeHints hints);

    /// <summary>Whether SAEs can be written in this format.</summary>
    public virtual bool Writes => false;

    /// <summary>Writes an SAE into an empty folder.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="sae">The SAE.</param>
    /// <param name="logSparsity">log10 of how often features fire, [d_sae], for formats that hold it; null: not known.</param>
    /// <exception cref="InvalidInputException">The format cannot express this SAE; the message says what.</exception>
    public virtual void Write(string folder, Sae sae, float[]? logSparsity) => throw new NotSupportedException();

    /// <summary>An SAE that a format has no words for.</summary>
    /// <param name="format">Name of the format.</param>
    /// <param name="problem">What it cannot express, and what to do.</param>
    protected static InvalidInputException Inexpressible(string format, string problem) => new($"format {format} cannot express this SAE: {problem}");

    /// <summary>The tensors by name, as files hold them.</summary>
    /// <param name="sae">The SAE.</param>
    protected static Dictionary<string, NamedValues> StateOf(Sae sae) => sae.ExportState().ToDictionary(s => s.Name, StringComparer.Ordinal);

    /// <summary>Refuses what only SAELens' format can say: normalisation of the input, heads to merge aside.</summary>
    /// <param name="format">Name of the format.</param>
    /// <param name="sae">The SAE.</param>
    protected static void RequirePlain(string format, Sae sae)
    {
        if (sae.Config.NormalizeActivations != NormalizeActivations.None)
            throw Inexpressible(format, $"normalize_activations is {ConfigJson.Name(sae.Config.NormalizeActivations)}; write it as saelens");
    }
}

/// <summary>Registers a <see cref="SaeFormat"/>.</summary>
/// <param name="name">Its name in options.</param>
/// <param name="description">What it is, in a few words.</param>
[AttributeUsage(AttributeTargets.Class, Inherited = false)]
public sealed class SaeFormatAttribute(string name, string description) : Attribute
{
    /// <summary>Its name in options.</summary>
    public string Name { get; } = name;

    /// <summary>What it is, in a few words.</summary>
    public string Description { get; } = description;
}

/// <summary>What is known about an SAE beside its files: some formats leave model, layer or scale to the name of their repository.</summary>
public sealed record SaeHints
{
    /// <summary>Nothing more is known.</summary>
    public static SaeHints None { get; } = new();

    /// <summary>Repository and folder it was published under, such as <c>google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71</c>; null: the path says it.</summary>
    public string? PublishedAs { get; init; }

    /// <summary>Factor on activations that the release states (SAELens' <c>norm_scaling_factor</c>); folded into the weights where the SAE asks for one.</summary>
    public double? NormScalingFactor { get; init; }

    /// <summary>Fields that win over those of the files: settings of the SAE, everything else goes into its metadata.</summary>
    public JsonObject Overrides { get; init; } = [];

    /// <summary>The text that names are searched in: as published, or the last folders of the path.</summary>
    /// <param name="path">The file or folder.</param>
    internal string NameOf(string path)
    {
        if (PublishedAs is { } name) return name;
        const int deep = 5;
        var parts = Path.TrimEndingDirectorySeparator(Path.GetFullPath(path)).Split(Path.DirectorySeparatorChar, StringSplitOptions.RemoveEmptyEntries);
        return string.Join('/', parts.TakeLast(deep));
    }
}

/// <summary>An SAE of a published format in SAELens' terms, not yet loaded.</summary>
public sealed record PublishedSae
{
    /// <summary>Name of the format.</summary>
    public string Format { get; init; } = "";

    /// <summary>File or folder, for messages.</summary>
    public required string Path { get; init; }

    /// <summary>Settings as SAELens 6 writes them, <c>architecture</c> and <c>metadata</c> included.</summary>
    public required JsonObject Config { get; init; }

    /// <summary>Reads the tensors, under SAELens' names and in its shapes.</summary>
    public required Func<IReadOnlyList<NamedValues>> ReadState { get; init; }

    /// <summary>log10 of how often features fire, [d_sae]; null: not known.</summary>
    public Func<float[]?>? ReadLogSparsity { get; init; }

    /// <summary>Factor on activations that is to be folded into the weights; null: none.</summary>
    public double? ActivationScale { get; init; }

    /// <summary>Whether features are meant in units of decoder rows of norm 1, so that other norms are to be folded.</summary>
    public bool UnitDecoder { get; init; }

    /// <summary>Mean number of active features that the publisher states; null: not stated.</summary>
    public double? PublishedL0 { get; init; }

    /// <summary>What the user ought to know.</summary>
    public IReadOnlyList<string> Notes { get; init; } = [];
}
