using System.Buffers.Binary;

namespace IlgpuSae.Files;

/// <summary>
/// What torch.save wrote before PyTorch 1.6, and what plain pickles hold inside: five pickles (magic number, version, facts
/// about the machine, the value, the storages' keys), then every storage's count and bytes.
/// </summary>
internal static class PyTorchLegacy
{
    private const long MaxPickleBytes = 1L << 28;
    private const long Version = 1001;

    /// <summary>The magic number as pickles hold it.</summary>
    public static ReadOnlySpan<byte> Magic => [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

    /// <summary>What <see cref="PickleReader"/> makes of the magic number.</summary>
    public static PickleOpaque MagicValue { get; } = new("PyTorch's magic number");

    /// <summary>A value whose first pickle, the magic number, has been read.</summary>
    /// <param name="path">The file, for messages.</param>
    /// <param name="stream">Stands at the second pickle; seekable.</param>
    /// <param name="open">Opens the bytes from a place of the stream on.</param>
    /// <exception cref="InvalidFileException">Damaged, of another version, or asking for what it may not have.</exception>
    public static object? ReadAfterMagic(string path, Stream stream, Func<long, Stream> open)
    {
        var storages = new Dictionary<string, PyTorchStorage>(StringComparer.Ordinal);
        var globals = new PyTorchGlobals(path, (key, type, count) =>
        {
            if (!storages.TryGetValue(key, out var storage)) storages.Add(key, storage = new PyTorchStorage(key, type, count));
            return storage.Type == type && storage.Count == count ? storage : throw new InvalidFileException(path, $"storage {Say.Quote(key)} is described in two ways");
        }, null);
        object? Next() => new PickleReader(path, stream, Math.Min(MaxPickleBytes, stream.Length - stream.Position), globals).Read();
        if (Next() is not Version) throw new InvalidFileException(path, $"is of another version of PyTorch's early format than {Version}");
        if (Next() is PickleDict machine && machine["little_endian"] is false) throw new InvalidFileException(path, "holds numbers in big-endian order; save it on a little-endian machine");
        var value = Next();
        if (Next() is not List<object?> keys) throw new InvalidFileException(path, "has no list of storages where PyTorch's early format has it");
        var at = stream.Position;
        Span<byte> count = stackalloc byte[8];
        foreach (var key in keys)
        {
            if (key is not string name || !storages.TryGetValue(name, out var storage)) throw new InvalidFileException(path, "lists a storage that no tensor uses");
            stream.Position = at;
            if (stream.ReadAtLeast(count, 8, throwOnEndOfStream: false) < 8) throw new InvalidFileException(path, $"ends before storage {Say.Quote(name)}; the file is truncated");
            var found = BinaryPrimitives.ReadInt64LittleEndian(count);
            if (found != storage.Count) throw new InvalidFileException(path, $"storage {Say.Quote(name)} has {found} elements, but {storage.Count} are claimed of it");
            at += 8;
            if (storage.Bytes > stream.Length - at) throw new InvalidFileException(path, $"storage {Say.Quote(name)} takes {storage.Bytes} bytes, but {stream.Length - at} follow; the file is truncated");
            var begin = at;
            storage.Open = () => open(begin);
            at += storage.Bytes;
        }

        return storages.Values.FirstOrDefault(s => s.Open is null) is { } missing
            ? throw new InvalidFileException(path, $"has no bytes for storage {Say.Quote(missing.Key)}")
            : value;
    }
}
