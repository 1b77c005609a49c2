using System.Text.Json.Nodes;
using IlgpuSae.Hub;

namespace IlgpuSae.Saes.Pretrained;

/// <summary>A published SAE, as SAELens' directory lists it.</summary>
public sealed record PretrainedSae
{
    /// <summary>The release it belongs to.</summary>
    public required string Release { get; init; }

    /// <summary>Its name in the release.</summary>
    public required string Id { get; init; }

    /// <summary>Repository of the hub.</summary>
    public required HubRepo Repository { get; init; }

    /// <summary>Folder or file in the repository; empty: the repository's root.</summary>
    public required string Path { get; init; }

    /// <summary>How its files are to be read.</summary>
    public required PretrainedFormat Format { get; init; }

    /// <summary>The model it was trained on, in TransformerLens' spelling; null: the files say it.</summary>
    public string? Model { get; init; }

    /// <summary>Where in the model; null: the files say it.</summary>
    public string? HookName { get; init; }

    /// <summary>Factor that activations were multiplied by in training and that the weights expect; null: none.</summary>
    public double? NormScalingFactor { get; init; }

    /// <summary>Mean number of active features that the publisher states; null: not stated.</summary>
    public double? L0 { get; init; }

    /// <summary>Explained variance that the publisher states; null: not stated.</summary>
    public double? VarianceExplained { get; init; }

    /// <summary>Its dashboards on Neuronpedia; null: none.</summary>
    public string? NeuronpediaId { get; init; }

    /// <summary>Fields that win over those of the files.</summary>
    public JsonObject Overrides { get; init; } = [];

    /// <summary>Brings its files into the cache.</summary>
    /// <param name="hub">The hub.</param>
    /// <param name="cancellation">Stops; what has come is kept for the next run.</param>
    /// <returns>The folder, or the file where one file is the whole SAE.</returns>
    /// <exception cref="IlgpuSaeException">The hub does not have or give it, or the transfer failed.</exception>
    public string Fetch(HubClient hub, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(hub);
        var first = "";
        foreach (var file in Format.Files)
        {
            var found = hub.GetFile(Repository, PretrainedFormat.Name(file, Path), cancellation);
            if (first.Length == 0) first = found;
        }

        foreach (var file in Format.OptionalFiles) hub.TryGetFile(Repository, PretrainedFormat.Name(file, Path), cancellation);
        if (Format.IsFile) return first;
        // The folder: what is above the first file's part of its name.
        var depth = PretrainedFormat.Name(Format.Files[0], Path).Count(c => c == '/') - (Path.Length == 0 ? -1 : Path.Count(c => c == '/'));
        for (var i = 0; i < depth; i++) first = System.IO.Path.GetDirectoryName(first)!;
        return first;
    }
}

/// <summary>Files that an SAE of a published format is made of.</summary>
/// <param name="Key">The format's name.</param>
/// <param name="Files">Names relative to the SAE's path; a name that begins with + is appended to the path instead.</param>
/// <param name="OptionalFiles">Names of files that may be missing.</param>
/// <param name="IsFile">Whether the path is a file, not a folder.</param>
public sealed record PretrainedFormat(string Key, IReadOnlyList<string> Files, IReadOnlyList<string> OptionalFiles, bool IsFile)
{
    /// <summary>The full name of one of the files.</summary>
    internal static string Name(string file, string path) => file switch
    {
        "" => path,
        ['+', .. var suffix] => (path.EndsWith(".pt", StringComparison.Ordinal) ? path[..^3] : path) + suffix,
        _ => path.Length == 0 ? file : $"{path}/{file}",
    };
}

/// <summary>A set of SAEs that were published together.</summary>
/// <param name="Name">As users name it: <c>gpt2-small-res-jb</c>.</param>
/// <param name="Repository">Repository of the hub.</param>
/// <param name="Model">The model, in TransformerLens' spelling.</param>
/// <param name="Format">How its files are read.</param>
/// <param name="Saes">Its SAEs.</param>
/// <param name="OpenIds">Form of the ids of a release that is not listed one by one: every folder of the repository of that form; null: all are listed.</param>
public sealed record PretrainedRelease(string Name, string Repository, string Model, string Format, IReadOnlyList<PretrainedSae> Saes, string? OpenIds = null);
