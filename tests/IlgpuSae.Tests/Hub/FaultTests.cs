using IlgpuSae.Hub;
using Microsoft.AspNetCore.Http;
using Xunit;

namespace IlgpuSae.Tests.Hub;

/// <summary>
/// Downloads that go wrong. Whatever happens, the next run ends right, and no file is ever handed out whose content is
/// not the one the hub named.
/// </summary>
public sealed class FaultTests : IDisposable
{
    private const int Size = 50_000;
    private readonly TempFolder _temp = new();
    private readonly HubServer _server = new();
    private readonly byte[] _content = DownloadTests.Large(count: Size);

    public FaultTests() => _server.Add(new ServedRepo("lab/thing")).Commit(("weights.bin", _content), ("small.txt", "hello"u8.ToArray()));

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    private static HubRepo Thing => new("lab/thing");

    private string Cache => _temp["hub"];

    private string Unfinished => Path.Combine(Cache, "models--lab--thing", "blobs", ServedRepo.Sha256(_content) + ".incomplete");

    public static TheoryData<int> Tenths => [.. Enumerable.Range(0, 11)];

    public void Dispose()
    {
        _server.Dispose();
        _temp.Dispose();
    }

    private HubClient Client(Func<HubOptions, HubOptions>? change = null)
    {
        var options = _server.Options(Cache);
        return new HubClient(change?.Invoke(options) ?? options);
    }

    private void EndsRight()
    {
        using var hub = Client();
        Assert.Equal(_content, File.ReadAllBytes(hub.GetFile(Thing, "weights.bin", Stop)));
        Assert.False(File.Exists(Unfinished));
    }

    [Theory]
    [MemberData(nameof(Tenths))]
    public void A_connection_cut_at_every_tenth_is_gone_on_with_in_the_next_run(int tenth)
    {
        var cut = tenth == 10 ? Size - 1 : Size * tenth / 10;
        _server.Cuts.Enqueue(cut);
        using (var hub = Client(o => o with { Retries = 0 }))
        {
            var e = Assert.Throws<HubTransferException>(() => hub.GetFile(Thing, "weights.bin", Stop));
            // Cut before the first byte, the answer's head may be lost as well.
            Assert.Contains(cut > 0 ? "run again to go on" : "127.0.0.1", cut > 0 ? e.Message : e.Message + _server.StoreHost, StringComparison.Ordinal);
            Assert.Null(hub.Cache.Find(Thing, "weights.bin"));
        }

        Assert.Equal(cut, new FileInfo(Unfinished).Length);
        EndsRight();
        Assert.Equal(cut > 0 ? $"bytes={cut}-" : null, _server.Downloads.Last().Range);
    }

    [Fact]
    public void A_connection_cut_again_and_again_is_gone_on_with_in_one_run()
    {
        foreach (var cut in Enumerable.Range(1, 12).Select(i => Size * i / 13)) _server.Cuts.Enqueue(cut);
        EndsRight();
        Assert.Equal(13, _server.Downloads.Count());
    }

    [Fact]
    public void A_server_without_ranges_starts_anew()
    {
        _server.Ranges = false;
        _server.Cuts.Enqueue(20_000);
        EndsRight();
    }

    [Fact]
    public void What_an_earlier_run_left_is_not_trusted()
    {
        Directory.CreateDirectory(Path.GetDirectoryName(Unfinished)!);
        File.WriteAllBytes(Unfinished, new byte[30_000]);
        EndsRight();
        using (var hub = Client()) hub.Cache.Remove(Thing);
        Directory.CreateDirectory(Path.GetDirectoryName(Unfinished)!);
        File.WriteAllBytes(Unfinished, new byte[Size + 5]);
        EndsRight();
        using (var hub = Client()) hub.Cache.Remove(Thing);
        Directory.CreateDirectory(Path.GetDirectoryName(Unfinished)!);
        File.WriteAllBytes(Unfinished, _content);
        var downloads = _server.Downloads.Count();
        EndsRight();
        Assert.Equal(downloads, _server.Downloads.Count());
    }

    [Fact]
    public void Content_of_a_wrong_hash_is_never_served()
    {
        byte[] Flip(byte[] b)
        {
            b = [.. b];
            b[b.Length / 2] ^= 1;
            return b;
        }

        // Once: fetched anew. Twice: an error, and nothing stays.
        _server.Damages.Enqueue(Flip);
        EndsRight();
        using (var hub = Client()) hub.Cache.Remove(Thing);
        foreach (var name in new[] { "weights.bin", "small.txt" })
        {
            _server.Damages.Enqueue(Flip);
            _server.Damages.Enqueue(Flip);
            using var hub = Client();
            var e = Assert.Throws<HubTransferException>(() => hub.GetFile(Thing, name, Stop));
            Assert.Contains(name == "weights.bin" ? "SHA-256" : "git SHA-1", e.Message, StringComparison.Ordinal);
            Assert.Null(hub.Cache.Find(Thing, name));
            Assert.Empty(Directory.GetFiles(Path.Combine(Cache, "models--lab--thing", "blobs")));
        }

        EndsRight();
    }

