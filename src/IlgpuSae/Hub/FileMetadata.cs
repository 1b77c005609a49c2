using System.Globalization;

namespace IlgpuSae.Hub;

/// <summary>What the hub says of a file before it is fetched.</summary>
/// <param name="Commit">The commit that the revision stands for.</param>
/// <param name="ETag">Names the content, and the blob in the cache.</param>
/// <param name="Bytes">The size; null if the server does not say.</param>
/// <param name="Location">Where the content is.</param>
internal sealed record FileMetadata(string Commit, string ETag, long? Bytes, Uri Location)
{
    /// <summary>Reads the headers of an answer.</summary>
    /// <exception cref="HubTransferException">Not a hub's answer.</exception>
    public static FileMetadata Read(HttpResponseMessage response, Uri asked, string what)
    {
        var at = response.RequestMessage?.RequestUri ?? asked;
        var commit = HubErrors.Header(response, "X-Repo-Commit");
        if (commit is null || !HubRepo.IsCommit(commit))
            throw new HubTransferException($"{what}: {at.Host} answered without a commit, as a hub would not; does a proxy stand between, or is HF_ENDPOINT wrong?");
        var etag = Unquote(HubErrors.Header(response, "X-Linked-ETag") ?? HubErrors.Header(response, "ETag"));
        // It becomes a file's name.
        if (etag is not { Length: > 0 and <= 255 } || !etag.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_') || etag.EndsWith(CachedRepo.Unfinished, StringComparison.Ordinal))
            throw new HubTransferException($"{what}: {at.Host} answered without an ETag that can name the content; is HF_ENDPOINT a hub?");
        var redirected = (int)response.StatusCode is >= 300 and < 400 && response.Headers.Location is not null;
        var length = HubErrors.Header(response, "X-Linked-Size") ?? (redirected ? null : response.Content.Headers.ContentLength?.ToString(CultureInfo.InvariantCulture));
        return new FileMetadata(commit, etag, long.TryParse(length, NumberStyles.None, CultureInfo.InvariantCulture, out var bytes) ? bytes : null,
            redirected ? new Uri(at, response.Headers.Location!.OriginalString) : at);
    }

    private static string? Unquote(string? etag)
    {
        if (etag is null) return null;
        if (etag.StartsWith("W/", StringComparison.Ordinal)) etag = etag[2..];
        return etag.Trim('"');
    }
}
