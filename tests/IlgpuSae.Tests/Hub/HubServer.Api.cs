using System.Collections.Concurrent;
using System.Globalization;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;

namespace IlgpuSae.Tests.Hub;

/// <summary>The hub's interface: accounts, trees, and all that uploads need.</summary>
internal sealed partial class HubServer
{
    private readonly ConcurrentDictionary<string, byte[][]> _parts = new(StringComparer.Ordinal);

    /// <summary>Large contents that the store verified.</summary>
    public ConcurrentQueue<string> Verified { get; } = new();

    private async Task Api(HttpContext context, string path)
    {
        if (path == "/api/whoami-v2")
        {
            if (context.Request.Headers.Authorization.ToString() != "Bearer " + Token) Refuse(context, 401, null, "Invalid credentials in Authorization header");
            else await Write(context, JsonNode.Parse("""{"name":"tester","orgs":[{"name":"lab"}],"auth":{"accessToken":{"displayName":"mine","role":"write"}}}""")!);
            return;
        }

        if (path == "/api/repos/create")
        {
            await Create(context);
            return;
        }

        // /api/models/{org}/{name}[/verb/revision[/folder]]
        var parts = path.Split('/');
        // A few old repositories have no organization.
        var bare = _repos.ContainsKey(parts[3]);
        var id = bare ? parts[3] : parts[3] + "/" + parts[4];
        if (bare) parts = [.. parts[..4], "", .. parts[4..]];
        if (Open(context, id) is not { } repo) return;
        var verb = parts.ElementAtOrDefault(5);
        var revision = Uri.UnescapeDataString(parts.ElementAtOrDefault(6) ?? "main");
        if (verb is null or "revision" or "tree")
        {
            if (repo.Resolve(revision) is not { } commit)
            {
                Refuse(context, 404, "RevisionNotFound", "Invalid rev id");
                return;
            }

            await (verb == "tree" ? Tree(context, repo, commit, string.Join('/', parts.Skip(7))) : Write(context, new JsonObject { ["id"] = id, ["sha"] = commit }));
            return;
        }

        if (context.Request.Headers.Authorization.ToString() != "Bearer " + Token)
        {
            Refuse(context, 401, null, "Invalid username or password.");
            return;
        }

        var body = await Body(context);
        await (verb == "preupload" ? Preupload(context, repo, body) : Commit(context, repo, revision, body));
    }

    private async Task Create(HttpContext context)
    {
        var wish = JsonNode.Parse(await Body(context))!;
        var id = $"{(string?)wish["organization"] ?? "tester"}/{(string)wish["name"]!}";
        if (id.StartsWith("others/", StringComparison.Ordinal))
        {
            context.Response.StatusCode = 403;
            await Write(context, new JsonObject { ["error"] = "You don't have the rights to create a model under the namespace \"others\"" });
            return;
        }

        Add(new ServedRepo(id) { Private = (bool)wish["private"]! }).Commit((".gitattributes", "x"u8.ToArray()));
        await Write(context, new JsonObject { ["url"] = Endpoint + "/" + id });
    }

    private async Task Tree(HttpContext context, ServedRepo repo, string commit, string folder)
    {
        var all = repo.Files(commit).Where(f => folder.Length == 0 || f.Key.StartsWith(folder + "/", StringComparison.Ordinal)).ToList();
        if (all.Count == 0)
        {
            Refuse(context, 404, "EntryNotFound", folder + " does not exist");
            return;
        }

        var cursor = int.Parse(context.Request.Query["cursor"].FirstOrDefault() ?? "0", CultureInfo.InvariantCulture);
        if (cursor + PageSize < all.Count)
            context.Response.Headers.Link = $"<{Endpoint}{context.Request.Path}?recursive=true&cursor={cursor + PageSize}>; rel=\"next\"";
        await Write(context, new JsonArray([.. all.Skip(cursor).Take(PageSize).Select(f =>
        {
            var entry = new JsonObject { ["type"] = "file", ["path"] = f.Key, ["size"] = f.Value.Length, ["oid"] = ServedRepo.GitHash(f.Value) };
            if (repo.IsLarge(f.Value)) entry["lfs"] = new JsonObject { ["oid"] = ServedRepo.Sha256(f.Value), ["size"] = f.Value.Length };
            return (JsonNode)entry;
        })]));
    }

    private static Task Preupload(HttpContext context, ServedRepo repo, string body) => Write(context, new JsonObject
    {
        ["files"] = new JsonArray([.. JsonNode.Parse(body)!["files"]!.AsArray().Select(f => (JsonNode)new JsonObject
        {
            ["path"] = (string)f!["path"]!,
            ["uploadMode"] = (long)f["size"]! >= repo.LargeFrom ? "lfs" : "regular",
            ["shouldIgnore"] = ((string)f["path"]!).EndsWith(".ignored", StringComparison.Ordinal),
        })]),
    });

