using System.Globalization;
using System.Text;

namespace IlgpuSae.Files;

/// <summary>
/// Files that are whole or absent. The bytes go into <c>NAME.partial-XXXXXXXX</c> beside the final name, are flushed
/// to the disk, and the partial file is renamed over the final name, which file systems do in one step. Whatever
/// fails, the partial file is removed and an older file under the final name stays as it was.
/// </summary>
public static class AtomicFile
{
    /// <summary>Writes a file, or nothing. A missing parent folder is created; an existing file is replaced.</summary>
    /// <param name="path">The final name. A link is followed; a device (<c>/dev/null</c>) is written to directly.</param>
    /// <param name="write">Writes the content to the stream, front to back.</param>
    /// <param name="bytesNeeded">The size of the content if it is known; only for the message when the disk is full.</param>
    /// <exception cref="InvalidInputException">The name is a folder, or may not be written to.</exception>
    /// <exception cref="IlgpuSaeException">The disk is full or fails.</exception>
    public static void Write(string path, Action<Stream> write, long bytesNeeded = 0)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        ArgumentNullException.ThrowIfNull(write);
        string? partial = null;
        long written = 0;
        var done = false;
        try
        {
            if (IsDevice(path))
            {
                using var device = new FileStream(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
                write(device);
                device.Flush();
                done = true;
                return;
            }

            if (Directory.Exists(path)) throw new InvalidInputException($"{path}: is a folder, a file is to be written there; give another name");
            var target = FollowLinks(path);
            if (Path.GetDirectoryName(target) is { Length: > 0 } parent) Directory.CreateDirectory(parent);
            partial = PartialName(target);
            using (var stream = new FileStream(partial, FileMode.CreateNew, FileAccess.Write, FileShare.Read, 1 << 16))
            {
                try
                {
                    write(stream);
                    stream.Flush(flushToDisk: true);
                }
                catch
                {
                    written = Position(stream);
                    throw;
                }
            }

            File.Move(partial, target, overwrite: true);
            done = true;
        }
        catch (Exception e) when (Explain(path, e, Math.Max(bytesNeeded, written)) is { } explained)
        {
            throw explained;
        }
        finally
        {
            if (!done && partial is not null) TryDelete(partial);
        }
    }

    /// <summary>Writes text as UTF-8 without a byte-order mark, or nothing.</summary>
    /// <param name="path">The final name.</param>
    /// <param name="text">The whole content.</param>
    /// <exception cref="IlgpuSaeException">As <see cref="Write"/>.</exception>
    public static void WriteText(string path, string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        var bytes = new UTF8Encoding(false).GetBytes(text);
        Write(path, s => s.Write(bytes), bytes.Length);
    }

    /// <summary>A name beside <paramref name="path"/> that nobody uses, recognisable as unfinished work.</summary>
    internal static string PartialName(string path, string kind = "partial") =>
        $"{Path.TrimEndingDirectorySeparator(path)}.{kind}-{Random.Shared.NextInt64(1L << 32).ToString("x8", CultureInfo.InvariantCulture)}";

    /// <summary>
    /// What the user is told about a failure of the file system; null for failures that are none (they pass through).
    /// </summary>
    internal static IlgpuSaeException? Explain(string path, Exception e, long bytesNeeded) => e switch
    {
        UnauthorizedAccessException => new InvalidInputException($"{path}: no permission to write here; choose another place or change its rights", e),
        DirectoryNotFoundException => new InvalidInputException($"{path}: the folder vanished while writing; create it and run again", e),
        PathTooLongException => new InvalidInputException($"{path}: the name is too long for this file system", e),
        IOException io when IsDiskFull(io) => new IlgpuSaeException(
            string.Create(CultureInfo.InvariantCulture, $"{path}: the disk is full: {bytesNeeded:N0} bytes are needed{Free(path)}; free some space or write elsewhere"), e),
        IOException => new IlgpuSaeException($"{path}: cannot be written: {OneLine(e.Message)}", e),
        NotSupportedException or ArgumentException when path.Contains('\0', StringComparison.Ordinal) => new InvalidInputException("the file name contains a NUL character", e),
        _ => null,
    };

    /// <summary>Cuts a message of the system to one line.</summary>
    internal static string OneLine(string message) => message.ReplaceLineEndings(" ").Trim();

    /// <summary>ENOSPC and EDQUOT on Linux (28, 122) and macOS (28, 69), ERROR_DISK_FULL and ERROR_HANDLE_DISK_FULL on Windows.</summary>
    private static bool IsDiskFull(IOException e) => OperatingSystem.IsWindows()
        ? e.HResult is unchecked((int)0x80070070) or unchecked((int)0x80070027)
        : e.HResult is 28 || (e.HResult == (OperatingSystem.IsMacOS() ? 69 : 122));

    private static string Free(string path)
    {
        try
        {
            var folder = Path.GetDirectoryName(Path.GetFullPath(path));
            return folder is null ? "" : string.Create(CultureInfo.InvariantCulture, $", {new DriveInfo(folder).AvailableFreeSpace:N0} are free");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            return "";
        }
    }

    /// <summary>Devices cannot be replaced by a rename: as the administrator that would even destroy them.</summary>
    private static bool IsDevice(string path)
    {
        if (OperatingSystem.IsWindows()) return false;
        var full = Path.GetFullPath(path);
        return full.StartsWith("/dev/", StringComparison.Ordinal) && !full.StartsWith("/dev/shm/", StringComparison.Ordinal) && File.Exists(full);
    }

    private static string FollowLinks(string path) =>
        new FileInfo(path).LinkTarget is null ? path : File.ResolveLinkTarget(path, returnFinalTarget: true)?.FullName ?? path;

    private static long Position(FileStream stream)
    {
        try
        {
            return stream.Position;
        }
        catch (IOException)
        {
            return 0;
        }
    }

    private static void TryDelete(string path)
    {
        try
        {
            File.Delete(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The failure that led here is the one to report.
        }
    }
}
