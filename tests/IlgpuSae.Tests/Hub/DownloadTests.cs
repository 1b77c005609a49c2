using System.Text;
using IlgpuSae.Hub;
using Microsoft.AspNetCore.Http;
using Xunit;

namespace IlgpuSae.Tests.Hub;

/// <summary>Downloads as they should go: the cache's layout, what is asked, redirects, tokens, refusals, waits.</summary>
public sealed class DownloadTests : IDisposable
{
    private readonly TempFolder _temp = new();
    private readonly HubServer _server = new();
    private readonly ServedRepo _repo;
    private readonly string _commit;
    private readonly List<string> _notes = [];

    public DownloadTests()
    {
        _repo = _server.Add(new ServedRepo("lab/thing"));
        _commit = _repo.Commit(("config.json", "{}"u8.ToArray()), ("deep/er/weights.bin", Large()), ("empty", []));
    }

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    private static HubRepo Thing => new("lab/thing");

    private string Cache => _temp["hub"];

    public void Dispose()
    {
        _server.Dispose();
        _temp.Dispose();
    }

    internal static byte[] Large(int seed = 1, int count = 50_000)
    {
        var bytes = new byte[count];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    private HubClient Client(string? token = null, Func<HubOptions, HubOptions>? change = null)
    {
        var options = _server.Options(Cache, token) with { Note = n => _notes.Add(n) };
        return new HubClient(change?.Invoke(options) ?? options);
    }

    [Fact]
    public void The_cache_has_the_layout_of_huggingface_hub()
    {
        using var hub = Client();
        var file = hub.GetFile(Thing, "deep/er/weights.bin", Stop);
        hub.GetFile(Thing, "config.json", Stop);
        Assert.Null(hub.TryGetFile(Thing, "deep/none.txt", Stop));
        var root = Path.Combine(Cache, "models--lab--thing");
        Assert.Equal(Path.Combine(root, "snapshots", _commit, "deep/er/weights.bin"), file);
        var sha = ServedRepo.Sha256(Large());
        Assert.Equal($"../../../../blobs/{sha}", new FileInfo(file).LinkTarget);
        Assert.Equal(Large(), File.ReadAllBytes(file));
        Assert.Equal($"../../blobs/{ServedRepo.GitHash("{}"u8.ToArray())}", new FileInfo(Path.Combine(root, "snapshots", _commit, "config.json")).LinkTarget);
        Assert.Equal(_commit, File.ReadAllText(Path.Combine(root, "refs", "main")));
        Assert.Equal(0, new FileInfo(Path.Combine(root, ".no_exist", _commit, "deep/none.txt")).Length);
        Assert.True(File.Exists(Path.Combine(Cache, ".locks", "models--lab--thing", sha + ".lock")));
        Assert.Equal(2, Directory.GetFiles(Path.Combine(root, "blobs")).Length);
    }

    [Fact]
    public void Nothing_is_asked_when_the_cache_suffices()
    {
        using (var hub = Client())
        {
            hub.GetFile(Thing, "config.json", Stop);
            Assert.Null(hub.TryGetFile(Thing, "none", Stop));
            Assert.Empty(File.ReadAllBytes(hub.GetFile(Thing, "empty", Stop)));
        }

        var asked = _server.Requests.Count;
        using var again = Client();
        again.GetFile(Thing, "config.json", Stop);
        again.GetFile(Thing.At(_commit), "config.json", Stop);
        Assert.Null(again.TryGetFile(Thing, "none", Stop));
        Assert.Equal(HubProblem.FileNotFound, Assert.Throws<HubException>(() => again.GetFile(Thing, "none", Stop)).Problem);
        Assert.Equal(asked, _server.Requests.Count);
    }

    [Fact]
    public void What_Pythons_library_fetched_is_found_offline()
    {
        // As huggingface_hub leaves it: a reference, a blob, a relative link, a marker of absence.
        var root = Path.Combine(Cache, "models--lab--thing");
        foreach (var folder in new[] { "refs", "blobs", $"snapshots/{_commit}/deep/er", $".no_exist/{_commit}" }) Directory.CreateDirectory(Path.Combine(root, folder));
        File.WriteAllText(Path.Combine(root, "refs", "main"), _commit);
        File.WriteAllText(Path.Combine(root, "blobs", "0123abcd"), "theirs");
        File.CreateSymbolicLink(Path.Combine(root, "snapshots", _commit, "deep/er/theirs.txt"), "../../../../blobs/0123abcd");
        File.WriteAllText(Path.Combine(root, ".no_exist", _commit, "sparsity.safetensors"), "");
        using var hub = Client(change: o => o with { Offline = true });
        Assert.Equal("theirs", File.ReadAllText(hub.GetFile(Thing, "deep/er/theirs.txt", Stop)));
        Assert.Null(hub.TryGetFile(Thing, "sparsity.safetensors", Stop));
        Assert.Equal(["deep/er/theirs.txt"], hub.Cache.Files(Thing));
        Assert.Equal(["deep/er/theirs.txt"], hub.GetFiles(Thing, [], Stop).Files);
        Assert.Contains("not in the cache", Assert.Throws<HubException>(() => hub.GetFile(Thing, "config.json", Stop)).Message, StringComparison.Ordinal);
        Assert.Empty(_server.Requests);
    }

    [Fact]
    public void A_branch_stands_still_until_it_is_refreshed()
    {
        using var hub = Client();
        hub.GetFile(Thing, "config.json", Stop);
        var next = _repo.Commit(("config.json", "{\"new\":1}"u8.ToArray()), ("added.txt", "a"u8.ToArray()));
        Assert.Equal("{}", File.ReadAllText(hub.GetFile(Thing, "config.json", Stop)));
        // Files of two commits are never mixed.
        Assert.Contains(_commit[..8], Assert.Throws<HubException>(() => hub.GetFile(Thing, "added.txt", Stop)).Message, StringComparison.Ordinal);
        Assert.Equal(_commit, Path.GetFileName(Path.GetDirectoryName(hub.GetFile(Thing, "empty", Stop))));
        Assert.Equal(next, hub.Refresh(Thing, Stop));
        Assert.Equal("{\"new\":1}", File.ReadAllText(hub.GetFile(Thing, "config.json", Stop)));
        Assert.Equal("a", File.ReadAllText(hub.GetFile(Thing, "added.txt", Stop)));
        Assert.Equal(Large(), File.ReadAllBytes(hub.GetFile(Thing, "deep/er/weights.bin", Stop)));
    }

    [Fact]
    public void A_commit_lost_to_a_rewritten_history_gives_way_to_the_branch()
    {
        using var hub = Client();
        hub.GetFile(Thing, "config.json", Stop);
        _repo.Branches.Clear();
        _repo.Forget(_commit);
        var squashed = _repo.Commit(("empty", []), ("x", "y"u8.ToArray()));
        Assert.Contains(squashed, hub.GetFile(Thing, "x", Stop), StringComparison.Ordinal);
    }

    [Fact]
    public void The_same_content_is_fetched_once()
    {
        _repo.Commit(("copy.bin", Large()));
        using var hub = Client();
        var first = hub.GetFile(Thing, "deep/er/weights.bin", Stop);
        var second = hub.GetFile(Thing, "copy.bin", Stop);
        Assert.Equal(File.ReadAllBytes(first), File.ReadAllBytes(second));
        Assert.Single(_server.Downloads);
    }

    [Fact]
    public void Without_links_files_lie_in_the_snapshot()
    {
        using var hub = Client(change: o => o with { Symlinks = false });
        var file = hub.GetFile(Thing, "deep/er/weights.bin", Stop);
        Assert.Null(new FileInfo(file).LinkTarget);
        Assert.Equal(Large(), File.ReadAllBytes(file));
        Assert.Empty(Directory.GetFiles(Path.Combine(Cache, "models--lab--thing", "blobs")));
        // A blob that another program left is copied: other names may lead to it.
        var blob = Path.Combine(Cache, "models--lab--thing", "blobs", ServedRepo.GitHash("{}"u8.ToArray()));
        File.WriteAllText(blob, "{}");
        Assert.Null(new FileInfo(hub.GetFile(Thing, "config.json", Stop)).LinkTarget);
        Assert.True(File.Exists(blob));
    }

    [Fact]
    public void The_token_goes_to_the_hub_and_nowhere_else()
    {
        using var hub = Client(HubServer.Token);
        hub.GetFile(Thing, "deep/er/weights.bin", Stop);
        Assert.All(_server.Requests.Where(r => r.Host == _server.StoreHost), r => Assert.Null(r.Authorization));
        Assert.All(_server.Requests.Where(r => r.Host != _server.StoreHost), r => Assert.Equal("Bearer hf_test", r.Authorization));
        Assert.Contains(_server.Requests, r => r.Host == _server.StoreHost);
        Assert.DoesNotContain("hf_test", hub.Options.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void A_renamed_repository_is_followed_within_the_hub()
    {
        _server.Renamed["old/name"] = "lab/thing";
        using var hub = Client();
        Assert.Equal("{}", File.ReadAllText(hub.GetFile(new HubRepo("old/name"), "config.json", Stop)));
        Assert.Equal(Large(), File.ReadAllBytes(hub.GetFile(new HubRepo("old/name"), "deep/er/weights.bin", Stop)));
    }

    [Fact]
    public void A_redirect_to_another_host_is_not_asked_for_metadata()
    {
        // Such an answer carries no commit: it is refused and its target never sees a request.
        _server.Refusals.Enqueue(c =>
        {
            c.Response.StatusCode = 302;
            c.Response.Headers.Location = $"//{_server.StoreHost}/store/x";
            return Task.CompletedTask;
        });
        using var hub = Client(HubServer.Token);
        Assert.Contains("without a commit", Assert.Throws<HubTransferException>(() => hub.GetFile(Thing, "config.json", Stop)).Message, StringComparison.Ordinal);
        Assert.DoesNotContain(_server.Requests, r => r.Host == _server.StoreHost);
    }

    [Theory]
    [InlineData(null, "lab/none", "config.json", HubProblem.RepositoryNotFound, "set HF_TOKEN")]
    [InlineData(HubServer.Token, "lab/none", "config.json", HubProblem.RepositoryNotFound, "not found")]
    [InlineData("hf_wrong", "lab/thing", "config.json", HubProblem.BadToken, "does not know the token from HF_TOKEN")]
    [InlineData(null, "lab/gated", "x", HubProblem.Gated, "accept its terms at http://127.0.0.1")]
    [InlineData(null, "lab/private", "x", HubProblem.RepositoryNotFound, "private or gated")]
    [InlineData(null, "lab/thing@v9", "config.json", HubProblem.RevisionNotFound, "no revision \"v9\"")]
    [InlineData(null, "lab/thing", "nothing.bin", HubProblem.FileNotFound, "no such file")]
    public void Every_refusal_has_its_own_line(string? token, string id, string path, HubProblem problem, string words)
    {
        _server.Add(new ServedRepo("lab/gated") { Gated = true }).Commit(("x", "1"u8.ToArray()));
        _server.Add(new ServedRepo("lab/private") { Private = true }).Commit(("x", "1"u8.ToArray()));
        using var hub = Client(token);
        var e = Assert.Throws<HubException>(() => hub.GetFile(HubRepo.Parse(id), path, Stop));
        Assert.Equal(problem, e.Problem);
        Assert.Contains(words, e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("hf_", e.Message.Replace("HF_TOKEN", "", StringComparison.Ordinal), StringComparison.Ordinal);
        Assert.DoesNotContain('\n', e.Message);
    }

    [Fact]
    public void A_gated_repository_opens_to_its_token_and_403_names_the_page()
    {
        _server.Add(new ServedRepo("lab/gated") { Gated = true }).Commit(("x", Large()));
        using var hub = Client(HubServer.Token);
        Assert.Equal(Large(), File.ReadAllBytes(hub.GetFile(new HubRepo("lab/gated"), "x", Stop)));
        _server.Refusals.Enqueue(c =>
        {
            c.Response.StatusCode = 403;
            c.Response.Headers["X-Error-Message"] = "Access to this resource is disabled.";
            return Task.CompletedTask;
        });
        var e = Assert.Throws<HubException>(() => hub.GetFile(Thing, "config.json", Stop));
        Assert.Equal(HubProblem.Denied, e.Problem);
        Assert.Contains("Access to this resource is disabled.", e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("RateLimit", "\"resolvers\";r=0;t=0.3")]
    [InlineData("Retry-After", "0")]
    public void Too_many_requests_wait_as_long_as_the_server_asks(string header, string value)
    {
        for (var i = 0; i < 2; i++) _server.Refusals.Enqueue(c => TooMany(c, header, value));
        using var hub = Client();
        var began = System.Diagnostics.Stopwatch.StartNew();
        hub.GetFile(Thing, "config.json", Stop);
        if (header == "RateLimit") Assert.InRange(began.Elapsed.TotalSeconds, 0.6, 20);
        Assert.Equal(2, _notes.Count(n => n.Contains("too many requests", StringComparison.Ordinal)));
    }

    [Fact]
    public void A_wait_that_is_too_long_is_an_error_with_the_way_out()
    {
        _server.Refusals.Enqueue(c => TooMany(c, "RateLimit", "\"resolvers\";r=0;t=4000"));
        using var hub = Client();
        var e = Assert.Throws<HubTransferException>(() => hub.GetFile(Thing, "config.json", Stop));
        Assert.Contains("too many requests", e.Message, StringComparison.Ordinal);
        Assert.Contains("HF_TOKEN", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Passing_failures_of_the_server_are_tried_again()
    {
        for (var i = 0; i < 3; i++) _server.Refusals.Enqueue(Unavailable);
        using var hub = Client();
        hub.GetFile(Thing, "config.json", Stop);
        for (var i = 0; i < 10; i++) _server.Refusals.Enqueue(Unavailable);
        Assert.Contains("503", Assert.Throws<HubTransferException>(() => hub.GetFile(Thing, "empty", Stop)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_hub_that_cannot_be_reached_is_named()
    {
        using var hub = Client(change: o => o with { Endpoint = "http://127.0.0.1:9", Retries = 1 });
        var e = Assert.Throws<HubTransferException>(() => hub.GetFile(Thing, "config.json", Stop));
        Assert.Contains("http://127.0.0.1:9: cannot be reached", e.Message, StringComparison.Ordinal);
        Assert.Contains("HF_HUB_OFFLINE", e.Message, StringComparison.Ordinal);
        Assert.False(Directory.Exists(Cache));
    }

    [Theory]
    [InlineData("../../evil")]
    [InlineData("/etc/passwd")]
    [InlineData("a/../../b")]
    [InlineData("a//b")]
    [InlineData("a\\..\\b")]
    [InlineData(".")]
    [InlineData("a\nb")]
    [InlineData("")]
    public void Names_that_lead_out_of_the_cache_are_refused(string path)
    {
        using var hub = Client();
        Assert.Equal(HubProblem.BadName, Assert.Throws<HubException>(() => hub.GetFile(Thing, path, Stop)).Problem);
        if (path.Length > 0) Assert.Equal(HubProblem.BadName, Assert.Throws<HubException>(() => new HubRepo("lab/thing", revision: path)).Problem);
        Assert.Empty(_server.Requests);
    }

    [Theory]
    [InlineData("..")]
    [InlineData("a/b/c")]
    [InlineData("a--b")]
    [InlineData("a/../b")]
    [InlineData("-a/b")]
    [InlineData("a/b.git")]
    [InlineData("a b")]
    public void Ids_that_no_repository_has_are_refused(string id) =>
        Assert.Equal(HubProblem.BadName, Assert.Throws<HubException>(() => new HubRepo(id)).Problem);

    [Fact]
    public void A_tree_or_an_etag_that_leads_out_of_the_cache_is_refused()
    {
        _repo.Commit(("../../../evil", "x"u8.ToArray()));
        using var hub = Client();
        Assert.Equal(HubProblem.BadName, Assert.Throws<HubException>(() => hub.GetFiles(Thing, [], Stop)).Problem);
        _server.ForcedETag = "../../../evil";
        Assert.Contains("ETag", Assert.Throws<HubTransferException>(() => hub.GetFile(Thing, "config.json", Stop)).Message, StringComparison.Ordinal);
        Assert.False(File.Exists(_temp["evil"]));
    }

    [Fact]
    public void Trees_come_in_pages_and_patterns_choose()
    {
        _repo.Commit([.. Enumerable.Range(0, 7).Select(i => ($"a/{i}.json", Encoding.UTF8.GetBytes($"{i}")))]);
        _server.PageSize = 3;
        using var hub = Client();
        var files = hub.ListFiles(Thing, cancellation: Stop);
        Assert.Equal(10, files.Count);
        Assert.Equal(new HubFile("deep/er/weights.bin", 50_000, ServedRepo.Sha256(Large()), true), files.Single(f => f.IsLarge));
        Assert.Equal(7, hub.ListFiles(Thing, "a", Stop).Count);
        var (folder, names) = hub.GetFiles(Thing, ["a/*.json", "config.json"], Stop);
        Assert.Equal(8, names.Count);
        Assert.All(names, n => Assert.True(File.Exists(Path.Combine(folder, n))));
        Assert.Contains("no file is named like *.bin5", Assert.Throws<HubException>(() => hub.GetFiles(Thing, ["*.bin5"], Stop)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Progress_counts_to_the_end()
    {
        var seen = new List<HubProgress>();
        using var hub = Client(change: o => o with { Progress = seen.Add });
        hub.GetFile(Thing, "deep/er/weights.bin", Stop);
        Assert.Equal((0L, 50_000L, false), (seen[0].Bytes, seen[0].TotalBytes, seen[0].Done));
        Assert.True(seen[^1].Done);
        Assert.Equal(seen.Select(s => s.Bytes).Order(), seen.Select(s => s.Bytes));
    }

    [Fact]
    public void The_cache_tells_what_it_holds_and_forgets_on_request()
    {
        using var hub = Client();
        hub.GetFile(Thing, "deep/er/weights.bin", Stop);
        hub.GetFile(Thing, "config.json", Stop);
        Directory.CreateDirectory(Path.Combine(Cache, "something-else"));
        var repo = Assert.Single(hub.Cache.Repositories());
        Assert.Equal(("lab/thing", HubRepoKind.Model, 50_002L, 2, 0L), (repo.Id, repo.Kind, repo.Bytes, repo.Files, repo.UnfinishedBytes));
        var (commit, names) = Assert.Single(repo.Revisions);
        Assert.Equal((_commit, "main"), (commit, Assert.Single(names)));
        Assert.True(hub.Cache.Remove(Thing));
        Assert.False(hub.Cache.Remove(Thing));
        Assert.Empty(hub.Cache.Repositories());
    }

    private static Task TooMany(HttpContext context, string header, string value)
    {
        context.Response.StatusCode = 429;
        context.Response.Headers[header] = value;
        return Task.CompletedTask;
    }

    private static Task Unavailable(HttpContext context)
    {
        context.Response.StatusCode = 503;
        return Task.CompletedTask;
    }
}
