using System.IO.Compression;
using System.IO.Hashing;

namespace IlgpuSae.Files;

/// <summary>
/// A zip archive whose claims are checked before memory is spent on them. Entries are read front to back; what an
/// entry's directory record promises is the most that is ever read. Nothing is unpacked to the disk.
/// </summary>
internal sealed class BoundedZip : IDisposable
{
    private const int MaxEntries = 100_000;

    /// <summary>Weights are noise and hardly shrink; only an archive meant to flood memory shrinks so well at this size.</summary>
    private const long BombBytes = 1L << 28;
    private const long BombRatio = 100;

    private readonly ZipArchive _archive;
    private readonly Dictionary<string, ZipArchiveEntry> _entries = new(StringComparer.Ordinal);

    private BoundedZip(string path, ZipArchive archive)
    {
        Path = path;
        _archive = archive;
    }

    /// <summary>The file, as the user named it.</summary>
    public string Path { get; }

    /// <summary>Names of the entries, in the archive's order.</summary>
    public IReadOnlyCollection<string> Names => _entries.Keys;

    /// <summary>Opens an archive and reads its directory.</summary>
    /// <param name="path">The file, for messages.</param>
    /// <param name="stream">Its bytes, seekable; disposed of with the archive.</param>
    /// <exception cref="InvalidFileException">No zip archive, truncated, damaged, or with impossible entries.</exception>
    public static BoundedZip Open(string path, Stream stream)
    {
        try
        {
            var zip = new BoundedZip(path, new ZipArchive(stream, ZipArchiveMode.Read));
            if (zip._archive.Entries.Count > MaxEntries)
                throw new InvalidFileException(path, $"is a zip archive of {zip._archive.Entries.Count} entries; at most {MaxEntries} are read");
            foreach (var entry in zip._archive.Entries)
            {
                if (!zip._entries.TryAdd(entry.FullName, entry))
                    throw new InvalidFileException(path, $"is a zip archive with two entries named {Say.Quote(entry.FullName)}");
            }

            return zip;
        }
        catch (Exception e) when (Explain(path, e) is { } explained)
        {
            stream.Dispose();
            throw explained;
        }
        catch
        {
            stream.Dispose();
            throw;
        }
    }

    /// <summary>Whether an entry exists.</summary>
    /// <param name="name">Its full name.</param>
    public bool Contains(string name) => _entries.ContainsKey(name);

    /// <summary>Size of an entry when unpacked.</summary>
    /// <param name="name">Its full name.</param>
    /// <exception cref="InvalidFileException">No such entry, or it claims to be packed impossibly well.</exception>
    public long LengthOf(string name)
    {
        var entry = Find(name);
        if (entry.Length < 0 || entry.Length > BombBytes && entry.Length / BombRatio > entry.CompressedLength)
            throw new InvalidFileException(Path, $"entry {Say.Quote(name)} claims {entry.Length} bytes packed into {entry.CompressedLength}; weights do not shrink so far, so it is not unpacked");
        return entry.Length;
    }

    /// <summary>The bytes of an entry, front to back, no more than it promises.</summary>
    /// <param name="name">Its full name.</param>
    /// <param name="verify">Whether the checksum is compared once the last byte has been read.</param>
    /// <exception cref="InvalidFileException">As <see cref="LengthOf"/>, or it cannot be read.</exception>
    public Stream Read(string name, bool verify)
    {
        var length = LengthOf(name);
        try
        {
            var entry = Find(name);
            return new EntryStream(Path, name, entry.Open(), length, verify ? entry.Crc32 : null);
        }
        catch (Exception e) when (Explain(Path, e) is { } explained)
        {
            throw explained;
        }
    }

    /// <summary>A small entry as a whole.</summary>
    /// <param name="name">Its full name.</param>
    /// <param name="limit">More bytes than this are refused.</param>
    /// <exception cref="InvalidFileException">As <see cref="Read"/>, or it is too large.</exception>
    public byte[] ReadAll(string name, long limit)
    {
        var length = LengthOf(name);
        if (length > limit) throw new InvalidFileException(Path, $"entry {Say.Quote(name)} is {length} bytes long; at most {limit} are expected of it");
        using var stream = Read(name, verify: false);
        var bytes = new byte[length];
        stream.ReadExactly(bytes);
        return bytes;
    }

    /// <summary>Closes the file.</summary>
    public void Dispose() => _archive.Dispose();

    private static InvalidFileException? Explain(string path, Exception e) => e is InvalidDataException or EndOfStreamException or ArgumentException or OverflowException
        ? new InvalidFileException(path, $"is no zip archive that can be read: {AtomicFile.OneLine(e.Message)}; the file is truncated or damaged", e)
        : ReadFailure.Explain(path, e);

    private ZipArchiveEntry Find(string name) => _entries.TryGetValue(name, out var entry)
        ? entry
        : throw new InvalidFileException(Path, $"has no entry {Say.Quote(name)}; it has {Say.Some(Names, name)}");

    /// <summary>Turns every failure into one that names the file, and ends where the directory says.</summary>
    private sealed class EntryStream(string path, string name, Stream inner, long length, uint? checksum) : Stream
    {
        private readonly Crc32 _crc = new();
        private long _done;

        public override bool CanRead => true;

        public override bool CanSeek => false;

        public override bool CanWrite => false;

        public override long Length => length;

        public override long Position { get => _done; set => throw new NotSupportedException(); }

        public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

        public override int Read(Span<byte> buffer)
        {
            var want = (int)Math.Min(buffer.Length, length - _done);
            if (want == 0) return 0;
            int n;
            try
            {
                n = inner.Read(buffer[..want]);
            }
            catch (Exception e) when (Explain(path, e) is { } explained)
            {
                throw explained;
            }

            if (n == 0) throw new InvalidFileException(path, $"entry {Say.Quote(name)} ends after {_done} of {length} bytes; the file is truncated or damaged");
            _done += n;
            if (checksum is { } expected)
            {
                _crc.Append(buffer[..n]);
                if (_done == length && _crc.GetCurrentHashAsUInt32() != expected)
                    throw new InvalidFileException(path, $"entry {Say.Quote(name)} does not have the checksum the archive states; the file is damaged");
            }

            return n;
        }

        public override void Flush()
        {
        }

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        protected override void Dispose(bool disposing)
        {
            if (disposing) inner.Dispose();
            base.Dispose(disposing);
        }
    }
}
