using System.Buffers;
using System.Diagnostics;
using System.Globalization;
using System.Net;
using IlgpuSae.Files;

namespace IlgpuSae.Hub;

/// <summary>
/// Brings one file's content to the disk. It grows in <c>blobs/ETAG.incomplete</c>; what an earlier run, or Python's
/// library, left there is gone on with. Only content of the announced size and hash gets its final name.
/// </summary>
/// <param name="http">Requests.</param>
/// <param name="options">Timeouts, tries, progress.</param>
internal sealed class HubDownload(HubHttp http, HubOptions options)
{
    private const int BufferBytes = 1 << 20;

    /// <summary>Opens the growing file. Tests put a full disk in its place.</summary>
    public Func<string, Stream> OpenUnfinished { get; init; } = path =>
        new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read, bufferSize: 0);

    /// <summary>Fetches content and gives it its name. The caller holds the content's lock.</summary>
    /// <param name="file">What the hub said of it.</param>
    /// <param name="blob">The final name.</param>
    /// <param name="repo">The repository, for messages.</param>
    /// <param name="path">The file's name in it, for messages.</param>
    /// <param name="again">Asks the hub anew where the content is: signed addresses expire.</param>
    /// <param name="cancellation">Stops; what has come is kept for the next run.</param>
    /// <exception cref="IlgpuSaeException">The network, the server or the disk failed, or the content is wrong.</exception>
    public void Run(FileMetadata file, string blob, HubRepo repo, string path, Func<FileMetadata> again, CancellationToken cancellation)
    {
        var unfinished = blob + CachedRepo.Unfinished;
        HubCache.Writing(unfinished, () => Directory.CreateDirectory(Path.GetDirectoryName(unfinished)!));
        for (var wrong = 0; ; wrong++)
        {
            var problem = Fill(file, unfinished, repo, path, again, cancellation);
            if (problem is null) break;
            // What was wrong may have come from an earlier run, or have been damaged on the way: once from the start.
            HubCache.Writing(unfinished, () => File.Delete(unfinished));
            if (wrong > 0) throw new HubTransferException($"{repo}: {path}: {problem}, twice; nothing was kept; try again later");
            options.Note?.Invoke($"{path}: {problem}; fetching it anew");
        }

        HubCache.Writing(blob, () => File.Move(unfinished, blob, overwrite: true));
    }

    /// <summary>Brings the file to its end.</summary>
    /// <returns>What is wrong with the content; null if it is right.</returns>
    private string? Fill(FileMetadata file, string unfinished, HubRepo repo, string path, Func<FileMetadata> again, CancellationToken cancellation)
    {
        using var check = new ContentCheck(file.ETag, file.Bytes);
        using var stream = Open(unfinished);
        Resume(stream, check, file.Bytes, unfinished);
        RequireRoom(file.Bytes - stream.Position, unfinished);
        var progress = new Meter(options.Progress, repo.Id, path, stream.Position, file.Bytes);
        progress.Report(stream.Position);
        var (tries, before) = (0, stream.Position);
        while (file.Bytes is not { } size || stream.Position < size)
        {
            string failure;
            try
            {
                failure = Transfer(file, stream, check, progress, unfinished, repo, path, cancellation) ?? "";
                if (failure.Length == 0) break;
            }
            catch (ExpiredException)
            {
                failure = "the address of the content has expired";
                file = again() is var fresh && fresh.ETag == file.ETag ? fresh : throw new HubTransferException($"{repo}: {path}: the file changed while it was fetched; run again");
            }

            // A connection that brings something is worth another try; one that never does is not.
            if (stream.Position > before) tries = 0;
            before = stream.Position;
            if (tries++ >= options.Retries)
            {
                throw new HubTransferException(string.Create(CultureInfo.InvariantCulture,
                    $"{repo}: {path}: {failure} at byte {stream.Position:N0}{(file.Bytes is { } n ? $" of {n:N0}" : "")}; what came is kept: run again to go on"));
            }

            options.Note?.Invoke(string.Create(CultureInfo.InvariantCulture, $"{path}: {failure} at byte {stream.Position:N0}; going on from there"));
            HubHttp.Pause(http.Backoff(tries - 1), cancellation);
        }

        if (check.Problem() is { } problem) return problem;
        HubCache.Writing(unfinished, () => Flush(stream));
        progress.Report(stream.Position);
        return null;
    }

    /// <summary>One connection's worth of content.</summary>
    /// <returns>Why it ended early; null if it came to the end.</returns>
    private string? Transfer(FileMetadata file, Stream stream, ContentCheck check, Meter progress, string unfinished, HubRepo repo, string path, CancellationToken cancellation)
    {
        using var response = http.Get(file.Location, stream.Position, options.DownloadTimeout, cancellation);
        if (response.StatusCode == HttpStatusCode.RequestedRangeNotSatisfiable && stream.Position > 0)
        {
            // Either everything is there already and the server had not said how much that is, or the rest is gone.
            if (file.Bytes is null && response.Content.Headers.ContentRange?.Length == stream.Position) return null;
            Restart(stream, check, unfinished);
            return "the server has no such range";
        }

        if (response.StatusCode is HttpStatusCode.Forbidden or HttpStatusCode.Unauthorized or HttpStatusCode.Gone && !http.IsHub(file.Location)) throw new ExpiredException();
        if (!response.IsSuccessStatusCode) throw HubErrors.Explain(response, repo, path, options);
        var begins = response.StatusCode == HttpStatusCode.PartialContent ? response.Content.Headers.ContentRange?.From ?? -1 : 0;
        if (begins != stream.Position)
        {
            Restart(stream, check, unfinished);
            if (begins != 0) return "the server sent another range than was asked for";
        }

        var buffer = ArrayPool<byte>.Shared.Rent(BufferBytes);
        try
        {
            using var content = Reading(() => response.Content.ReadAsStream(cancellation), cancellation, out var failure);
            while (content is not null)
            {
                var n = Reading(() => ReadWithin(content, buffer, cancellation), cancellation, out failure);
                if (failure is not null) return failure;
                if (n == 0) return file.Bytes is { } size && stream.Position < size ? "the connection ended" : null;
                HubCache.Writing(unfinished, () => stream.Write(buffer, 0, n));
                check.Add(buffer.AsSpan(0, n));
                progress.Report(stream.Position);
                // More than was announced is wrong already; a server without end must not fill the disk.
                if (stream.Position > file.Bytes) return null;
            }

            return failure;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private int ReadWithin(Stream content, byte[] buffer, CancellationToken cancellation)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(options.DownloadTimeout);
        return content.ReadAsync(buffer.AsMemory(0, BufferBytes), limit.Token).AsTask().GetAwaiter().GetResult();
    }

    /// <summary>Does something with the network; its failures become words, as the transfer goes on after them.</summary>
    private T? Reading<T>(Func<T> work, CancellationToken cancellation, out string? failure)
    {
        failure = null;
        try
        {
            return work();
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            failure = string.Create(CultureInfo.InvariantCulture, $"nothing came for {options.DownloadTimeout.TotalSeconds:0.#} s");
        }
        catch (Exception e) when (e is IOException or HttpRequestException)
        {
            failure = $"the connection broke ({HubHttp.Reason(e)})";
        }

        return default;
    }

    private Stream Open(string unfinished)
    {
        Stream? stream = null;
        HubCache.Writing(unfinished, () => stream = OpenUnfinished(unfinished));
        return stream!;
    }

    /// <summary>Takes what an earlier run left, unless it is more than the file has.</summary>
    private static void Resume(Stream stream, ContentCheck check, long? size, string unfinished)
    {
        if (stream.Length > size) Restart(stream, check, unfinished);
        var buffer = ArrayPool<byte>.Shared.Rent(BufferBytes);
        try
        {
            stream.Position = 0;
            while (stream.Read(buffer) is var n and > 0) check.Add(buffer.AsSpan(0, n));
        }
        catch (Exception e) when (ReadFailure.Explain(unfinished, e) is { } explained)
        {
            throw explained;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private static void Restart(Stream stream, ContentCheck check, string unfinished)
    {
        HubCache.Writing(unfinished, () => stream.SetLength(0));
        stream.Position = 0;
        check.Restart();
    }

    private static void Flush(Stream stream)
    {
        if (stream is FileStream file) file.Flush(flushToDisk: true);
        else stream.Flush();
    }

    /// <summary>A disk that is too small is worth saying before gigabytes have come.</summary>
    private static void RequireRoom(long? bytes, string unfinished)
    {
        if (bytes is not > 0) return;
        long free;
        try
        {
            free = new DriveInfo(Path.GetDirectoryName(Path.GetFullPath(unfinished))!).AvailableFreeSpace;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            return;
        }

        if (free < bytes)
        {
            throw new IlgpuSaeException(string.Create(CultureInfo.InvariantCulture,
                $"{Path.GetDirectoryName(unfinished)}: the disk is too full: {bytes:N0} bytes are to come, {free:N0} are free; free some space or set HF_HUB_CACHE to another disk"));
        }
    }

    /// <summary>A signed address that the content's host no longer accepts.</summary>
    private sealed class ExpiredException : Exception;

    /// <summary>Counts bytes for the progress callback, ten times a second at most.</summary>
    private sealed class Meter(Action<HubProgress>? show, string repository, string path, long start, long? total)
    {
        private readonly long _began = Stopwatch.GetTimestamp();
        private long _shown;

        public void Report(long bytes)
        {
            if (show is null || (bytes != total && bytes != start && Stopwatch.GetElapsedTime(_shown).TotalSeconds < 0.1)) return;
            _shown = Stopwatch.GetTimestamp();
            var seconds = Stopwatch.GetElapsedTime(_began).TotalSeconds;
            show(new HubProgress(repository, path, bytes, total, seconds > 0 ? Math.Max(0, bytes - start) / seconds : 0, Upload: false));
        }
    }
}
