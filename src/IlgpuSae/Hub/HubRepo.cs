using IlgpuSae.Files;

namespace IlgpuSae.Hub;

/// <summary>What a repository holds.</summary>
public enum HubRepoKind
{
    /// <summary>Models, and what belongs to them: SAEs too.</summary>
    Model,

    /// <summary>Data sets.</summary>
    Dataset,

    /// <summary>Applications.</summary>
    Space,
}

/// <summary>A repository of the hub at one of its revisions.</summary>
public sealed record HubRepo
{
    /// <summary>Names a repository.</summary>
    /// <param name="id"><c>organization/name</c>, or a bare name as a few old repositories have it (<c>gpt2</c>).</param>
    /// <param name="kind">What it holds.</param>
    /// <param name="revision">Branch, tag or commit.</param>
    /// <exception cref="HubException">The id or the revision cannot be one.</exception>
    public HubRepo(string id, HubRepoKind kind = HubRepoKind.Model, string revision = "main")
    {
        ArgumentNullException.ThrowIfNull(id);
        ArgumentNullException.ThrowIfNull(revision);
        if (!IsId(id)) throw new HubException(HubProblem.BadName, $"{Say.Quote(id)} is no repository of the hub; expected organization/name, such as openai-community/gpt2");
        HubPath.Check(revision, id, "revision");
        Id = id;
        Kind = kind;
        Revision = revision;
    }

    /// <summary><c>organization/name</c>.</summary>
    public string Id { get; }

    /// <summary>What it holds.</summary>
    public HubRepoKind Kind { get; }

    /// <summary>Branch, tag or commit.</summary>
    public string Revision { get; }

    /// <summary>The folder of this repository in a cache.</summary>
    internal string FolderName => $"{Plural}--{Id.Replace("/", "--", StringComparison.Ordinal)}";

    /// <summary>The kind as the hub's addresses have it.</summary>
    internal string Plural => Kind switch { HubRepoKind.Dataset => "datasets", HubRepoKind.Space => "spaces", _ => "models" };

    /// <summary>The repository's page below the hub's address.</summary>
    internal string Page => Kind == HubRepoKind.Model ? Id : $"{Plural}/{Id}";

    /// <summary>The same repository at another revision.</summary>
    /// <param name="revision">Branch, tag or commit.</param>
    /// <exception cref="HubException">The revision cannot be one.</exception>
    public HubRepo At(string revision) => new(Id, Kind, revision);

    /// <summary>Reads <c>organization/name</c> or <c>organization/name@revision</c>.</summary>
    /// <param name="text">The text.</param>
    /// <param name="kind">What the repository holds.</param>
    /// <exception cref="HubException">It cannot be a repository.</exception>
    public static HubRepo Parse(string text, HubRepoKind kind = HubRepoKind.Model)
    {
        ArgumentNullException.ThrowIfNull(text);
        var at = text.IndexOf('@', StringComparison.Ordinal);
        return at < 0 ? new HubRepo(text, kind) : new HubRepo(text[..at], kind, text[(at + 1)..]);
    }

    /// <summary>The id, with the revision unless it is main.</summary>
    public override string ToString() => Revision == "main" ? Id : $"{Id}@{Revision}";

    /// <summary>Whether a text can be a repository's id: the hub's own rules.</summary>
    internal static bool IsId(string id)
    {
        var parts = id.Split('/');
        return id.Length is > 0 and <= 96 && parts.Length <= 2
            && !id.Contains("--", StringComparison.Ordinal) && !id.Contains("..", StringComparison.Ordinal)
            && !id.EndsWith(".git", StringComparison.Ordinal)
            && Array.TrueForAll(parts, p => p.Length > 0 && p[0] is not ('-' or '.') && p[^1] is not ('-' or '.')
                && p.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' or '.'));
    }

    /// <summary>Whether a revision is a whole commit hash.</summary>
    internal static bool IsCommit(string revision) => revision.Length == 40 && revision.All(char.IsAsciiHexDigitLower);
}
