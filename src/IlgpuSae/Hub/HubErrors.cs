using System.Globalization;
using System.Net;
using IlgpuSae.Files;

namespace IlgpuSae.Hub;

/// <summary>What the hub's refusals mean, in one line with what to do about it.</summary>
internal static class HubErrors
{
    /// <summary>The error for an answer that is no success.</summary>
    /// <param name="response">The answer.</param>
    /// <param name="repo">The repository asked about; null: none.</param>
    /// <param name="what">What was asked for: a file, an upload.</param>
    /// <param name="options">The hub and the token.</param>
    public static IlgpuSaeException Explain(HttpResponseMessage response, HubRepo? repo, string what, HubOptions options)
    {
        var code = Header(response, "X-Error-Code");
        var said = Header(response, "X-Error-Message") is { Length: > 0 } text ? $" (it says {Say.Quote(text)})" : "";
        var subject = repo is null ? what : $"{repo}: {what}";
        var page = repo is null ? options.Endpoint : $"{options.Endpoint}/{repo.Page}";
        var status = (int)response.StatusCode;
        return (status, code) switch
        {
            (_, "GatedRepo") => new HubException(HubProblem.Gated, options.Token is null
                ? $"{subject}: the repository is gated{said}; accept its terms at {page} and set HF_TOKEN to your token"
                : $"{subject}: the repository is gated{said}; accept its terms at {page} with the account of the token from {options.TokenSource ?? "the options"}"),
            (_, "RevisionNotFound") => new HubException(HubProblem.RevisionNotFound, $"{subject}: there is no revision {Say.Quote(repo?.Revision ?? "")}; see {page}/tree/main for the branches"),
            (_, "EntryNotFound") => new HubException(HubProblem.FileNotFound, $"{subject}: the repository has no such file at {repo?.Revision}; see {page}/tree/{repo?.Revision}"),
            (401, _) when options.Token is not null && (repo is null || said.Contains("nvalid", StringComparison.Ordinal)) =>
                new HubException(HubProblem.BadToken, $"{subject}: the hub does not know the token from {options.TokenSource ?? "the options"}{said}; get one at {options.Endpoint}/settings/tokens"),
            (401, _) when repo is null => new HubException(HubProblem.BadToken, $"{subject}: nobody is logged in; set HF_TOKEN to a token from {options.Endpoint}/settings/tokens"),
            (401, _) => new HubException(HubProblem.RepositoryNotFound, options.Token is null
                ? $"{subject}: no such repository, or it is private or gated{said}; check the name, or set HF_TOKEN to your token"
                : $"{subject}: no such repository, or the token from {options.TokenSource ?? "the options"} may not see it{said}; check the name at {page}"),
            (403, _) => new HubException(HubProblem.Denied, $"{subject}: the hub refuses{said}; check at {page} what {(options.Token is null ? "it asks for, and set HF_TOKEN" : "your token may do")}"),
            (404, "RepoNotFound") or (404, _) => new HubException(HubProblem.RepositoryNotFound, $"{subject}: not found{said}; check the name at {page}"),
            (429, _) => new HubTransferException($"{subject}: too many requests, and the hub asks for a longer wait than {options.LongestWait.TotalSeconds.ToString("0", CultureInfo.InvariantCulture)} s{said}; "
                + (options.Token is null ? "try later, or set HF_TOKEN: accounts have larger limits" : "try later")),
            _ => new HubTransferException($"{subject}: the hub answers {status} {response.StatusCode}{said}; try again later, and see https://status.huggingface.co"
                + (Header(response, "x-request-id") is { } id ? $" (request {Say.Quote(id)})" : "")),
        };
    }

    /// <summary>A header's text; null if it is absent.</summary>
    public static string? Header(HttpResponseMessage response, string name) =>
        response.Headers.TryGetValues(name, out var values) || response.Content.Headers.TryGetValues(name, out values) ? string.Join(", ", values) : null;

    /// <summary>How long the server asks to wait: <c>RateLimit: "name";r=0;t=SECONDS</c>, else <c>Retry-After</c>; null if it does not say.</summary>
    public static TimeSpan? Wait(HttpResponseMessage response)
    {
        foreach (var part in Header(response, "RateLimit")?.Split(';', ',') ?? [])
        {
            if (part.Trim() is ['t', '=', .. var t] && double.TryParse(t, NumberStyles.Float, CultureInfo.InvariantCulture, out var seconds) && seconds is >= 0 and < 1e6)
                return TimeSpan.FromSeconds(seconds);
        }

        return response.Headers.RetryAfter switch
        {
            { Delta: { } delta } => delta,
            { Date: { } date } => date - DateTimeOffset.UtcNow is var left && left > TimeSpan.Zero ? left : TimeSpan.Zero,
            _ => null,
        };
    }

    /// <summary>Whether a status may be another one a moment later.</summary>
    public static bool IsPassing(HttpStatusCode status) => status is HttpStatusCode.RequestTimeout || (int)status >= 500 && status != HttpStatusCode.NotImplemented;
}
