using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace IlgpuSae.Tests.Hub;

/// <summary>A repository that the loopback hub serves.</summary>
internal sealed class ServedRepo(string id)
{
    private readonly Dictionary<string, SortedDictionary<string, byte[]>> _commits = new(StringComparer.Ordinal);

    public string Id { get; } = id;

    /// <summary>Open to holders of <see cref="HubServer.Token"/> alone, and known to exist.</summary>
    public bool Gated { get; init; }

    /// <summary>Not known to exist without the token.</summary>
    public bool Private { get; init; }

    /// <summary>Files from this size on are large files.</summary>
    public int LargeFrom { get; init; } = 1000;

    public Dictionary<string, string> Branches { get; } = new(StringComparer.Ordinal);

    public List<string> Summaries { get; } = [];

    /// <summary>Commits files to a branch, over those it has; returns the commit.</summary>
    public string Commit(IEnumerable<KeyValuePair<string, byte[]>> files, string branch = "main")
    {
        var all = Branches.TryGetValue(branch, out var old) ? new SortedDictionary<string, byte[]>(_commits[old], StringComparer.Ordinal) : new SortedDictionary<string, byte[]>(StringComparer.Ordinal);
        foreach (var (path, bytes) in files) all[path] = bytes;
        var listing = string.Join('\n', all.Select(f => f.Key + " " + ETag(f.Value)));
        var hash = Sha1(Encoding.UTF8.GetBytes(Id + listing));
        _commits[hash] = all;
        Branches[branch] = hash;
        return hash;
    }

    public string Commit(params (string Path, byte[] Bytes)[] files) => Commit(files.Select(f => KeyValuePair.Create(f.Path, f.Bytes)));

    /// <summary>Commits a folder of the disk.</summary>
    public string CommitFolder(string folder, string under = "") => Commit(Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories)
        .Select(f => KeyValuePair.Create((under.Length > 0 ? under + "/" : "") + Path.GetRelativePath(folder, f).Replace('\\', '/'), File.ReadAllBytes(f))));

    /// <summary>The commit that a revision stands for.</summary>
    public string? Resolve(string revision) => Branches.TryGetValue(revision, out var commit) ? commit : _commits.ContainsKey(revision) ? revision : null;

    public SortedDictionary<string, byte[]> Files(string commit) => _commits[commit];

    /// <summary>Forgets a commit, as a rewritten history does.</summary>
    public void Forget(string commit) => _commits.Remove(commit);

    public bool IsLarge(byte[] bytes) => bytes.Length >= LargeFrom;

    /// <summary>As the hub names content: SHA-256 of large files, git's blob SHA-1 of small ones.</summary>
    public string ETag(byte[] bytes) => IsLarge(bytes) ? Sha256(bytes) : GitHash(bytes);

    public static string Sha256(byte[] bytes) => Convert.ToHexStringLower(SHA256.HashData(bytes));

    public static string GitHash(byte[] bytes) =>
        Sha1([.. Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"blob {bytes.Length}\0")), .. bytes]);

    private static string Sha1(byte[] bytes)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA1);
        hash.AppendData(bytes);
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }
}
