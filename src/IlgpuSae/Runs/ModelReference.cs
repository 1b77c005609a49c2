using System.Text.Json;
using IlgpuSae.Files;
using IlgpuSae.Hub;
using IlgpuSae.Models;

namespace IlgpuSae.Runs;

/// <summary>
/// A model as users name it: a folder of the disk, a name as TransformerLens spells it (<c>gpt2-small</c>), or a
/// repository of the hub (<c>EleutherAI/pythia-70m-deduped</c>, <c>@revision</c> allowed). A folder that exists comes first.
/// </summary>
public static class ModelReference
{
    private const string Config = "config.json";
    private const string Weights = "model.safetensors";
    private const string Index = "model.safetensors.index.json";

    /// <summary>Besides tokenizer.json; the others matter only where it is missing.</summary>
    private static readonly string[] Small = ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json"];

    private static readonly string[] OldTokenizers = ["vocab.json", "merges.txt", "tokenizer.model", "added_tokens.json"];

    /// <summary>The repository a text names; null if it names a folder.</summary>
    /// <param name="text">The text.</param>
    /// <exception cref="InvalidInputException">It names neither.</exception>
    public static HubRepo? Repository(string text)
    {
        ArgumentException.ThrowIfNullOrEmpty(text);
        if (Directory.Exists(text) || File.Exists(text) || Path.IsPathRooted(text) || text.StartsWith('.') || text.StartsWith('~') || text.Contains('\\', StringComparison.Ordinal)) return null;
        var at = text.IndexOf('@', StringComparison.Ordinal);
        var (name, revision) = at < 0 ? (text, "main") : (text[..at], text[(at + 1)..]);
        return HubRepo.IsId(ModelNames.Find(name)?.HubId ?? name)
            ? new HubRepo(ModelNames.Find(name)?.HubId ?? name, revision: revision)
            : throw new InvalidFileException(text, "no such folder, and no name of a model; give a folder, a name such as gpt2-small, or a repository such as EleutherAI/pythia-70m-deduped");
    }

    /// <summary>What metadata call the model: the last part of its name.</summary>
    /// <param name="text">The text.</param>
    public static string NameOf(string text) =>
        Directory.Exists(text) ? Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(text))) : text.Split('@')[0].Split('/')[^1];

    /// <summary>The model's folder: fetched if need be, with all that is needed to run it.</summary>
    /// <param name="text">The text.</param>
    /// <param name="hub">Opens the hub, should it be needed; null: as the environment says.</param>
    /// <param name="cancellation">Stops; what has come is kept for the next run.</param>
    /// <exception cref="IlgpuSaeException">It cannot be fetched, or has no weights as safetensors.</exception>
    public static string Fetch(string text, Func<HubClient>? hub = null, CancellationToken cancellation = default)
    {
        if (Repository(text) is not { } repo) return text;
        if (hub is not null) return Fetch(hub(), repo, cancellation);
        using var own = new HubClient();
        return Fetch(own, repo, cancellation);
    }

    private static string Fetch(HubClient hub, HubRepo repo, CancellationToken cancellation)
    {
        var folder = Path.GetDirectoryName(hub.GetFile(repo, Config, cancellation))!;
        if (hub.TryGetFile(repo, "tokenizer.json", cancellation) is null)
            foreach (var name in OldTokenizers) hub.TryGetFile(repo, name, cancellation);
        foreach (var name in Small) hub.TryGetFile(repo, name, cancellation);
        if (hub.TryGetFile(repo, Index, cancellation) is { } index)
        {
            foreach (var shard in Shards(index)) hub.GetFile(repo, shard, cancellation);
        }
        else if (hub.TryGetFile(repo, Weights, cancellation) is null)
        {
            throw new HubException(HubProblem.FileNotFound,
                $"{repo}: has no weights as safetensors ({Weights} or {Index}){(hub.Options.Offline ? " in the cache, and the hub may not be asked (HF_HUB_OFFLINE)" : "; look for a conversion, or convert it and give its folder")}");
        }

        return folder;
    }

    private static IEnumerable<string> Shards(string index)
    {
        var json = JsonConfig.Read(index);
        if (!json.TryGet("weight_map", out var map) || map.ValueKind != JsonValueKind.Object) throw new InvalidFileException(index, "has no object weight_map");
        return map.EnumerateObject().Select(p => p.Value.GetString() ?? throw new InvalidFileException(index, $"weight_map names no file for {Say.Quote(p.Name)}")).Distinct(StringComparer.Ordinal);
    }
}
