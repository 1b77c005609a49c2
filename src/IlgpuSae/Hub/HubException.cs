namespace IlgpuSae.Hub;

/// <summary>What was wrong with a request to the hub.</summary>
public enum HubProblem
{
    /// <summary>A repository, revision or file name that cannot be one.</summary>
    BadName,

    /// <summary>The repository does not exist, or is private: the hub does not tell strangers which.</summary>
    RepositoryNotFound,

    /// <summary>The repository is open only to accounts that accepted its terms.</summary>
    Gated,

    /// <summary>The account of the token may not do this.</summary>
    Denied,

    /// <summary>There is no token, or the hub does not know it.</summary>
    BadToken,

    /// <summary>The repository has no such branch, tag or commit.</summary>
    RevisionNotFound,

    /// <summary>The revision has no such file.</summary>
    FileNotFound,

    /// <summary>The hub may not be asked, and the cache has no such file.</summary>
    NotCached,
}

/// <summary>Something was asked of the hub that it does not have or does not give.</summary>
public sealed class HubException : InvalidInputException
{
    /// <summary>Creates the error.</summary>
    /// <param name="problem">What kind of problem it is.</param>
    /// <param name="message">One line: what was asked, what the answer was, what to do.</param>
    /// <param name="inner">The cause, if another failure led here.</param>
    public HubException(HubProblem problem, string message, Exception? inner = null)
        : base(message, inner) => Problem = problem;

    /// <summary>What kind of problem it is.</summary>
    public HubProblem Problem { get; }
}
