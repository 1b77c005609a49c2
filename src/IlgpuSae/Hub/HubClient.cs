using System.Globalization;
using System.Text.Json.Nodes;

namespace IlgpuSae.Hub;

/// <summary>
/// The Hugging Face hub: files from it by way of the cache that Python's library keeps too, and folders to it. Nothing
/// is asked of the network when the cache suffices; a branch stands for the commit it was at when it was first asked
/// about, until <see cref="Refresh"/>, so that the files of one repository fit each other.
/// </summary>
public sealed class HubClient : IDisposable
{
    private readonly HubHttp _http;
    private readonly HubDownload _download;

    /// <summary>Opens a hub.</summary>
    /// <param name="options">Which, with what token, into which cache; null: as the environment says.</param>
    /// <exception cref="InvalidInputException">A variable of the environment cannot be used.</exception>
    public HubClient(HubOptions? options = null)
        : this(options ?? HubOptions.FromEnvironment(), null)
    {
    }

    internal HubClient(HubOptions options, Func<string, Stream>? openUnfinished)
    {
        Options = options;
        Cache = new HubCache(options.CacheFolder, options.Symlinks);
        _http = new HubHttp(options);
        _download = openUnfinished is null ? new HubDownload(_http, options) : new HubDownload(_http, options) { OpenUnfinished = openUnfinished };
    }

    /// <summary>Which hub it is.</summary>
    public HubOptions Options { get; }

    /// <summary>The cache.</summary>
    public HubCache Cache { get; }

    /// <summary>A file of a repository: from the cache, else fetched into it.</summary>
    /// <param name="repo">The repository.</param>
    /// <param name="path">The file's name in it, with / between folders.</param>
    /// <param name="cancellation">Stops; what has come is kept for the next run.</param>
    /// <returns>The file's path in the cache. It must not be changed.</returns>
    /// <exception cref="HubException">The repository does not have it or does not give it.</exception>
    /// <exception cref="HubTransferException">The network, the server or the content failed.</exception>
    public string GetFile(HubRepo repo, string path, CancellationToken cancellation = default) =>
        Get(repo, path, cancellation, out var absence) ?? throw absence!;

    /// <summary>A file of a repository that may lack it; the cache remembers that too.</summary>
    /// <param name="repo">The repository.</param>
    /// <param name="path">The file's name in it, with / between folders.</param>
    /// <param name="cancellation">Stops; what has come is kept for the next run.</param>
    /// <returns>The file's path in the cache; null if the repository has no such file, or, offline, the cache.</returns>
    /// <exception cref="HubException">The repository does not exist or does not give it.</exception>
    /// <exception cref="HubTransferException">The network, the server or the content failed.</exception>
    public string? TryGetFile(HubRepo repo, string path, CancellationToken cancellation = default) => Get(repo, path, cancellation, out _);

    /// <summary>Fetches the files of a repository whose names match.</summary>
    /// <param name="repo">The repository.</param>
    /// <param name="patterns">Names, * for anything (/ included); none: every file.</param>
    /// <param name="cancellation">Stops; what has come is kept for the next run.</param>
    /// <returns>The snapshot's folder in the cache, and the names of the files that matched.</returns>
    /// <exception cref="HubException">The repository does not have or does not give them.</exception>
    /// <exception cref="HubTransferException">The network, the server or the content failed.</exception>
    public (string Folder, IReadOnlyList<string> Files) GetFiles(HubRepo repo, IReadOnlyCollection<string> patterns, CancellationToken cancellation = default)
    {
        IReadOnlyList<string> names = [.. (Options.Offline ? Cache.Files(repo) : ListFiles(repo, "", cancellation).Select(f => f.Path)).Where(f => HubPath.Matches(f, patterns))];
        if (names.Count == 0)
        {
            throw new HubException(Options.Offline ? HubProblem.NotCached : HubProblem.FileNotFound,
                $"{repo}: no file is named like {(patterns.Count == 0 ? "*" : string.Join(" or ", patterns))}{(Options.Offline ? " in the cache, and the hub may not be asked (HF_HUB_OFFLINE)" : "")}");
        }

        var commit = Cache.Commit(repo)!;
        foreach (var name in names) GetFile(repo.At(commit), name, cancellation);
        return (Path.Combine(Cache.RepoFolder(repo), "snapshots", commit), names);
    }

