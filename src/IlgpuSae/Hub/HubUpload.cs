using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Text;
using System.Text.Json.Nodes;

namespace IlgpuSae.Hub;

/// <summary>
/// Puts files into a repository in one commit, the way Hugging Face's own clients do: the hub says which files are
/// large ("preupload"), their content goes to the large-file store (Git LFS, in one request or in the parts that the
/// store asks for), and one commit names them all. Either the commit appears with all files or nothing changes.
/// </summary>
internal sealed class HubUpload(HubHttp http, HubOptions options)
{
    private const string LfsType = "application/vnd.git-lfs+json";
    private const int FilesAtOnce = 100;

    /// <summary>Makes the repository unless it exists.</summary>
    public void Create(HubRepo repo, bool isPrivate, CancellationToken cancellation)
    {
        var address = http.ApiAddress($"{repo.Plural}/{repo.Id}");
        using (var response = http.Get(address, 0, options.MetadataTimeout, cancellation))
        {
            if (response.IsSuccessStatusCode) return;
            if (response.StatusCode is not (HttpStatusCode.NotFound or HttpStatusCode.Unauthorized)) throw HubErrors.Explain(response, repo, "upload", options);
        }

        var parts = repo.Id.Split('/');
        var wish = new JsonObject { ["name"] = parts[^1], ["organization"] = parts.Length == 2 ? parts[0] : null, ["type"] = repo.Plural[..^1], ["private"] = isPrivate };
        http.Post(http.ApiAddress("repos/create"), Bytes(wish), "application/json", repo, "making the repository", s => s == HttpStatusCode.Conflict, cancellation);
    }

    /// <summary>Uploads the files and commits them.</summary>
    public HubCommit Run(HubRepo repo, IReadOnlyList<HubUploadFile> files, string summary, CancellationToken cancellation)
    {
        var regular = new List<HubUploadFile>();
        var large = new List<(HubUploadFile File, string Sha256)>();
        foreach (var group in files.Chunk(FilesAtOnce))
        {
            var answer = Ask(repo, group, cancellation);
            foreach (var file in group)
            {
                if (!answer.TryGetValue(file.Path, out var mode)) throw HubClient.Unexpected(repo, "upload");
                if (mode == "lfs") large.Add((file, file.Sha256()));
                else if (mode == "regular") regular.Add(file);
            }
        }

        foreach (var group in large.Chunk(FilesAtOnce)) Store(repo, group, cancellation);
        return Commit(repo, regular, large, summary, cancellation);
    }

    /// <summary>How the hub wants each file: "regular", "lfs", or "" for those it ignores.</summary>
    private Dictionary<string, string> Ask(HubRepo repo, HubUploadFile[] files, CancellationToken cancellation)
    {
        var question = new JsonObject
        {
            ["files"] = new JsonArray([.. files.Select(f => (JsonNode)new JsonObject
            {
                ["path"] = f.Path,
                ["sample"] = Convert.ToBase64String(f.Sample()),
                ["size"] = f.Bytes,
            })]),
        };
        var answer = http.Post(http.ApiAddress($"{repo.Plural}/{repo.Id}/preupload/{Uri.EscapeDataString(repo.Revision)}"), Bytes(question), "application/json", repo, "upload", null, cancellation);
        return (answer?["files"] as JsonArray ?? []).ToDictionary(f => (string?)f?["path"] ?? "",
            f => (bool?)f?["shouldIgnore"] == true ? "" : (string?)f?["uploadMode"] ?? "regular", StringComparer.Ordinal);
    }

    /// <summary>Brings large files to the store, unless it has them.</summary>
    private void Store(HubRepo repo, (HubUploadFile File, string Sha256)[] files, CancellationToken cancellation)
    {
        var question = new JsonObject
        {
            ["operation"] = "upload",
            ["transfers"] = new JsonArray("basic", "multipart"),
            ["hash_algo"] = "sha256",
            ["ref"] = new JsonObject { ["name"] = repo.Revision },
            ["objects"] = new JsonArray([.. files.Select(f => (JsonNode)new JsonObject { ["oid"] = f.Sha256, ["size"] = f.File.Bytes })]),
        };
        var answer = http.Post(http.Address($"{repo.Page}.git/info/lfs/objects/batch"), Bytes(question), LfsType, repo, "upload", null, cancellation, LfsType);
        foreach (var entry in answer?["objects"] as JsonArray ?? throw HubClient.Unexpected(repo, "upload"))
        {
            var file = files.FirstOrDefault(f => f.Sha256 == (string?)entry?["oid"]);
            if (file.File is null) throw HubClient.Unexpected(repo, "upload");
            if (entry!["error"] is { } error) throw new HubTransferException($"{repo}: {file.File.Path}: the store refuses it: {(string?)error["message"] ?? "no reason given"}");
            if (entry["actions"]?["upload"] is not { } upload) continue;
            var target = new Uri((string?)upload["href"] ?? throw HubClient.Unexpected(repo, "upload"));
            var header = upload["header"] as JsonObject ?? [];
            if (header["chunk_size"] is { } size) PutParts(repo, file.File, file.Sha256, target, header, long.Parse(size.ToString(), CultureInfo.InvariantCulture), cancellation);
            else Put(repo, file.File, target, 0, file.File.Bytes, header, cancellation);
            if (entry["actions"]?["verify"]?["href"] is { } verify)
            {
                http.Post(new Uri((string)verify!), Bytes(new JsonObject { ["oid"] = file.Sha256, ["size"] = file.File.Bytes }), LfsType, repo, $"{file.File.Path}: verification", null, cancellation, LfsType);
            }
        }
    }

