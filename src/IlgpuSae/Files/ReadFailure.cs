namespace IlgpuSae.Files;

/// <summary>What the user is told when a file cannot be read.</summary>
internal static class ReadFailure
{
    /// <summary>The error for the user; null for failures that are none of the file system (they pass through).</summary>
    /// <param name="path">The file, as the user named it.</param>
    /// <param name="e">What the system threw.</param>
    public static InvalidFileException? Explain(string path, Exception e) => e switch
    {
        FileNotFoundException or DirectoryNotFoundException => new InvalidFileException(path, "no such file", e),
        UnauthorizedAccessException when Directory.Exists(path) => new InvalidFileException(path, "is a folder, a file was expected", e),
        UnauthorizedAccessException => new InvalidFileException(path, "no permission to read it", e),
        IOException => new InvalidFileException(path, $"cannot be read: {AtomicFile.OneLine(e.Message)}", e),
        NotSupportedException => new InvalidFileException(path, "is no plain file that can be read at any place", e),
        ArgumentException when path.Contains('\0', StringComparison.Ordinal) => new InvalidFileException(path.Replace('\0', '?'), "the file name contains a NUL character", e),
        _ => null,
    };

    /// <summary>The whole of a small file.</summary>
    /// <param name="path">The file.</param>
    /// <param name="limit">More bytes than this are refused.</param>
    /// <exception cref="InvalidFileException">Missing, unreadable or too large.</exception>
    public static byte[] ReadAll(string path, long limit)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        try
        {
            using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read);
            if (stream.Length > limit) throw new InvalidFileException(path, $"is {stream.Length} bytes long; at most {limit} are expected of such a file");
            var bytes = new byte[stream.Length];
            stream.ReadExactly(bytes);
            return bytes;
        }
        catch (Exception e) when (Explain(path, e) is { } explained)
        {
            throw explained;
        }
    }
}
