namespace IlgpuSae.Hub;

/// <summary>A repository in the cache.</summary>
/// <param name="Id"><c>organization/name</c>.</param>
/// <param name="Kind">What it holds.</param>
/// <param name="Bytes">Bytes on disk, every content counted once.</param>
/// <param name="Files">Number of contents.</param>
/// <param name="UnfinishedBytes">Bytes of downloads that have not come to their end.</param>
/// <param name="Revisions">Commits with files, and the branches and tags that stand at them.</param>
/// <param name="LastChanged">When a content was last added, UTC.</param>
public sealed record CachedRepo(
    string Id, HubRepoKind Kind, long Bytes, int Files, long UnfinishedBytes, IReadOnlyList<(string Commit, IReadOnlyList<string> Names)> Revisions, DateTime LastChanged)
{
    internal const string Unfinished = ".incomplete";

    /// <summary>Reads a folder of the cache; null if it is none of a repository.</summary>
    internal static CachedRepo? Read(string folder)
    {
        var parts = Path.GetFileName(folder).Split("--");
        HubRepoKind? kind = parts[0] switch { "models" => HubRepoKind.Model, "datasets" => HubRepoKind.Dataset, "spaces" => HubRepoKind.Space, _ => null };
        if (kind is null || parts.Length is < 2 or > 3) return null;
        long bytes = 0, unfinished = 0;
        var files = 0;
        var changed = Directory.GetLastWriteTimeUtc(folder);
        foreach (var file in Contents(folder))
        {
            if (file.Name.EndsWith(Unfinished, StringComparison.Ordinal))
            {
                unfinished += file.Length;
                continue;
            }

            bytes += file.Length;
            files++;
            if (file.LastWriteTimeUtc > changed) changed = file.LastWriteTimeUtc;
        }

        return new CachedRepo(string.Join('/', parts[1..]), kind.Value, bytes, files, unfinished, ReadRevisions(folder), changed);
    }

    /// <summary>Blobs, and files of snapshots that are no links.</summary>
    internal static IEnumerable<FileInfo> Contents(string folder)
    {
        var blobs = Path.Combine(folder, "blobs");
        var snapshots = Path.Combine(folder, "snapshots");
        return (Directory.Exists(blobs) ? Directory.EnumerateFiles(blobs) : [])
            .Concat(Directory.Exists(snapshots) ? Directory.EnumerateFiles(snapshots, "*", SearchOption.AllDirectories) : [])
            .Select(f => new FileInfo(f))
            .Where(f => f.LinkTarget is null);
    }

    private static List<(string Commit, IReadOnlyList<string> Names)> ReadRevisions(string folder)
    {
        var refs = Path.Combine(folder, "refs");
        var names = !Directory.Exists(refs) ? [] : Directory.EnumerateFiles(refs, "*", SearchOption.AllDirectories)
            .ToLookup(f => File.ReadAllText(f).Trim(), f => Path.GetRelativePath(refs, f).Replace(Path.DirectorySeparatorChar, '/')).ToDictionary(g => g.Key, g => g.Order(StringComparer.Ordinal).ToList());
        var snapshots = Path.Combine(folder, "snapshots");
        var commits = Directory.Exists(snapshots) ? Directory.EnumerateDirectories(snapshots).Select(d => Path.GetFileName(d)) : [];
        return [.. commits.Order(StringComparer.Ordinal).Select(c => (c, (IReadOnlyList<string>)names.GetValueOrDefault(c, [])))];
    }
}
