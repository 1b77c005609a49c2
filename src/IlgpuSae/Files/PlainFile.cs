namespace IlgpuSae.Files;

/// <summary>Opening files with errors for the user.</summary>
internal static class PlainFile
{
    /// <summary>A file for reading, front to back or at any place.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="InvalidFileException">Missing, a folder, or not to be read.</exception>
    public static FileStream OpenRead(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        try
        {
            return new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, 1 << 16);
        }
        catch (Exception e) when (ReadFailure.Explain(path, e) is { } explained)
        {
            throw explained;
        }
    }
}