    /// <summary>The files of a repository. Asks the hub.</summary>
    /// <param name="repo">The repository.</param>
    /// <param name="folder">Only those below this folder.</param>
    /// <param name="cancellation">Ends the wait.</param>
    /// <exception cref="HubException">The repository or the folder does not exist, or the hub may not be asked.</exception>
    /// <exception cref="HubTransferException">The network or the server failed.</exception>
    public IReadOnlyList<HubFile> ListFiles(HubRepo repo, string folder = "", CancellationToken cancellation = default)
    {
        if (folder.Length > 0) HubPath.Check(folder, repo.Id, "folder");
        RequireNetwork(repo, "the list of files");
        var commit = Cache.Commit(repo) ?? Refresh(repo, cancellation);
        var files = new List<HubFile>();
        Uri? page = _http.ApiAddress($"{repo.Plural}/{repo.Id}/tree/{commit}{(folder.Length > 0 ? "/" + HubPath.Escape(folder) : "")}?recursive=true");
        while (page is not null)
        {
            (var value, page) = _http.GetJson(page, repo, folder.Length > 0 ? folder : "the list of files", cancellation);
            foreach (var entry in value as JsonArray ?? throw Unexpected(repo, "the list of files"))
            {
                if ((string?)entry?["type"] != "file" || (string?)entry["path"] is not { } path) continue;
                HubPath.Check(path, repo.Id);
                var large = entry["lfs"];
                files.Add(new HubFile(path, (long?)(large?["size"] ?? entry["size"]) ?? 0, (string?)(large?["oid"] ?? entry["oid"]) ?? "", large is not null));
            }
        }

        return files;
    }

    /// <summary>Asks the hub which commit a branch or tag stands at now; the cache follows.</summary>
    /// <param name="repo">The repository at that branch or tag.</param>
    /// <param name="cancellation">Ends the wait.</param>
    /// <returns>The commit.</returns>
    /// <exception cref="HubException">There is no such repository or revision, or the hub may not be asked.</exception>
    /// <exception cref="HubTransferException">The network or the server failed.</exception>
    public string Refresh(HubRepo repo, CancellationToken cancellation = default)
    {
        RequireNetwork(repo, "the newest commit");
        var (value, _) = _http.GetJson(_http.ApiAddress($"{repo.Plural}/{repo.Id}/revision/{Uri.EscapeDataString(repo.Revision)}"), repo, "the newest commit", cancellation);
        if ((string?)(value as JsonObject)?["sha"] is not { } commit || !HubRepo.IsCommit(commit)) throw Unexpected(repo, "the newest commit");
        Cache.NoteCommit(repo, commit);
        return commit;
    }

    /// <summary>The account of the token; null if there is no token.</summary>
    /// <param name="cancellation">Ends the wait.</param>
    /// <exception cref="HubException">The hub does not know the token, or may not be asked.</exception>
    /// <exception cref="HubTransferException">The network or the server failed.</exception>
    public HubAccount? WhoAmI(CancellationToken cancellation = default)
    {
        if (Options.Token is null) return null;
        if (Options.Offline) throw new HubException(HubProblem.NotCached, "the account of a token is known to the hub alone, which may not be asked (HF_HUB_OFFLINE)");
        var (value, _) = _http.GetJson(_http.ApiAddress("whoami-v2"), null, "the account of the token", cancellation);
        var token = value["auth"]?["accessToken"];
        return new HubAccount((string?)value["name"] ?? "?", [.. (value["orgs"] as JsonArray ?? []).Select(o => (string?)o?["name"] ?? "?")],
            (string?)token?["displayName"], (string?)token?["role"]);
    }

    /// <summary>Puts files into a repository, in one commit; a repository that does not exist is made.</summary>
    /// <param name="repo">The repository at a branch.</param>
    /// <param name="files">The files.</param>
    /// <param name="summary">The commit's title.</param>
    /// <param name="isPrivate">Whether a repository that has to be made is private.</param>
    /// <param name="cancellation">Stops; then nothing is committed.</param>
    /// <exception cref="HubException">There is no token, or it may not write there.</exception>
    /// <exception cref="HubTransferException">The network or the server failed; nothing is committed.</exception>
    public HubCommit Upload(HubRepo repo, IReadOnlyList<HubUploadFile> files, string summary, bool isPrivate = false, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(files);
        if (files.Count == 0) throw new InvalidInputException($"{repo}: upload: no files are given");
        foreach (var file in files) HubPath.Check(file.Path, repo.Id);
        if (files.GroupBy(f => f.Path, StringComparer.Ordinal).FirstOrDefault(g => g.Count() > 1) is { } twice) throw new InvalidInputException($"{repo}: upload: {twice.Key} is given twice");
        RequireNetwork(repo, "an upload");
        if (Options.Token is null) throw new HubException(HubProblem.BadToken, $"{repo}: upload: nobody is logged in; set HF_TOKEN to a token that may write, from {Options.Endpoint}/settings/tokens");
        var upload = new HubUpload(_http, Options);
        upload.Create(repo, isPrivate, cancellation);
        var commit = upload.Run(repo, files, summary, cancellation);
        // A branch that the cache knows stands at what was just put there.
        if (Cache.Commit(repo) is not null && HubRepo.IsCommit(commit.Hash)) Cache.NoteCommit(repo, commit.Hash);
        return commit;
    }

