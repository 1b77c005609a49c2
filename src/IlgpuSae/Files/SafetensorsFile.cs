using System.Buffers;
using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace IlgpuSae.Files;

/// <summary>
/// One safetensors file, open for reading. The header is read and checked in <see cref="Open"/>; a tensor's bytes are
/// read when asked for, straight into the caller's memory. Reading from several threads at once is safe.
/// </summary>
public sealed class SafetensorsFile : ISafetensors
{
    /// <summary>Longest header the format allows.</summary>
    public const long MaxHeaderBytes = 100_000_000;

    private const int ChunkBytes = 1 << 18;
    private readonly SafeFileHandle _handle;
    private readonly long _dataStart;
    private readonly Dictionary<string, SafetensorsEntry> _byName;

    private SafetensorsFile(string path, SafeFileHandle handle, long dataStart, SafetensorsHeader header)
    {
        Path = path;
        _handle = handle;
        _dataStart = dataStart;
        Tensors = header.Tensors;
        Metadata = header.Metadata;
        _byName = header.Tensors.ToDictionary(t => t.Name, StringComparer.Ordinal);
    }

    /// <inheritdoc/>
    public string Path { get; }

    /// <summary>All tensors, in the order of their bytes.</summary>
    public IReadOnlyList<SafetensorsEntry> Tensors { get; }

    /// <summary>The file's free-form text entries, <c>format</c> for one.</summary>
    public IReadOnlyDictionary<string, string> Metadata { get; }

    /// <inheritdoc/>
    public IReadOnlyCollection<string> Names => _byName.Keys;

    /// <summary>Type, shape and place of a tensor.</summary>
    /// <param name="name">The tensor's name.</param>
    /// <exception cref="InvalidFileException">There is none of that name.</exception>
    public SafetensorsEntry this[string name] => _byName.TryGetValue(name, out var entry)
        ? entry
        : throw Missing(name);

