using System.IO.Compression;
using System.Runtime.InteropServices;

namespace IlgpuSae.Files;

/// <summary>Writes NumPy's <c>.npz</c> as numpy.savez does: arrays stored, not packed. Same arrays, same bytes.</summary>
public sealed class NpzWriter
{
    /// <summary>The time NumPy gives every entry: the beginning of the format's calendar.</summary>
    private static readonly DateTimeOffset Beginning = new(1980, 1, 1, 0, 0, 0, TimeSpan.Zero);

    private readonly List<(string Name, long[] Shape, float[] Values)> _arrays = [];

    /// <summary>Adds an array of single precision.</summary>
    /// <param name="name">Its name, unique within the file.</param>
    /// <param name="shape">Sizes of its axes; empty for a scalar.</param>
    /// <param name="values">Row-major; must stay unchanged until the file is written.</param>
    /// <exception cref="InvalidInputException">The name is taken, or the count is not that of the shape.</exception>
    public NpzWriter Add(string name, IReadOnlyList<long> shape, float[] values)
    {
        if (_arrays.Exists(a => a.Name == name)) throw new InvalidInputException($"npz: array {Say.Quote(name)} was added twice");
        if (shape.Aggregate(1L, (n, d) => n * d) != values.LongLength)
            throw new InvalidInputException($"npz: array {Say.Quote(name)} of shape {SafetensorsHeader.Show(shape)} was given {values.Length} elements");
        _arrays.Add((name, [.. shape], values));
        return this;
    }

    /// <summary>Writes the file, whole or not at all; an existing file is replaced.</summary>
    /// <param name="path">The file; missing parent folders are created.</param>
    /// <exception cref="IlgpuSaeException">It cannot be written.</exception>
    public void Save(string path) => AtomicFile.Write(path, stream =>
    {
        using var zip = new ZipArchive(stream, ZipArchiveMode.Create, leaveOpen: true);
        foreach (var (name, shape, values) in _arrays)
        {
            var entry = zip.CreateEntry(name + ".npy", CompressionLevel.NoCompression);
            entry.LastWriteTime = Beginning;
            using var content = entry.Open();
            content.Write(NpyHeader.Write(SafetensorsType.F32, shape));
            const int slice = 1 << 20;
            for (var i = 0; i < values.Length; i += slice) content.Write(MemoryMarshal.AsBytes(values.AsSpan(i, Math.Min(slice, values.Length - i))));
        }
    }, _arrays.Sum(a => 4 * a.Values.LongLength));
}