    [Theory]
    [InlineData(-1)]
    [InlineData(1)]
    [InlineData(10_000_000)]
    public void Content_of_a_wrong_size_is_never_served(int difference)
    {
        byte[] Resize(byte[] b)
        {
            Array.Resize(ref b, b.Length + difference);
            return b;
        }

        for (var i = 0; i < 3; i++) _server.Damages.Enqueue(Resize);
        using (var hub = Client(o => o with { Retries = 0 }))
        {
            Assert.Throws<HubTransferException>(() => hub.GetFile(Thing, "weights.bin", Stop));
            Assert.Null(hub.Cache.Find(Thing, "weights.bin"));
        }

        Assert.True(!File.Exists(Unfinished) || new FileInfo(Unfinished).Length < Size);
        _server.Damages.Clear();
        EndsRight();
    }

    [Fact]
    public void Content_of_unknown_size_is_checked_by_its_hash()
    {
        _server.Sizes = false;
        _server.Cuts.Enqueue(20_000);
        EndsRight();
        using (var hub = Client()) hub.Cache.Remove(Thing);
        // All of it came, and the run ended before it could be named.
        Directory.CreateDirectory(Path.GetDirectoryName(Unfinished)!);
        File.WriteAllBytes(Unfinished, _content);
        EndsRight();
    }

    [Fact]
    public void A_silent_server_is_left_and_asked_again()
    {
        _server.StoreRefusals.Enqueue(async c =>
        {
            c.Response.ContentLength = Size;
            await c.Response.Body.WriteAsync(_content.AsMemory(0, 1000), c.RequestAborted);
            await c.Response.Body.FlushAsync(c.RequestAborted);
            await Task.Delay(TimeSpan.FromSeconds(30), c.RequestAborted);
        });
        var notes = new List<string>();
        using var hub = Client(o => o with { DownloadTimeout = TimeSpan.FromSeconds(1), Note = notes.Add });
        Assert.Equal(_content, File.ReadAllBytes(hub.GetFile(Thing, "weights.bin", Stop)));
        Assert.Contains(notes, n => n.Contains("nothing came for 1 s at byte 1,000", StringComparison.Ordinal));
    }

    [Fact]
    public void A_signed_address_that_expired_is_asked_for_again()
    {
        _server.StoreRefusals.Enqueue(c =>
        {
            c.Response.StatusCode = StatusCodes.Status403Forbidden;
            return Task.CompletedTask;
        });
        EndsRight();
        Assert.Equal(2, _server.Requests.Count(r => r.Method == "HEAD"));
    }

    [Fact]
    public void An_interrupted_download_keeps_what_came()
    {
        _server.Slow = (5000, TimeSpan.FromMilliseconds(20));
        using var stop = new CancellationTokenSource();
        using (var hub = Client(o => o with { Progress = p => { if (p.Bytes >= 10_000) stop.Cancel(); } }))
            Assert.ThrowsAny<OperationCanceledException>(() => hub.GetFile(Thing, "weights.bin", stop.Token));
        Assert.InRange(new FileInfo(Unfinished).Length, 10_000, Size - 1);
        _server.Slow = null;
        EndsRight();
    }

    [Fact]
    public async Task Many_at_once_fetch_a_file_once()
    {
        _server.Slow = (10_000, TimeSpan.FromMilliseconds(10));
        var notes = new System.Collections.Concurrent.ConcurrentBag<string>();
        var files = await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => Task.Run(() =>
        {
            using var hub = Client(o => o with { Note = notes.Add });
            return File.ReadAllBytes(hub.GetFile(Thing, "weights.bin", Stop));
        }, Stop)));
        Assert.All(files, f => Assert.Equal(_content, f));
        Assert.Single(_server.Downloads);
        Assert.Contains(notes, n => n.Contains("another process is fetching it", StringComparison.Ordinal));
    }

    [Fact]
    public void A_disk_that_fills_up_is_said_and_the_next_run_goes_on()
    {
        // A stream that has no more room after 20,000 bytes, as the system reports it.
        using (var hub = new HubClient(_server.Options(Cache), path => new FullDisk(path, 20_000)))
        {
            var e = Assert.Throws<IlgpuSaeException>(() => hub.GetFile(Thing, "weights.bin", Stop));
            Assert.Contains("the disk is full", e.Message, StringComparison.Ordinal);
            Assert.Null(hub.Cache.Find(Thing, "weights.bin"));
        }

        Assert.InRange(new FileInfo(Unfinished).Length, 0, 20_000);
        EndsRight();
    }

    /// <summary>A file on a disk that is full after so many bytes.</summary>
    private sealed class FullDisk(string path, long room) : FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read, 0)
    {
        public override void Write(byte[] buffer, int offset, int count)
        {
            var fits = (int)Math.Min(count, room - Position);
            base.Write(buffer, offset, fits);
            if (fits < count) throw new IOException("No space left on device", OperatingSystem.IsWindows() ? unchecked((int)0x80070070) : 28);
        }
    }
}
