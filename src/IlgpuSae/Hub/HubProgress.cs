namespace IlgpuSae.Hub;

/// <summary>How far one file's transfer has come.</summary>
/// <param name="Repository">The repository's id.</param>
/// <param name="Path">The file's name in it.</param>
/// <param name="Bytes">Bytes done, those of an earlier run included.</param>
/// <param name="TotalBytes">Bytes in all; null if the server does not say.</param>
/// <param name="BytesPerSecond">Rate since this run began.</param>
/// <param name="Upload">Whether the file goes to the hub.</param>
public sealed record HubProgress(string Repository, string Path, long Bytes, long? TotalBytes, double BytesPerSecond, bool Upload)
{
    /// <summary>Whether this is the file's last report.</summary>
    public bool Done => Bytes == TotalBytes;

    /// <summary>Time left at the present rate; null if it cannot be told.</summary>
    public TimeSpan? TimeLeft => TotalBytes is { } total && BytesPerSecond > 0
        ? TimeSpan.FromSeconds(Math.Min((total - Bytes) / BytesPerSecond, TimeSpan.FromDays(99).TotalSeconds))
        : null;
}
