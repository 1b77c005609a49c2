using System.Text.Json.Nodes;
using IlgpuSae.Files;
using IlgpuSae.Hub;

namespace IlgpuSae.Saes.Pretrained;

/// <summary>
/// The published SAEs by release and id, in SAELens' names. <see cref="Default"/> is the directory that comes with this
/// library; anything else on the hub is named by its repository and folder.
/// </summary>
public sealed class PretrainedSaes
{
    private const string DefaultFormat = "saelens";
    private const int Suggestions = 5;
    private readonly SortedDictionary<string, PretrainedRelease> _releases = new(StringComparer.Ordinal);
    private readonly Dictionary<string, PretrainedFormat> _formats = new(StringComparer.Ordinal);
    private readonly Dictionary<string, ReleaseReader> _open = new(StringComparer.Ordinal);

    private PretrainedSaes(JsonObject directory)
    {
        foreach (var (name, files) in (JsonObject)directory["formats"]!)
        {
            _formats.Add(name, new PretrainedFormat(name, Names(files!["files"]), Names(files["optional"]), (bool?)files["is_file"] == true));
        }

        foreach (var (name, release) in (JsonObject)directory["releases"]!)
        {
            var reader = new ReleaseReader(name, (JsonObject)release!, _formats, _releases);
            _releases.Add(name, reader.Read());
            if (_releases[name].OpenIds is not null) _open.Add(name, reader);
        }
    }

    /// <summary>The directory that comes with this library.</summary>
    public static PretrainedSaes Default { get; } = Read();

    /// <summary>Every release, by name.</summary>
    public IReadOnlyCollection<PretrainedRelease> Releases => _releases.Values;

    /// <summary>A release.</summary>
    /// <param name="name">Its name.</param>
    /// <exception cref="InvalidInputException">There is none; the message names near ones.</exception>
    public PretrainedRelease this[string name] => _releases.TryGetValue(name, out var release) ? release
        : throw new InvalidInputException($"release {Say.Quote(name)} is not known; near: {Say.Some(_releases.Keys, name, Suggestions)}; or name a repository of the hub, such as org/name/folder");

    /// <summary>An SAE of a release, or of a repository of the hub.</summary>
    /// <param name="release">A release, or a repository <c>organization/name[@revision]</c>.</param>
    /// <param name="id">Its id; of a repository, the folder.</param>
    /// <exception cref="InvalidInputException">There is no such SAE; the message names near ones, five at most.</exception>
    public PretrainedSae Find(string release, string id)
    {
        ArgumentNullException.ThrowIfNull(release);
        ArgumentNullException.ThrowIfNull(id);
        if (!_releases.ContainsKey(release) && release.Contains('/', StringComparison.Ordinal)) return OfRepository(release, id);
        var found = this[release];
        if (found.Saes.FirstOrDefault(s => s.Id == id) is { } listed) return listed;
        if (_open.TryGetValue(release, out var reader) && reader.Open(id) is { } open) return open;
        var near = found.OpenIds is { } form ? $"ids are {form}, as the repository {found.Repository} has them" : $"near: {Say.Some([.. found.Saes.Select(s => s.Id)], id, Suggestions)}";
        throw new InvalidInputException($"{release}: SAE {Say.Quote(id)} is not known; {near}{CanonicalHint(release, id)}");
    }

    /// <summary>Reads <c>RELEASE/ID</c>, or <c>organization/name[@revision][/folder]</c>.</summary>
    /// <param name="text">The text.</param>
    /// <exception cref="InvalidInputException">There is no such SAE; the message names near ones.</exception>
    public PretrainedSae Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        var parts = text.Split('/', 2);
        if (_releases.ContainsKey(parts[0]))
        {
            return parts.Length == 2 && parts[1].Length > 0 ? Find(parts[0], parts[1]) : throw new InvalidInputException(
                $"{text}: is a release; name one of its SAEs, such as {parts[0]}/{this[parts[0]].OpenIds ?? this[parts[0]].Saes[0].Id}");
        }

        var words = text.Split('/', 3);
        var near = Say.Some(_releases.Keys, parts[0], 3);
        return words.Length == 1 || words[1].Length == 0
            ? throw new InvalidInputException($"{text}: no such folder, and no release of that name; near: {near}; or name a repository of the hub, such as org/name/folder")
            : OfRepository($"{words[0]}/{words[1]}", words.Length == 3 ? words[2] : "");
    }

    private PretrainedSae OfRepository(string repository, string folder)
    {
        var repo = HubRepo.Parse(repository);
        folder = folder.Trim('/');
        if (folder.Length > 0) HubPath.Check(folder, repo.Id, "folder");
        return new PretrainedSae { Release = repo.ToString(), Id = folder, Repository = repo, Path = folder, Format = _formats[DefaultFormat] };
    }

    private string CanonicalHint(string release, string id) =>
        id.EndsWith("canonical", StringComparison.Ordinal) && _releases.ContainsKey(release + "-canonical") ? $"; the canonical ones are those of release {release}-canonical"
        : release.StartsWith("gemma-scope-", StringComparison.Ordinal) && !release.EndsWith("-canonical", StringComparison.Ordinal) && _releases.ContainsKey(release + "-canonical")
            ? $"; without a wish for an L0, take one of {release}-canonical" : "";

    private static List<string> Names(JsonNode? names) => [.. (names as JsonArray ?? []).Select(n => (string)n!)];

    private static PretrainedSaes Read()
    {
        using var stream = typeof(PretrainedSaes).Assembly.GetManifestResourceStream("PretrainedSaes.json")
            ?? throw new IlgpuSaeException("the directory of pretrained SAEs is missing from the assembly");
        return new PretrainedSaes((JsonObject)JsonNode.Parse(stream)!);
    }
}
