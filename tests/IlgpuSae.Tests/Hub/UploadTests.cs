using IlgpuSae.Hub;
using Xunit;

namespace IlgpuSae.Tests.Hub;

/// <summary>Uploads: what is small goes into the commit, what is large into the store, in one piece or in parts; all or nothing.</summary>
public sealed class UploadTests : IDisposable
{
    private readonly TempFolder _temp = new();
    private readonly HubServer _server = new();

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    public void Dispose()
    {
        _server.Dispose();
        _temp.Dispose();
    }

    private HubClient Client(string? token = HubServer.Token, Action<HubProgress>? progress = null) => new(_server.Options(_temp["hub"], token) with { Progress = progress });

    [Theory]
    [InlineData(int.MaxValue)]
    [InlineData(2000)]
    public void What_was_uploaded_comes_back(int partsFrom)
    {
        _server.PartsFrom = partsFrom;
        var large = DownloadTests.Large(count: 5_000);
        _temp.Write("large.bin", large);
        var seen = new List<HubProgress>();
        using var hub = Client(progress: seen.Add);
        var repo = new HubRepo("tester/new");
        var commit = hub.Upload(repo,
        [
            HubUploadFile.FromFile("a/large.bin", _temp["large.bin"]), HubUploadFile.FromBytes("a/cfg.json", "{}"u8.ToArray()),
            HubUploadFile.FromBytes("skip.ignored", "x"u8.ToArray()),
        ], "Add \"it\"", isPrivate: true, cancellation: Stop);
        var served = _server.Repo("tester/new");
        Assert.True(served.Private);
        Assert.Equal(served.Branches["main"], commit.Hash);
        Assert.Equal(["a/cfg.json", "a/large.bin"], commit.Files.Order(StringComparer.Ordinal));
        Assert.Equal(["Add \"it\""], served.Summaries);
        Assert.Equal([ServedRepo.Sha256(large)], _server.Verified);
        Assert.Equal(large, File.ReadAllBytes(hub.GetFile(repo, "a/large.bin", Stop)));
        Assert.Equal("{}", File.ReadAllText(hub.GetFile(repo, "a/cfg.json", Stop)));
        Assert.Contains(seen, p => p.Upload && p.Done);
        // The token stays with the hub; the store's addresses are signed.
        Assert.All(_server.Requests.Where(r => r.Host == _server.StoreHost), r => Assert.Null(r.Authorization));
        // The store has the content already: nothing is sent twice.
        var puts = _server.Requests.Count(r => r.Method == "PUT");
        hub.Upload(repo, [HubUploadFile.FromBytes("b.bin", large)], "again", cancellation: Stop);
        Assert.Equal(puts, _server.Requests.Count(r => r.Method == "PUT"));
    }

    [Fact]
    public void A_store_that_fails_once_is_asked_again_and_one_that_fails_leaves_nothing()
    {
        var large = DownloadTests.Large(count: 5_000);
        _server.Add(new ServedRepo("tester/there")).Commit(("x", "1"u8.ToArray()));
        static Task Fail(Microsoft.AspNetCore.Http.HttpContext c)
        {
            c.Response.StatusCode = 503;
            return Task.CompletedTask;
        }

        _server.StoreRefusals.Enqueue(Fail);
        using var hub = Client();
        hub.Upload(new HubRepo("tester/there"), [HubUploadFile.FromBytes("w.bin", large)], "one", cancellation: Stop);
        for (var i = 0; i < 20; i++) _server.StoreRefusals.Enqueue(Fail);
        var other = DownloadTests.Large(2, 5_000);
        Assert.Contains("503", Assert.Throws<HubTransferException>(() => hub.Upload(new HubRepo("tester/there"), [HubUploadFile.FromBytes("w.bin", other)], "two", cancellation: Stop)).Message, StringComparison.Ordinal);
        Assert.Equal(["one"], _server.Repo("tester/there").Summaries);
    }

