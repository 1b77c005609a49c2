using System.Diagnostics;
using IlgpuSae.Files;

namespace IlgpuSae.Hub;

/// <summary>
/// A lock between processes, and between threads of one: the file is opened for one owner alone, which on Unix is
/// <c>flock</c> and on Windows a denied share, the very means of Python's filelock, so that both exclude each other.
/// The file stays when the lock ends, as its removal would let two owners in.
/// </summary>
internal sealed class FileLock : IDisposable
{
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(50);
    private readonly FileStream _file;

    private FileLock(FileStream file) => _file = file;

    /// <summary>Waits until the lock is ours.</summary>
    /// <param name="path">The lock's file; its folder is created.</param>
    /// <param name="onWait">Told once, should another owner have to be waited for.</param>
    /// <param name="cancellation">Ends the wait.</param>
    /// <exception cref="IlgpuSaeException">The file cannot be made.</exception>
    public static FileLock Acquire(string path, Action? onWait, CancellationToken cancellation)
    {
        for (var waited = false; ;)
        {
            cancellation.ThrowIfCancellationRequested();
            if (TryAcquire(path) is { } taken) return taken;
            if (!waited) onWait?.Invoke();
            waited = true;
            cancellation.WaitHandle.WaitOne(Poll);
        }
    }

    /// <summary>Ends the lock.</summary>
    public void Dispose() => _file.Dispose();

    private static FileLock? TryAcquire(string path)
    {
        FileStream file;
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            file = new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, bufferSize: 0);
        }
        catch (IOException e) when (IsTaken(e))
        {
            return null;
        }
        catch (Exception e) when (AtomicFile.Explain(path, e, 0) is { } explained)
        {
            throw explained;
        }

        if (IsStillThere(file, path)) return new FileLock(file);
        file.Dispose();
        return null;
    }

    /// <summary>EWOULDBLOCK of flock (11 on Linux, 35 on macOS); a sharing or lock violation on Windows.</summary>
    private static bool IsTaken(IOException e) => OperatingSystem.IsWindows()
        ? e.HResult is unchecked((int)0x80070020) or unchecked((int)0x80070021)
        : e.HResult == (OperatingSystem.IsMacOS() ? 35 : 11);

    /// <summary>
    /// Newer versions of filelock remove the file at the end; one removed between our opening and locking it is a lock
    /// on nothing.
    /// </summary>
    private static bool IsStillThere(FileStream file, string path)
    {
        if (OperatingSystem.IsLinux() && new FileInfo($"/proc/self/fd/{file.SafeFileHandle.DangerousGetHandle()}").LinkTarget is { } target)
            return !target.EndsWith(" (deleted)", StringComparison.Ordinal);
        Debug.Assert(!OperatingSystem.IsLinux() || !Directory.Exists("/proc/self/fd"), "the descriptor's link could not be read");
        return File.Exists(path);
    }
}
