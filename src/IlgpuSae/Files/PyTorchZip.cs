namespace IlgpuSae.Files;

/// <summary>
/// What torch.save writes since PyTorch 1.6: a zip archive with <c>NAME/data.pkl</c>, the pickle, and <c>NAME/data/KEY</c>,
/// the bytes of each storage. Checksums are not compared: PyTorch itself does not, and may be told to write none.
/// </summary>
internal static class PyTorchZip
{
    /// <summary>More text than this no state dictionary has.</summary>
    private const long MaxPickleBytes = 1L << 28;

    /// <summary>The pickled value, its storages bound to the archive's entries.</summary>
    /// <param name="zip">The archive; must stay open while storages are read.</param>
    /// <exception cref="InvalidFileException">No pickle, a damaged one, or one that asks for what it may not have.</exception>
    public static object? Read(BoundedZip zip)
    {
        var pickles = zip.Names.Where(n => n == "data.pkl" || n.EndsWith("/data.pkl", StringComparison.Ordinal)).ToList();
        if (pickles is not [var pickle])
            throw new InvalidFileException(zip.Path, $"is a zip archive, but none of PyTorch's: it has {pickles.Count} entries data.pkl, expected one");
        var prefix = pickle[..^"data.pkl".Length];
        if (zip.Contains(prefix + "byteorder") && System.Text.Encoding.ASCII.GetString(zip.ReadAll(prefix + "byteorder", 64)).Trim() != "little")
            throw new InvalidFileException(zip.Path, "holds numbers in big-endian order; save it on a little-endian machine");
        var storages = new Dictionary<string, PyTorchStorage>(StringComparer.Ordinal);
        var bytes = zip.ReadAll(pickle, MaxPickleBytes);
        var globals = new PyTorchGlobals(zip.Path, (key, type, count) => Storage(zip, prefix, storages, key, type, count), null);
        return new PickleReader(zip.Path, new MemoryStream(bytes), bytes.Length, globals).Read();
    }

    private static PyTorchStorage Storage(BoundedZip zip, string prefix, Dictionary<string, PyTorchStorage> storages, string key, SafetensorsType? type, long count)
    {
        if (storages.TryGetValue(key, out var known))
            return known.Type == type && known.Count == count ? known : throw new InvalidFileException(zip.Path, $"storage {Say.Quote(key)} is described in two ways");
        var entry = $"{prefix}data/{key}";
        var storage = new PyTorchStorage(key, type, count) { Open = () => zip.Read(entry, verify: false) };
        if (zip.LengthOf(entry) != storage.Bytes)
            throw new InvalidFileException(zip.Path, $"storage {Say.Quote(key)} has {zip.LengthOf(entry)} bytes, but {storage.Bytes} are claimed of it");
        storages.Add(key, storage);
        return storage;
    }
}