    [Fact]
    public void Refusals_are_told()
    {
        HubUploadFile[] file = [HubUploadFile.FromBytes("x", "1"u8.ToArray())];
        using var anonymous = Client(token: null);
        Assert.Equal(HubProblem.BadToken, Assert.Throws<HubException>(() => anonymous.Upload(new HubRepo("tester/a"), file, "s", cancellation: Stop)).Problem);
        using var hub = Client();
        var e = Assert.Throws<HubException>(() => hub.Upload(new HubRepo("others/a"), file, "s", cancellation: Stop));
        Assert.Equal(HubProblem.Denied, e.Problem);
        Assert.Contains("under the namespace", e.Message, StringComparison.Ordinal);
        Assert.Throws<HubException>(() => hub.Upload(new HubRepo("tester/a"), [HubUploadFile.FromBytes("../x", [])], "s", cancellation: Stop));
        Assert.Contains("twice", Assert.Throws<InvalidInputException>(() => hub.Upload(new HubRepo("tester/a"), [file[0], file[0]], "s", cancellation: Stop)).Message, StringComparison.Ordinal);
        Assert.Throws<InvalidFileException>(() => HubUploadFile.FromFile("x", _temp["none"]));
    }

    [Fact]
    public void The_account_of_a_token_is_known()
    {
        using var hub = Client();
        var account = hub.WhoAmI(Stop)!;
        Assert.Equal(("tester", "lab", "mine", "write"), (account.Name, Assert.Single(account.Organizations), account.TokenName, account.TokenRole));
        using var anonymous = Client(token: null);
        Assert.Null(anonymous.WhoAmI(Stop));
        using var wrong = Client(token: "hf_wrong");
        Assert.Equal(HubProblem.BadToken, Assert.Throws<HubException>(() => wrong.WhoAmI(Stop)).Problem);
    }

    [Fact]
    public void The_environment_is_read_as_Python_reads_it()
    {
        static HubOptions Read(params (string Name, string? Value)[] variables) =>
            HubOptions.FromEnvironment(name => variables.FirstOrDefault(v => v.Name == name).Value);

        var home = _temp.Path;
        _temp.Write("token", " from-file\n");
        var options = Read(("HF_HOME", home));
        Assert.Equal((Path.Combine(home, "hub"), "from-file", "https://huggingface.co", false), (options.CacheFolder, options.Token, options.Endpoint, options.Offline));
        Assert.Equal("from-variable", Read(("HF_HOME", home), ("HF_TOKEN", "from-variable\n")).Token);
        Assert.Equal("old", Read(("HUGGING_FACE_HUB_TOKEN", "old")).Token);
        Assert.Null(Read(("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")).Token);
        Assert.Equal("/c", Read(("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")).CacheFolder);
        Assert.Equal("/u/.cache/huggingface/hub", Read(("HOME", "/u")).CacheFolder);
        Assert.Equal("/x/huggingface/hub", Read(("HOME", "/u"), ("XDG_CACHE_HOME", "/x")).CacheFolder);
        Assert.Equal("/u/hf/hub", Read(("HOME", "/u"), ("HF_HOME", "~/hf")).CacheFolder);
        Assert.True(Read(("TRANSFORMERS_OFFLINE", "yes")).Offline);
        Assert.False(Read(("HF_HUB_OFFLINE", "0")).Offline);
        Assert.Equal("https://mirror.example/hf", Read(("HF_ENDPOINT", "https://mirror.example/hf/")).Endpoint);
        Assert.Equal(TimeSpan.FromSeconds(2.5), Read(("HF_HUB_DOWNLOAD_TIMEOUT", "2.5")).DownloadTimeout);
        Assert.Throws<InvalidInputException>(() => Read(("HF_ENDPOINT", "mirror")));
        Assert.Throws<InvalidInputException>(() => Read(("HF_HUB_ETAG_TIMEOUT", "soon")));
        Assert.DoesNotContain("bad token", Assert.Throws<InvalidInputException>(() => Read(("HF_TOKEN", "bad token"))).Message, StringComparison.Ordinal);
    }
}
