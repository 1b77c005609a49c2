using System.Text.Json.Nodes;
using IlgpuSae.Files;

namespace IlgpuSae.Saes.Formats;

/// <summary>
/// SAELens before 1.0: one pickle, <c>.pt</c> or <c>.pkl.gz</c>, of <c>cfg</c> (an object or a dictionary) and
/// <c>state_dict</c>. Settings are migrated as those of later versions; tensors are as they are.
/// </summary>
[SaeFormat("saelens_pickle", "SAELens before 1.0: one pickle (.pt, .pkl, .pkl.gz) with cfg and state_dict")]
public sealed class SaeLensPickle : SaeFormat
{
    private const string Prefix = "state_dict.";

    /// <inheritdoc/>
    public override bool Recognises(string path) =>
        PickleNames.IsPickle(path) && PickleNames.Of(path) is { } names && names.Contains(Prefix + "W_enc") && names.Contains(Prefix + "W_dec");

    /// <inheritdoc/>
    public override PublishedSae Read(string path, SaeHints hints)
    {
        using var file = PyTorchFile.Open(path);
        if (file.Values["cfg"] is not JsonObject cfg) throw new InvalidFileException(path, "has no settings: \"cfg\" is missing");
        var config = SaeLensMigration.Migrate(cfg, path);
        using var weights = WeightFile.Of(file, Prefix);
        var (dIn, dSae) = weights.Matrix("W_enc");
        // Early settings name the width as a multiple.
        (config["d_in"], config["d_sae"]) = (dIn, dSae);
        return new PublishedSae
        {
            Path = path,
            Config = config,
            ReadState = () =>
            {
                using var again = WeightFile.Open(path, Prefix);
                return SaeLensMigration.Migrate([.. again.Names.Select(n => again.Read(n, n))], path, cfg["finetuning_scaling_factor"] is JsonValue v && v.TryGetValue<bool>(out var on) && on);
            },
        };
    }
}

/// <summary>What is in a pickle, for telling formats apart.</summary>
internal static class PickleNames
{
    private static readonly string[] Endings = [".pt", ".pth", ".pkl", ".pkl.gz", ".bin"];

    /// <summary>Whether a path is a file that may be a pickle.</summary>
    /// <param name="path">A file or folder.</param>
    public static bool IsPickle(string path) => Array.Exists(Endings, e => path.EndsWith(e, StringComparison.Ordinal)) && File.Exists(path);

    /// <summary>Names of the tensors. A file that must not be read says so here, whatever format it is of.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="InvalidFileException">It is damaged or would run code.</exception>
    public static IReadOnlyList<string> Of(string path)
    {
        using var file = PyTorchFile.Open(path);
        return [.. file.Tensors.Select(t => t.Name)];
    }
}
