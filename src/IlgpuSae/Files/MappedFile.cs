using System.IO.MemoryMappedFiles;

namespace IlgpuSae.Files;

/// <summary>
/// A file in memory as the system pages it in, for as long as anybody refers to it. What is written there stays in this
/// process. The file must not be changed meanwhile.
/// </summary>
internal sealed unsafe class MappedFile
{
    private readonly MemoryMappedFile _file;
    private readonly MemoryMappedViewAccessor _view;
    private int _references = 1;

    private MappedFile(MemoryMappedFile file, MemoryMappedViewAccessor view, long length)
    {
        _file = file;
        _view = view;
        Length = length;
        byte* start = null;
        view.SafeMemoryMappedViewHandle.AcquirePointer(ref start);
        Address = (nint)(start + view.PointerOffset);
    }

    /// <summary>Where the file's first byte is.</summary>
    internal nint Address { get; }

    /// <summary>Bytes of the file.</summary>
    internal long Length { get; }

    /// <summary>Bytes that may be read from <see cref="Address"/> on: the last page is filled with zeros.</summary>
    internal long Readable => (Length + Environment.SystemPageSize - 1) / Environment.SystemPageSize * Environment.SystemPageSize;

    /// <summary>Maps a file; the caller holds the first reference.</summary>
    /// <exception cref="InvalidFileException">It cannot be mapped.</exception>
    internal static MappedFile Open(string path)
    {
        try
        {
            var length = new FileInfo(path).Length;
            var file = MemoryMappedFile.CreateFromFile(path, FileMode.Open, null, 0, MemoryMappedFileAccess.Read);
            return new MappedFile(file, file.CreateViewAccessor(0, 0, MemoryMappedFileAccess.CopyOnWrite), length);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InvalidFileException(path, $"cannot be mapped into memory: {e.Message}", e);
        }
    }

    internal void AddReference() => Interlocked.Increment(ref _references);

    internal void Release()
    {
        if (Interlocked.Decrement(ref _references) > 0) return;
        _view.SafeMemoryMappedViewHandle.ReleasePointer();
        _view.Dispose();
        _file.Dispose();
    }
}
