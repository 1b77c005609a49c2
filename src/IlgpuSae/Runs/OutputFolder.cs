using IlgpuSae.Files;
using IlgpuSae.Saes.Formats;

namespace IlgpuSae.Runs;

/// <summary>Whether a result folder can be written: asked before hours of work, not after.</summary>
internal static class OutputFolder
{
    private static readonly string[] Own =
        [SaeLensFolder.ConfigFile, SaeLensFolder.WeightsFile, SaeLensFolder.SparsityFile, SaeLensFolder.RunnerConfigFile, SaeLensFolder.TrainingFolder];

    /// <summary>Tries to begin a folder as <see cref="SaeLensFolder.Save"/> will, and leaves nothing.</summary>
    /// <param name="path">The folder; one that holds an SAE and nothing else may be replaced.</param>
    /// <exception cref="IlgpuSaeException">It may not be written, is a file, or holds other files.</exception>
    public static void Check(string path)
    {
        var replace = Directory.Exists(path) && Directory.EnumerateFileSystemEntries(path).All(e => Own.Contains(Path.GetFileName(e)));
        var made = Missing(Path.GetDirectoryName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(path))));
        try
        {
            using var trial = AtomicDirectory.Create(path, replace);
        }
        finally
        {
            // Parents that the trial made, innermost first.
            foreach (var folder in made)
                if (Directory.Exists(folder)) Directory.Delete(folder);
        }
    }

    private static List<string> Missing(string? folder)
    {
        var missing = new List<string>();
        for (; folder is not null && !Directory.Exists(folder); folder = Path.GetDirectoryName(folder)) missing.Add(folder);
        return missing;
    }
}
