namespace IlgpuSae.Runs;

/// <summary>Files of prompts: one a line.</summary>
public static class PromptFile
{
    /// <summary>Reads the prompts; empty lines are passed over.</summary>
    /// <param name="path">A text file in UTF-8.</param>
    /// <exception cref="InvalidFileException">It cannot be read, or has no prompt.</exception>
    public static string[] Read(string path)
    {
        string[] lines;
        try
        {
            lines = File.ReadAllLines(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InvalidFileException(path, $"cannot be read: {e.Message}", e);
        }

        lines = [.. lines.Where(l => l.Trim().Length > 0)];
        return lines.Length > 0 ? lines : throw new InvalidFileException(path, "holds no prompt; give one a line");
    }
}
