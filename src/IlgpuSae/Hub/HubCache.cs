using IlgpuSae.Files;

namespace IlgpuSae.Hub;

/// <summary>
/// The cache folder that Hugging Face's Python library keeps, in its layout: <c>models--org--name/</c> with
/// <c>refs/main</c> (the commit a branch stood at), <c>blobs/ETAG</c> (content), <c>snapshots/COMMIT/path</c>
/// (relative links to blobs, or the files themselves where there are no links), <c>.no_exist/COMMIT/path</c> (files
/// known to be absent), and <c>.locks/</c> beside the repositories. What one program fetched, the other finds.
/// </summary>
public sealed class HubCache
{
    private const long RefBytes = 1 << 10;
    private readonly bool _symlinks;

    internal HubCache(string folder, bool symlinks)
    {
        Folder = folder;
        _symlinks = symlinks;
    }

    /// <summary>The cache's folder.</summary>
    public string Folder { get; }

    /// <summary>A file of the cache.</summary>
    /// <param name="repo">The repository; a branch stands for the commit it was at when last asked about.</param>
    /// <param name="path">The file's name in it.</param>
    /// <returns>Its full path; null if the cache does not have it.</returns>
    /// <exception cref="HubException">The name is refused.</exception>
    public string? Find(HubRepo repo, string path)
    {
        HubPath.Check(path, repo.Id);
        return Commit(repo) is { } commit && Snapshot(repo, commit, path) is var file && File.Exists(file) ? file : null;
    }

    /// <summary>Names of a repository's files that the cache has, at the repository's revision.</summary>
    /// <param name="repo">The repository.</param>
    public IReadOnlyList<string> Files(HubRepo repo)
    {
        if (Commit(repo) is not { } commit || Path.Combine(RepoFolder(repo), "snapshots", commit) is var folder && !Directory.Exists(folder)) return [];
        return [.. Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories)
            .Where(File.Exists)
            .Select(f => Path.GetRelativePath(folder, f).Replace(Path.DirectorySeparatorChar, '/'))
            .Order(StringComparer.Ordinal)];
    }

    /// <summary>The commit a revision stands for, as far as the cache knows; null if it does not.</summary>
    /// <param name="repo">The repository at that revision.</param>
    public string? Commit(HubRepo repo)
    {
        if (HubRepo.IsCommit(repo.Revision)) return repo.Revision;
        var file = Path.Combine(RepoFolder(repo), "refs", Local(repo.Revision));
        if (!File.Exists(file)) return null;
        var text = System.Text.Encoding.ASCII.GetString(ReadFailure.ReadAll(file, RefBytes)).Trim();
        return HubRepo.IsCommit(text) ? text : null;
    }

    /// <summary>Everything in the cache.</summary>
    public IReadOnlyList<CachedRepo> Repositories() => !Directory.Exists(Folder) ? [] :
    [
        .. Directory.EnumerateDirectories(Folder)
            .Select(CachedRepo.Read)
            .OfType<CachedRepo>()
            .OrderBy(r => r.Kind)
            .ThenBy(r => r.Id, StringComparer.Ordinal),
    ];

    /// <summary>Removes a repository with all its revisions.</summary>
    /// <param name="repo">The repository.</param>
    /// <returns>Whether it was there.</returns>
    /// <exception cref="IlgpuSaeException">The files cannot be removed.</exception>
    public bool Remove(HubRepo repo)
    {
        if (!Directory.Exists(RepoFolder(repo))) return false;
        Writing(RepoFolder(repo), () => Directory.Delete(RepoFolder(repo), recursive: true));
        return true;
    }

    /// <summary>Whether the cache knows that a commit has no such file.</summary>
    internal bool KnowsAbsent(HubRepo repo, string commit, string path) => File.Exists(Path.Combine(RepoFolder(repo), ".no_exist", commit, Local(path)));

    /// <summary>Notes that a commit has no such file.</summary>
    internal void NoteAbsent(HubRepo repo, string commit, string path)
    {
        var marker = Path.Combine(RepoFolder(repo), ".no_exist", commit, Local(path));
        if (File.Exists(marker)) return;
        Writing(marker, () =>
        {
            Directory.CreateDirectory(Path.GetDirectoryName(marker)!);
            File.Create(marker).Dispose();
        });
    }

    /// <summary>Notes the commit that a branch or tag stands at.</summary>
    internal void NoteCommit(HubRepo repo, string commit)
    {
        if (HubRepo.IsCommit(repo.Revision) || Commit(repo) == commit) return;
        AtomicFile.WriteText(Path.Combine(RepoFolder(repo), "refs", Local(repo.Revision)), commit);
    }

    internal string RepoFolder(HubRepo repo) => Path.Combine(Folder, repo.FolderName);

    internal string Blob(HubRepo repo, string etag) => Path.Combine(RepoFolder(repo), "blobs", etag);

    internal string LockFile(HubRepo repo, string etag) => Path.Combine(Folder, ".locks", repo.FolderName, etag + ".lock");

    internal string Snapshot(HubRepo repo, string commit, string path) => Path.Combine(RepoFolder(repo), "snapshots", commit, Local(path));

    /// <summary>Makes a blob visible under its name in a snapshot. The caller holds the blob's lock.</summary>
    /// <param name="blob">The content.</param>
    /// <param name="file">The name.</param>
    /// <param name="isNew">Whether no other snapshot can name the blob: without links it is then moved, not copied.</param>
    internal void Link(string blob, string file, bool isNew) => Writing(file, () =>
    {
        var folder = Path.GetDirectoryName(file)!;
        Directory.CreateDirectory(folder);
        var partial = AtomicFile.PartialName(file);
        if (_symlinks && TrySymlink(partial, Path.GetRelativePath(folder, blob)))
        {
            // A link is never seen half made, and one that leads nowhere is replaced.
            File.Move(partial, file, overwrite: true);
        }
        else if (isNew)
        {
            File.Move(blob, file, overwrite: true);
        }
        else
        {
            try
            {
                File.Copy(blob, partial);
                File.Move(partial, file, overwrite: true);
            }
            finally
            {
                File.Delete(partial);
            }
        }
    });

    /// <summary>Does something to the cache's files; failures of the file system become one line.</summary>
    internal static void Writing(string path, Action work)
    {
        try
        {
            work();
        }
        catch (Exception e) when (AtomicFile.Explain(path, e, 0) is { } explained)
        {
            throw explained;
        }
    }

    private static bool TrySymlink(string link, string target)
    {
        try
        {
            File.CreateSymbolicLink(link, target);
            return true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException && (OperatingSystem.IsWindows() || IsUnsupported(e)))
        {
            // Windows without developer mode, or a file system without links.
            return false;
        }
    }

    /// <summary>EPERM and ENOTSUP: the file system has no links, which is no failure; anything else is.</summary>
    private static bool IsUnsupported(Exception e) => e.HResult is 1 or 95 or 45 || e is UnauthorizedAccessException;

    private static string Local(string path) => path.Replace('/', Path.DirectorySeparatorChar);
}
