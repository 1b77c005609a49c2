namespace IlgpuSae.Files;

/// <summary>
/// A folder that appears whole or not at all. Its files are written into <c>NAME.partial-XXXXXXXX</c> beside the final
/// name; <see cref="Commit"/> renames that folder into place; disposing without a commit removes it.
/// </summary>
/// <remarks>
/// Where the final name is taken: an empty folder is replaced; a folder with files is refused, or, with
/// <c>replace</c>, exchanged for the new one (should that fail, the old one is put back); a file is always refused.
/// The refusal comes in <see cref="Create"/>, before any work is done.
/// </remarks>
public sealed class AtomicDirectory : IDisposable
{
    private readonly bool _replace;
    private bool _committed;

    private AtomicDirectory(string path, string partial, bool replace)
    {
        FinalPath = path;
        PartialPath = partial;
        _replace = replace;
    }

    /// <summary>The name the folder will have.</summary>
    public string FinalPath { get; }

    /// <summary>The folder to write into until <see cref="Commit"/>.</summary>
    public string PartialPath { get; }

    /// <summary>Starts a folder.</summary>
    /// <param name="path">The final name; missing parents are created.</param>
    /// <param name="replace">Whether a folder with files of that name may be replaced as a whole.</param>
    /// <exception cref="InvalidInputException">The name is taken and may not be replaced, or may not be written to.</exception>
    /// <exception cref="IlgpuSaeException">The disk is full or fails.</exception>
    public static AtomicDirectory Create(string path, bool replace = false)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        path = Path.TrimEndingDirectorySeparator(path);
        RefuseTaken(path, replace);
        var partial = AtomicFile.PartialName(path);
        Try(path, () => Directory.CreateDirectory(partial));
        return new AtomicDirectory(path, partial, replace);
    }

    /// <summary>Path of a file of the folder while it is being written.</summary>
    /// <param name="name">The file's name within the folder.</param>
    public string FileIn(string name) => Path.Combine(PartialPath, name);

    /// <summary>Gives the folder its final name.</summary>
    /// <exception cref="InvalidInputException">The name was taken meanwhile, or may not be written to.</exception>
    /// <exception cref="IlgpuSaeException">The disk fails.</exception>
    public void Commit()
    {
        if (_committed) throw new InvalidOperationException("the folder is already in place");
        RefuseTaken(FinalPath, _replace);
        Try(FinalPath, () =>
        {
            string? old = null;
            if (Directory.Exists(FinalPath))
            {
                old = AtomicFile.PartialName(FinalPath, "old");
                Directory.Move(FinalPath, old);
            }

            try
            {
                Directory.Move(PartialPath, FinalPath);
            }
            catch when (old is not null)
            {
                Directory.Move(old, FinalPath);
                throw;
            }

            _committed = true;
            if (old is not null) Directory.Delete(old, recursive: true);
        });
    }

    /// <summary>Removes what was written, unless it was committed.</summary>
    public void Dispose()
    {
        if (_committed || !Directory.Exists(PartialPath)) return;
        try
        {
            Directory.Delete(PartialPath, recursive: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Disposal follows the failure that is worth reporting, or nothing.
        }
    }

    private static void RefuseTaken(string path, bool replace)
    {
        if (File.Exists(path)) throw new InvalidInputException($"{path}: is a file, a folder is to be written there; give another name");
        if (replace || !Directory.Exists(path)) return;
        var occupied = false;
        Try(path, () => occupied = Directory.EnumerateFileSystemEntries(path).Any());
        if (occupied) throw new InvalidInputException($"{path}: the folder exists and is not empty; give another name or remove it");
    }

    private static void Try(string path, Action work)
    {
        try
        {
            work();
        }
        catch (Exception e) when (AtomicFile.Explain(path, e, 0) is { } explained)
        {
            throw explained;
        }
    }
}
