namespace IlgpuSae.Files;

/// <summary>One array of an <c>.npz</c> file.</summary>
/// <param name="Name">Its name, without <c>.npy</c>.</param>
/// <param name="Type">Its element type; bfloat16 is what NumPy calls V2.</param>
/// <param name="Shape">Sizes of its axes; empty for a scalar.</param>
/// <param name="FortranOrder">Whether the file holds the first axis running fastest; reading gives row-major order all the same.</param>
public sealed record NpzEntry(string Name, SafetensorsType Type, IReadOnlyList<long> Shape, bool FortranOrder)
{
    /// <summary>Number of elements.</summary>
    public long Count => Shape.Aggregate(1L, (n, d) => n * d);
}

/// <summary>
/// NumPy's <c>.npz</c>: a zip archive of arrays, stored or deflated. Arrays of Python objects are pickles, which could run
/// code: they are refused. Checksums are compared. An array is read when asked for.
/// </summary>
public sealed class NpzFile : IDisposable
{
    private readonly BoundedZip _zip;
    private readonly Dictionary<string, NpzEntry> _entries = new(StringComparer.Ordinal);

    private NpzFile(BoundedZip zip) => _zip = zip;

    /// <summary>The file, as the user named it.</summary>
    public string Path => _zip.Path;

    /// <summary>The arrays, in the file's order.</summary>
    public IReadOnlyCollection<NpzEntry> Arrays => _entries.Values;

    /// <summary>Names of the arrays.</summary>
    public IReadOnlyCollection<string> Names => _entries.Keys;

    /// <summary>Opens a file and reads every array's header.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="InvalidFileException">Missing, no zip archive, truncated, or with arrays that are not of numbers.</exception>
    public static NpzFile Open(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        var file = new NpzFile(BoundedZip.Open(path, PlainFile.OpenRead(path)));
        try
        {
            foreach (var entry in file._zip.Names)
            {
                if (!entry.EndsWith(".npy", StringComparison.Ordinal))
                    throw new InvalidFileException(path, $"holds {Say.Quote(entry)}, which is no array; every entry of an .npz file ends in .npy");
                var name = entry[..^4];
                using var stream = file._zip.Read(entry, verify: false);
                var header = NpyHeader.Read(path, name, stream);
                var expected = header.Bytes + (header.Count * (header.Type.Bits() / 8));
                if (stream.Length != expected)
                    throw new InvalidFileException(path, $"array {Say.Quote(name)} is {header.Type} {SafetensorsHeader.Show(header.Shape)}, which takes {expected} bytes with its header, but its entry has {stream.Length}");
                file._entries.Add(name, new NpzEntry(name, header.Type, header.Shape, header.FortranOrder));
            }

            return file;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Whether an array of that name exists.</summary>
    /// <param name="name">Its name.</param>
    public bool Contains(string name) => _entries.ContainsKey(name);

    /// <summary>Type and shape of an array.</summary>
    /// <param name="name">Its name.</param>
    /// <exception cref="InvalidFileException">There is none of that name.</exception>
    public NpzEntry this[string name] => _entries.TryGetValue(name, out var entry)
        ? entry
        : throw new InvalidFileException(Path, $"has no array {Say.Quote(name)}; it has {Say.Some(Names, name)}");

    /// <summary>A floating-point array (F32, F16, bfloat16, F64) as single precision, row-major.</summary>
    /// <param name="name">Its name.</param>
    /// <exception cref="InvalidFileException">No such array, another type, unreadable, damaged, or more than an array can hold.</exception>
    public float[] ReadFloat32(string name)
    {
        var entry = this[name];
        if (!ElementConversion.IsFloat(entry.Type))
            throw new InvalidFileException(Path, $"array {Say.Quote(name)} has dtype {entry.Type}, expected F32, F16, BF16 or F64");
        var values = new float[Length(entry)];
        using var stream = Elements(name);
        ElementStream.ReadFloat32(stream, entry.Type, values);
        return entry.FortranOrder ? RowMajor(values, entry.Shape) : values;
    }

    /// <summary>An integer or boolean array as 64-bit integers, row-major.</summary>
    /// <param name="name">Its name.</param>
    /// <exception cref="InvalidFileException">No such array, another type, unreadable, damaged, or a number beyond 64 bits.</exception>
    public long[] ReadInt64(string name)
    {
        var entry = this[name];
        if (!ElementConversion.IsInteger(entry.Type))
            throw new InvalidFileException(Path, $"array {Say.Quote(name)} has dtype {entry.Type}, expected an integer type");
        var values = new long[Length(entry)];
        using var stream = Elements(name);
        if (ElementStream.ReadInt64(stream, entry.Type, values) is { } misfit)
            throw new InvalidFileException(Path, $"array {Say.Quote(name)} holds {misfit}, which does not fit 64 bits with a sign");
        return entry.FortranOrder ? RowMajor(values, entry.Shape) : values;
    }

    /// <summary>Closes the file.</summary>
    public void Dispose() => _zip.Dispose();

    private Stream Elements(string name)
    {
        var stream = _zip.Read(name + ".npy", verify: true);
        try
        {
            NpyHeader.Read(Path, name, stream);
            return stream;
        }
        catch
        {
            stream.Dispose();
            throw;
        }
    }

    private int Length(NpzEntry entry) => entry.Count <= Array.MaxLength
        ? (int)entry.Count
        : throw new InvalidFileException(Path, $"array {Say.Quote(entry.Name)} has {entry.Count} elements; at most {Array.MaxLength} can be loaded");

    /// <summary>Elements with the first axis running fastest, with the last running fastest instead.</summary>
    private static T[] RowMajor<T>(T[] values, IReadOnlyList<long> shape) where T : unmanaged
    {
        if (shape.Count < 2) return values;
        var strides = new long[shape.Count];
        long stride = 1;
        for (var axis = 0; axis < shape.Count; axis++) (strides[axis], stride) = (stride, stride * shape[axis]);
        var result = new T[values.Length];
        Strided.Gather<T>(values, 0, shape, strides, result);
        return result;
    }
}