    private async Task Commit(HttpContext context, ServedRepo repo, string branch, string body)
    {
        var files = new List<(string Path, byte[] Bytes)>();
        foreach (var line in body.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(l => JsonNode.Parse(l)!))
        {
            var value = line["value"]!;
            switch ((string?)line["key"])
            {
                case "header":
                    repo.Summaries.Add((string)value["summary"]!);
                    break;
                case "file":
                    files.Add(((string)value["path"]!, Convert.FromBase64String((string)value["content"]!)));
                    break;
                case "lfsFile" when _store.TryGetValue((string)value["oid"]!, out var bytes) && bytes.Length == (long)value["size"]!:
                    files.Add(((string)value["path"]!, bytes));
                    break;
                default:
                    context.Response.StatusCode = 400;
                    await Write(context, new JsonObject { ["error"] = "not in the store: " + value.ToJsonString() });
                    return;
            }
        }

        string commit;
        lock (_gate) commit = repo.Commit(files.Select(f => KeyValuePair.Create(f.Path, f.Bytes)), branch);
        await Write(context, new JsonObject { ["success"] = true, ["commitOid"] = commit, ["commitUrl"] = $"{Endpoint}/{repo.Id}/commit/{commit}" });
    }

    private async Task Lfs(HttpContext context, string path)
    {
        var body = JsonNode.Parse(await Body(context))!;
        if (path.EndsWith("/verify", StringComparison.Ordinal))
        {
            if (_store.TryGetValue((string)body["oid"]!, out var there) && there.Length == (long)body["size"]!) Verified.Enqueue((string)body["oid"]!);
            else context.Response.StatusCode = 404;
            return;
        }

        await Write(context, new JsonObject
        {
            ["objects"] = new JsonArray([.. body["objects"]!.AsArray().Select(o =>
            {
                var (oid, size) = ((string)o!["oid"]!, (long)o["size"]!);
                var answer = new JsonObject { ["oid"] = oid, ["size"] = size };
                if (_store.ContainsKey(oid)) return (JsonNode)answer;
                var upload = new JsonObject { ["href"] = $"http://{StoreHost}/put/{oid}" };
                if (size >= PartsFrom)
                {
                    const int ChunkBytes = 700;
                    var header = new JsonObject { ["chunk_size"] = ChunkBytes.ToString(CultureInfo.InvariantCulture) };
                    var count = (int)((size + ChunkBytes - 1) / ChunkBytes);
                    for (var i = 1; i <= count; i++) header[i.ToString("00000", CultureInfo.InvariantCulture)] = $"http://{StoreHost}/part/{oid}/{i}/{count}";
                    upload = new JsonObject { ["href"] = $"http://{StoreHost}/complete/{oid}", ["header"] = header };
                }

                answer["actions"] = new JsonObject { ["upload"] = upload, ["verify"] = new JsonObject { ["href"] = $"{Endpoint}{path[..path.IndexOf(".git", StringComparison.Ordinal)]}.git/info/lfs/verify" } };
                return answer;
            })]),
        });
    }

    /// <summary>/put/{oid}, /part/{oid}/{n}/{count}, /complete/{oid}.</summary>
    private async Task TakeUpload(HttpContext context, string path)
    {
        var words = path.Split('/');
        using var memory = new MemoryStream();
        await context.Request.Body.CopyToAsync(memory, context.RequestAborted);
        var bytes = memory.ToArray();
        switch (words[1])
        {
            case "put":
                if (ServedRepo.Sha256(bytes) == words[2]) _store[words[2]] = bytes;
                else context.Response.StatusCode = 400;
                break;
            case "part":
                _parts.GetOrAdd(words[2], _ => new byte[int.Parse(words[4], CultureInfo.InvariantCulture)][])[int.Parse(words[3], CultureInfo.InvariantCulture) - 1] = bytes;
                context.Response.Headers.ETag = $"\"part-{words[3]}\"";
                break;
            case "complete":
                var named = JsonNode.Parse(bytes)!["parts"]!.AsArray();
                var whole = _parts[words[2]].SelectMany(p => p).ToArray();
                if (ServedRepo.Sha256(whole) == words[2] && named.Select((p, i) => (string)p!["etag"]! == $"\"part-{i + 1}\"").All(x => x)) _store[words[2]] = whole;
                else context.Response.StatusCode = 400;
                break;
            default:
                context.Response.StatusCode = 404;
                break;
        }
    }

    private static async Task<string> Body(HttpContext context)
    {
        using var reader = new StreamReader(context.Request.Body);
        return await reader.ReadToEndAsync(context.RequestAborted);
    }
}