    /// <summary>Closes connections.</summary>
    public void Dispose() => _http.Dispose();

    internal static HubTransferException Unexpected(HubRepo repo, string what) => new($"{repo}: {what}: the hub's answer has an unknown form; is HF_ENDPOINT a hub?");

    private string? Get(HubRepo repo, string path, CancellationToken cancellation, out HubException? absence)
    {
        absence = null;
        if (Cache.Find(repo, path) is { } there) return there;
        var pinned = Cache.Commit(repo);
        if (pinned is not null && Cache.KnowsAbsent(repo, pinned, path))
        {
            absence = NoFile(repo, path, pinned);
            return null;
        }

        if (Options.Offline)
        {
            absence = NotCached(repo, path);
            return null;
        }

        var file = Ask(pinned is null ? repo : repo.At(pinned), repo, path, cancellation, out var commit);
        if (file is null)
        {
            absence = NoFile(repo, path, commit);
            return null;
        }

        Cache.NoteCommit(repo, file.Commit);
        return Store(repo, path, file, cancellation);
    }

    /// <summary>Asks for a file; null if the repository does not have it, at the commit that is given back.</summary>
    private FileMetadata? Ask(HubRepo at, HubRepo repo, string path, CancellationToken cancellation, out string commit)
    {
        var address = _http.FileAddress(at, path);
        using var response = _http.Head(address, cancellation);
        commit = HubErrors.Header(response, "X-Repo-Commit") is { } c && HubRepo.IsCommit(c) ? c : at.Revision;
        if ((int)response.StatusCode < 400) return FileMetadata.Read(response, address, $"{repo}: {path}");
        var code = HubErrors.Header(response, "X-Error-Code");
        // A commit that the cache knows may be gone when a history was rewritten: then the branch counts.
        if (code == "RevisionNotFound" && at.Revision != repo.Revision) return Ask(repo, repo, path, cancellation, out commit);
        if (code != "EntryNotFound") throw HubErrors.Explain(response, at, path, Options);
        if (HubRepo.IsCommit(commit))
        {
            Cache.NoteCommit(repo, commit);
            Cache.NoteAbsent(repo, commit, path);
        }

        return null;
    }

    private string Store(HubRepo repo, string path, FileMetadata file, CancellationToken cancellation)
    {
        var target = Cache.Snapshot(repo, file.Commit, path);
        if (File.Exists(target)) return target;
        var blob = Cache.Blob(repo, file.ETag);
        using var owner = FileLock.Acquire(Cache.LockFile(repo, file.ETag), () => Options.Note?.Invoke($"{path}: another process is fetching it; waiting"), cancellation);
        if (File.Exists(target)) return target;
        var isNew = !File.Exists(blob);
        if (isNew)
        {
            _download.Run(file, blob, repo, path, () => Ask(repo.At(file.Commit), repo, path, cancellation, out _) ?? throw NoFile(repo, path, file.Commit), cancellation);
        }

        Cache.Link(blob, target, isNew);
        return target;
    }

    private HubException NoFile(HubRepo repo, string path, string commit) => new(HubProblem.FileNotFound, string.Create(CultureInfo.InvariantCulture,
        $"{repo}: {path}: the repository has no such file at commit {(commit.Length == 40 ? commit[..8] : commit)}; see {Options.Endpoint}/{repo.Page}/tree/{commit}, or ask for its newest commit (--refresh)"));

    private HubException NotCached(HubRepo repo, string path) =>
        new(HubProblem.NotCached, $"{repo}: {path}: not in the cache {Cache.Folder}, and the hub may not be asked (HF_HUB_OFFLINE); fetch it once with the network on");

    private void RequireNetwork(HubRepo repo, string what)
    {
        if (Options.Offline) throw new HubException(HubProblem.NotCached, $"{repo}: {what} needs the hub, which may not be asked (HF_HUB_OFFLINE)");
    }
}
