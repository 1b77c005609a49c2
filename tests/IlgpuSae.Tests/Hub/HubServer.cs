using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Text.Json.Nodes;
using IlgpuSae.Hub;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;

namespace IlgpuSae.Tests.Hub;

/// <summary>One request that the loopback hub saw.</summary>
internal sealed record SeenRequest(string Host, string Method, string Path, string? Authorization, string? Range);

/// <summary>
/// A hub on the loopback, as far as a client can tell: resolve with its headers, redirects of large files to a second
/// host (another port), ranges, trees in pages, uploads; and whatever goes wrong in the world, on request.
/// </summary>
internal sealed partial class HubServer : IDisposable
{
    public const string Token = "hf_test";
    private readonly WebApplication _app;
    private readonly Dictionary<string, ServedRepo> _repos = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, byte[]> _store = new(StringComparer.Ordinal);
    private readonly Lock _gate = new();
    private readonly int _hubPort;
    private readonly int _storePort;

    public HubServer()
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.ConfigureKestrel(k =>
        {
            k.Listen(IPAddress.Loopback, 0);
            k.Listen(IPAddress.Loopback, 0);
            k.Limits.MaxRequestBodySize = null;
            k.Limits.MinResponseDataRate = null;
        });
        _app = builder.Build();
        _app.Run(Handle);
        _app.StartAsync().GetAwaiter().GetResult();
        var ports = _app.Urls.Select(u => new Uri(u).Port).ToArray();
        (_hubPort, _storePort) = (ports[0], ports[1]);
    }

    public string Endpoint => $"http://127.0.0.1:{_hubPort}";

    /// <summary>Where large files lie.</summary>
    public string StoreHost => $"127.0.0.1:{_storePort}";

    public ConcurrentQueue<SeenRequest> Requests { get; } = new();

    /// <summary>Where the next answers with content break off, in bytes of the whole file; one a request.</summary>
    public ConcurrentQueue<long> Cuts { get; } = new();

    /// <summary>What is done to the next contents before they are sent, hash and announced size unchanged.</summary>
    public ConcurrentQueue<Func<byte[], byte[]>> Damages { get; } = new();

    /// <summary>Answers of the next requests whatever they ask for.</summary>
    public ConcurrentQueue<Func<HttpContext, Task>> Refusals { get; } = new();

    /// <summary>Answers of the next requests to the store.</summary>
    public ConcurrentQueue<Func<HttpContext, Task>> StoreRefusals { get; } = new();

    /// <summary>Old ids and the new ones that they redirect to, within the hub.</summary>
    public Dictionary<string, string> Renamed { get; } = new(StringComparer.Ordinal);

    /// <summary>Whether ranges are honoured.</summary>
    public bool Ranges { get; set; } = true;

    /// <summary>Whether answers to HEAD tell the size.</summary>
    public bool Sizes { get; set; } = true;

    /// <summary>Replaces the ETag of every answer.</summary>
    public string? ForcedETag { get; set; }

    /// <summary>Content is sent in pieces of this size with this pause between them.</summary>
    public (int Bytes, TimeSpan Pause)? Slow { get; set; }

    /// <summary>Entries of a tree's page.</summary>
    public int PageSize { get; set; } = 1000;

    /// <summary>Bytes from which the store asks for parts.</summary>
    public int PartsFrom { get; set; } = int.MaxValue;

    public ServedRepo Add(ServedRepo repo)
    {
        _repos[repo.Id] = repo;
        return repo;
    }

    public ServedRepo Repo(string id) => _repos[id];

    public IEnumerable<SeenRequest> Downloads => Requests.Where(r => r.Method == "GET" && (r.Path.Contains("/resolve/", StringComparison.Ordinal) || r.Path.StartsWith("/store/", StringComparison.Ordinal)));

    /// <summary>Options of a client of this hub.</summary>
    public HubOptions Options(string cache, string? token = null) => new()
    {
        Endpoint = Endpoint,
        CacheFolder = cache,
        Token = token,
        TokenSource = token is null ? null : "HF_TOKEN",
        RetryDelay = TimeSpan.FromMilliseconds(5),
        DownloadTimeout = TimeSpan.FromSeconds(20),
        MetadataTimeout = TimeSpan.FromSeconds(20),
    };

    /// <summary>The environment of a program that is to use this hub.</summary>
    public Dictionary<string, string?> Environment(string home, string? token = null) => new(StringComparer.Ordinal)
    {
        ["HF_ENDPOINT"] = Endpoint,
        ["HF_HOME"] = home,
        ["HF_HUB_CACHE"] = null,
        ["HUGGINGFACE_HUB_CACHE"] = null,
        ["HF_TOKEN"] = token,
        ["HUGGING_FACE_HUB_TOKEN"] = null,
        ["HF_TOKEN_PATH"] = null,
        ["HF_HUB_OFFLINE"] = null,
        ["TRANSFORMERS_OFFLINE"] = null,
        ["HF_HUB_DOWNLOAD_TIMEOUT"] = "20",
        ["HF_HUB_ETAG_TIMEOUT"] = "20",
    };

    public void Dispose() => _app.DisposeAsync().AsTask().GetAwaiter().GetResult();

    private async Task Handle(HttpContext context)
    {
        var request = context.Request;
        var path = request.Path.Value!;
        Requests.Enqueue(new SeenRequest($"127.0.0.1:{context.Connection.LocalPort}", request.Method, path, request.Headers.Authorization, request.Headers.Range));
        if (context.Connection.LocalPort == _storePort)
        {
            if (StoreRefusals.TryDequeue(out var refuse)) await refuse(context);
            else if (path.StartsWith("/store/", StringComparison.Ordinal) && request.Method == "GET") await Send(context, _store[path[7..]], path[7..]);
            else await TakeUpload(context, path);
            return;
        }

        if (Refusals.TryDequeue(out var refusal)) await refusal(context);
        else if (path.StartsWith("/api/", StringComparison.Ordinal)) await Api(context, path);
        else if (path.Contains(".git/info/lfs/", StringComparison.Ordinal)) await Lfs(context, path);
        else await Resolve(context, path);
    }

    /// <summary>/{id}/resolve/{revision}/{path}.</summary>
    private async Task Resolve(HttpContext context, string path)
    {
        var at = path.IndexOf("/resolve/", StringComparison.Ordinal);
        if (at < 0)
        {
            context.Response.StatusCode = 404;
            return;
        }

        var id = path[1..at];
        if (Renamed.TryGetValue(id, out var now))
        {
            context.Response.StatusCode = 307;
            context.Response.Headers.Location = "/" + now + path[at..];
            return;
        }

        var rest = path[(at + 9)..].Split('/', 2);
        if (Open(context, id) is not { } repo) return;
        if (repo.Resolve(Uri.UnescapeDataString(rest[0])) is not { } commit)
        {
            Refuse(context, 404, "RevisionNotFound", "Invalid rev id: " + rest[0]);
            return;
        }

        context.Response.Headers["X-Repo-Commit"] = commit;
        if (!repo.Files(commit).TryGetValue(rest[1], out var bytes))
        {
            Refuse(context, 404, "EntryNotFound", "Entry not found");
            return;
        }

        var etag = repo.ETag(bytes);
        if (repo.IsLarge(bytes))
        {
            _store[etag] = bytes;
            context.Response.StatusCode = 302;
            context.Response.Headers.Location = $"http://{StoreHost}/store/{etag}?signature=x";
            context.Response.Headers["X-Linked-ETag"] = $"\"{ForcedETag ?? etag}\"";
            if (Sizes) context.Response.Headers["X-Linked-Size"] = bytes.Length.ToString(CultureInfo.InvariantCulture);
        }
        else
        {
            await Send(context, bytes, ForcedETag ?? etag);
        }
    }

    private async Task Send(HttpContext context, byte[] bytes, string etag)
    {
        var response = context.Response;
        response.Headers.ETag = context.Connection.LocalPort == _storePort ? "\"store-md5\"" : $"\"{etag}\"";
        if (context.Request.Method == "HEAD")
        {
            if (Sizes) response.ContentLength = bytes.Length;
            return;
        }

        if (Damages.TryDequeue(out var damage)) bytes = damage(bytes);
        long from = 0;
        if (Ranges && context.Request.Headers.Range.ToString() is ['b', 'y', 't', 'e', 's', '=', .. var range])
        {
            from = long.Parse(range.TrimEnd('-'), CultureInfo.InvariantCulture);
            if (from >= bytes.Length)
            {
                response.StatusCode = 416;
                response.Headers.ContentRange = $"bytes */{bytes.Length}";
                return;
            }

            response.StatusCode = 206;
            response.Headers.ContentRange = $"bytes {from}-{bytes.Length - 1}/{bytes.Length}";
        }

        if (Sizes) response.ContentLength = bytes.Length - from;
        var end = Cuts.TryDequeue(out var cut) ? Math.Max(from, Math.Min(cut, bytes.Length)) : bytes.Length;
        var piece = Slow?.Bytes ?? 1 << 16;
        await response.StartAsync(context.RequestAborted);
        for (var i = from; i < end; i += piece)
        {
            await response.Body.WriteAsync(bytes.AsMemory((int)i, (int)Math.Min(piece, end - i)), context.RequestAborted);
            await response.Body.FlushAsync(context.RequestAborted);
            if (Slow is { } slow) await Task.Delay(slow.Pause, context.RequestAborted);
        }

        if (end < bytes.Length)
        {
            // What was sent has to arrive before the connection is reset.
            await Task.Delay(20, context.RequestAborted);
            context.Abort();
        }
    }

    /// <summary>The repository, if the asker may see it; else the answer is written.</summary>
    private ServedRepo? Open(HttpContext context, string id)
    {
        var authorization = context.Request.Headers.Authorization.ToString();
        if (authorization.Length > 0 && authorization != "Bearer " + Token)
        {
            Refuse(context, 401, null, "Invalid credentials in Authorization header");
            return null;
        }

        var known = authorization.Length > 0;
        if (!_repos.TryGetValue(id, out var repo) || (repo.Private && !known))
        {
            Refuse(context, known ? 404 : 401, "RepoNotFound", "Repository not found");
            return null;
        }

        if (!repo.Gated || known) return repo;
        Refuse(context, 401, "GatedRepo", $"Access to model {id} is restricted.");
        return null;
    }

    private static void Refuse(HttpContext context, int status, string? code, string message)
    {
        context.Response.StatusCode = status;
        if (code is not null) context.Response.Headers["X-Error-Code"] = code;
        context.Response.Headers["X-Error-Message"] = message;
    }

    private static Task Write(HttpContext context, JsonNode json)
    {
        context.Response.ContentType = "application/json";
        return context.Response.WriteAsync(json.ToJsonString());
    }
}