    /// <summary>A large file in the parts that the store asks for: the headers 00001, 00002, ... are their addresses.</summary>
    private void PutParts(HubRepo repo, HubUploadFile file, string sha256, Uri complete, JsonObject header, long size, CancellationToken cancellation)
    {
        var addresses = header.Where(h => h.Key.Length > 0 && h.Key.All(char.IsAsciiDigit)).OrderBy(h => int.Parse(h.Key, CultureInfo.InvariantCulture)).Select(h => new Uri((string)h.Value!)).ToList();
        if (size < 1 || addresses.Count != (file.Bytes + size - 1) / size) throw new HubTransferException($"{repo}: {file.Path}: the store asks for {addresses.Count} parts of {size} bytes, which is not the file's size; try again");
        var parts = new JsonArray();
        for (var i = 0; i < addresses.Count; i++)
        {
            var etag = Put(repo, file, addresses[i], i * size, Math.Min(size, file.Bytes - (i * size)), null, cancellation)
                ?? throw new HubTransferException($"{repo}: {file.Path}: the store did not confirm part {i + 1}; try again");
            parts.Add(new JsonObject { ["partNumber"] = i + 1, ["etag"] = etag });
        }

        http.Post(complete, Bytes(new JsonObject { ["oid"] = sha256, ["parts"] = parts }), LfsType, repo, $"{file.Path}: end of the upload", null, cancellation, LfsType);
    }

    /// <summary>Sends a stretch of a file; sent again as a whole when the network fails.</summary>
    /// <returns>The ETag the store gave it.</returns>
    private string? Put(HubRepo repo, HubUploadFile file, Uri target, long start, long count, JsonObject? header, CancellationToken cancellation)
    {
        using var response = http.Send(() =>
        {
            var request = new HttpRequestMessage(HttpMethod.Put, target) { Content = new Stretch(file, start, count, repo.Id, options.Progress, cancellation) };
            foreach (var (name, value) in header ?? [])
                if (value is not null) request.Headers.TryAddWithoutValidation(name, value.ToString());
            return request;
        }, Timeout.InfiniteTimeSpan, cancellation);
        return response.IsSuccessStatusCode ? HubErrors.Header(response, "ETag")
            : throw new HubTransferException($"{repo}: {file.Path}: the store answers {(int)response.StatusCode} {response.StatusCode}; try again");
    }

    private HubCommit Commit(HubRepo repo, List<HubUploadFile> regular, List<(HubUploadFile File, string Sha256)> large, string summary, CancellationToken cancellation)
    {
        var lines = new StringBuilder();
        void Line(string key, JsonObject value) => lines.Append(new JsonObject { ["key"] = key, ["value"] = value }.ToJsonString()).Append('\n');
        Line("header", new JsonObject { ["summary"] = summary, ["description"] = "" });
        foreach (var f in regular) Line("file", new JsonObject { ["path"] = f.Path, ["encoding"] = "base64", ["content"] = Convert.ToBase64String(f.ReadAll()) });
        foreach (var (f, sha256) in large) Line("lfsFile", new JsonObject { ["path"] = f.Path, ["algo"] = "sha256", ["oid"] = sha256, ["size"] = f.Bytes });
        var answer = http.Post(http.ApiAddress($"{repo.Plural}/{repo.Id}/commit/{Uri.EscapeDataString(repo.Revision)}"), Encoding.UTF8.GetBytes(lines.ToString()), "application/x-ndjson", repo, "upload", null, cancellation);
        var hash = (string?)answer?["commitOid"] ?? throw HubClient.Unexpected(repo, "upload");
        return new HubCommit(hash, (string?)answer!["commitUrl"] ?? $"{options.Endpoint}/{repo.Page}/commit/{hash}", [.. regular.Select(f => f.Path), .. large.Select(f => f.File.Path)]);
    }

    private static byte[] Bytes(JsonObject json) => Encoding.UTF8.GetBytes(json.ToJsonString());

    /// <summary>A stretch of a file as a request's body, read as it is sent.</summary>
    private sealed class Stretch(HubUploadFile file, long start, long count, string repository, Action<HubProgress>? progress, CancellationToken cancellation) : HttpContent
    {
        private const int BufferBytes = 1 << 18;

        protected override bool TryComputeLength(out long length)
        {
            length = count;
            return true;
        }

        protected override void SerializeToStream(Stream stream, TransportContext? context, CancellationToken ignored)
        {
            using var source = file.Open();
            source.Position = start;
            var buffer = new byte[BufferBytes];
            var began = Stopwatch.GetTimestamp();
            for (long sent = 0; sent < count;)
            {
                cancellation.ThrowIfCancellationRequested();
                var n = source.Read(buffer, 0, (int)Math.Min(buffer.Length, count - sent));
                if (n == 0) throw new InvalidFileException(file.Path, "became shorter while it was uploaded");
                stream.Write(buffer, 0, n);
                sent += n;
                progress?.Invoke(new HubProgress(repository, file.Path, start + sent, file.Bytes, sent / Math.Max(1e-3, Stopwatch.GetElapsedTime(began).TotalSeconds), Upload: true));
            }
        }

        protected override Task SerializeToStreamAsync(Stream stream, TransportContext? context)
        {
            SerializeToStream(stream, context, cancellation);
            return Task.CompletedTask;
        }
    }
}