    /// <summary>Opens a file and checks everything its header claims.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="InvalidFileException">Missing, unreadable, truncated, or lying about itself.</exception>
    public static SafetensorsFile Open(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        var handle = OpenHandle(path);
        try
        {
            var size = RandomAccess.GetLength(handle);
            if (size < 8) throw new InvalidFileException(path, $"is {size} bytes long; a safetensors file has at least 8");
            Span<byte> prefix = stackalloc byte[8];
            ReadExactly(path, handle, 0, prefix);
            var length = BinaryPrimitives.ReadUInt64LittleEndian(prefix);
            if (length > (ulong)(size - 8)) throw new InvalidFileException(path, $"its first 8 bytes claim a header of {length} bytes, but only {size - 8} follow; the file is truncated or no safetensors file");
            if (length > MaxHeaderBytes) throw new InvalidFileException(path, $"its header is {length} bytes long; the format allows {MaxHeaderBytes}");
            var json = new byte[length];
            ReadExactly(path, handle, 8, json);
            var dataStart = 8 + (long)length;
            return new SafetensorsFile(path, handle, dataStart, SafetensorsHeader.Parse(path, json, size - dataStart));
        }
        catch
        {
            handle.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public bool Contains(string name) => _byName.ContainsKey(name);

    /// <inheritdoc/>
    public SafetensorsFile FileOf(string name) => _byName.ContainsKey(name) ? this : throw Missing(name);

    /// <summary>Where a tensor's first byte lies in the file.</summary>
    internal long PositionOf(string name) => _dataStart + this[name].Offset;

    /// <summary>Part of a tensor's bytes as they are in the file (little-endian, row-major).</summary>
    /// <param name="name">The tensor's name.</param>
    /// <param name="offset">First byte, counted from the tensor's own beginning.</param>
    /// <param name="destination">Receives the bytes; tensors beyond 2 GB are read in several calls.</param>
    /// <exception cref="InvalidFileException">No such tensor, or unreadable.</exception>
    /// <exception cref="ArgumentOutOfRangeException">The part reaches beyond the tensor.</exception>
    public void ReadBytes(string name, long offset, Span<byte> destination)
    {
        var entry = this[name];
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(destination.Length, entry.Bytes - offset);
        ReadExactly(Path, _handle, _dataStart + entry.Offset + offset, destination);
    }

    /// <summary>A floating-point tensor, or part of it, as single precision: F32 as it is, F16 and BF16 widened exactly, F64 rounded.</summary>
    /// <param name="name">The tensor's name.</param>
    /// <param name="destination">Receives elements, row-major.</param>
    /// <param name="firstElement">Element of the tensor to begin with.</param>
    /// <exception cref="InvalidFileException">No such tensor, not of floating-point type, or unreadable.</exception>
    /// <exception cref="ArgumentOutOfRangeException">The part reaches beyond the tensor.</exception>
    public void ReadFloat32(string name, Span<float> destination, long firstElement = 0)
    {
        var entry = this[name];
        if (entry.Type is not (SafetensorsType.F32 or SafetensorsType.F16 or SafetensorsType.BF16 or SafetensorsType.F64))
            throw new InvalidFileException(Path, $"tensor {Say.Quote(name)} has dtype {entry.Type}, expected F32, F16, BF16 or F64");
        ReadElements(entry, destination, firstElement, entry.Type switch
        {
            SafetensorsType.F32 => null,
            SafetensorsType.F16 => static (bytes, values) =>
            {
                var halves = MemoryMarshal.Cast<byte, Half>(bytes);
                for (var i = 0; i < values.Length; i++) values[i] = (float)halves[i];
            }
            ,
            SafetensorsType.BF16 => static (bytes, values) =>
            {
                var halves = MemoryMarshal.Cast<byte, ushort>(bytes);
                var i = 0;
                for (; i <= values.Length - Vector<ushort>.Count; i += Vector<ushort>.Count)
                {
                    Vector.Widen(new Vector<ushort>(halves[i..]), out var low, out var high);
                    Vector.AsVectorSingle(low << 16).CopyTo(values[i..]);
                    Vector.AsVectorSingle(high << 16).CopyTo(values[(i + Vector<uint>.Count)..]);
                }

                for (; i < values.Length; i++) values[i] = BitConverter.UInt32BitsToSingle((uint)halves[i] << 16);
            }
            ,
            _ => static (bytes, values) =>
            {
                var doubles = MemoryMarshal.Cast<byte, double>(bytes);
                for (var i = 0; i < values.Length; i++) values[i] = (float)doubles[i];
            }
            ,
        });
    }

    /// <summary>An integer or boolean tensor, or part of it, as 64-bit integers.</summary>
    /// <param name="name">The tensor's name.</param>
    /// <param name="destination">Receives elements, row-major.</param>
    /// <param name="firstElement">Element of the tensor to begin with.</param>
    /// <exception cref="InvalidFileException">No such tensor, not of integer type, unreadable, or a U64 beyond 2^63 - 1.</exception>
    /// <exception cref="ArgumentOutOfRangeException">The part reaches beyond the tensor.</exception>
    public void ReadInt64(string name, Span<long> destination, long firstElement = 0)
    {
        var entry = this[name];
        ReadElements<long>(entry, destination, firstElement, entry.Type switch
        {
            SafetensorsType.I64 => null,
            SafetensorsType.I32 => Widen<int>(),
            SafetensorsType.I16 => Widen<short>(),
            SafetensorsType.I8 => Widen<sbyte>(),
            SafetensorsType.U32 => Widen<uint>(),
            SafetensorsType.U16 => Widen<ushort>(),
            SafetensorsType.U8 or SafetensorsType.BOOL => Widen<byte>(),
            SafetensorsType.U64 => (bytes, values) =>
            {
                var wide = MemoryMarshal.Cast<byte, ulong>(bytes);
                for (var i = 0; i < values.Length; i++)
                    values[i] = wide[i] <= long.MaxValue ? (long)wide[i] : throw new InvalidFileException(Path, $"tensor {Say.Quote(name)} holds {wide[i]}, which does not fit 64 bits with a sign");
            }
            ,
            _ => throw new InvalidFileException(Path, $"tensor {Say.Quote(name)} has dtype {entry.Type}, expected an integer type"),
        });
    }

    /// <summary>Closes the file.</summary>
    public void Dispose() => _handle.Dispose();

    /// <summary>Number of elements of a tensor that is to fit a managed array.</summary>
    internal int ArrayLength(string name)
    {
        var count = this[name].Count;
        return count <= Array.MaxLength ? (int)count : throw new InvalidFileException(Path, $"tensor {Say.Quote(name)} has {count} elements, too many for one array; read it in parts");
    }

    private delegate void Convert<T>(ReadOnlySpan<byte> bytes, Span<T> values);

    private static Convert<long> Widen<T>() where T : unmanaged, IBinaryInteger<T> => static (bytes, values) =>
    {
        var narrow = MemoryMarshal.Cast<byte, T>(bytes);
        for (var i = 0; i < values.Length; i++) values[i] = long.CreateTruncating(narrow[i]);
    };

    /// <summary>Reads elements chunk by chunk; without a conversion, straight into the destination.</summary>
    private void ReadElements<T>(SafetensorsEntry entry, Span<T> destination, long first, Convert<T>? convert) where T : unmanaged
    {
        ArgumentOutOfRangeException.ThrowIfNegative(first);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(destination.Length, entry.Count - first);
        var size = entry.Type.Bits() / 8;
        var start = _dataStart + entry.Offset + first * size;
        if (convert is null)
        {
            // In slices, as a span counts bytes by an int.
            const int Slice = 1 << 27;
            for (var done = 0; done < destination.Length; done += Slice)
            {
                var part = destination.Slice(done, Math.Min(Slice, destination.Length - done));
                ReadExactly(Path, _handle, start + (long)done * size, MemoryMarshal.AsBytes(part));
            }

            return;
        }

        var buffer = ArrayPool<byte>.Shared.Rent(ChunkBytes);
        try
        {
            var perChunk = ChunkBytes / size;
            for (var done = 0; done < destination.Length; done += perChunk)
            {
                var n = Math.Min(perChunk, destination.Length - done);
                var bytes = buffer.AsSpan(0, n * size);
                ReadExactly(Path, _handle, start + (long)done * size, bytes);
                convert(bytes, destination.Slice(done, n));
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private InvalidFileException Missing(string name) => new(Path, $"has no tensor {Say.Quote(name)}; it has {Say.Some(Names, name)}");

    private static SafeFileHandle OpenHandle(string path)
    {
        try
        {
            return File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.Read);
        }
        catch (Exception e) when (ReadFailure.Explain(path, e) is { } explained)
        {
            throw explained;
        }
    }

    private static void ReadExactly(string path, SafeFileHandle handle, long at, Span<byte> destination)
    {
        try
        {
            while (destination.Length > 0)
            {
                var n = RandomAccess.Read(handle, destination, at);
                if (n == 0) throw new InvalidFileException(path, $"ends at byte {at}, earlier than when it was opened: somebody is writing to it");
                destination = destination[n..];
                at += n;
            }
        }
        catch (Exception e) when (ReadFailure.Explain(path, e) is { } explained)
        {
            throw explained;
        }
    }
}
