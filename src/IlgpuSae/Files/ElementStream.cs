using System.Buffers;

namespace IlgpuSae.Files;

/// <summary>Elements read one after the other from a stream of bytes.</summary>
internal static class ElementStream
{
    private const int ChunkBytes = 1 << 18;

    /// <summary>Reads floating-point elements.</summary>
    /// <param name="stream">Stands at the first element.</param>
    /// <param name="type">Their type.</param>
    /// <param name="values">Receives them.</param>
    public static void ReadFloat32(Stream stream, SafetensorsType type, Span<float> values) =>
        Read(stream, type.Bits() / 8, values, (bytes, part) =>
        {
            ElementConversion.ToFloat32(type, bytes, part);
            return null;
        });

    /// <summary>Reads integers.</summary>
    /// <param name="stream">Stands at the first element.</param>
    /// <param name="type">Their type.</param>
    /// <param name="values">Receives them.</param>
    /// <returns>A number beyond 2^63 - 1 if there is one; else null.</returns>
    public static ulong? ReadInt64(Stream stream, SafetensorsType type, Span<long> values) =>
        Read(stream, type.Bits() / 8, values, (bytes, part) => ElementConversion.ToInt64(type, bytes, part));

    /// <summary>Reads and forgets bytes.</summary>
    /// <param name="stream">Where they are.</param>
    /// <param name="count">How many.</param>
    public static void Skip(Stream stream, long count)
    {
        if (stream.CanSeek)
        {
            stream.Seek(count, SeekOrigin.Current);
            return;
        }

        var buffer = ArrayPool<byte>.Shared.Rent(ChunkBytes);
        try
        {
            for (; count > 0; count -= Math.Min(count, buffer.Length)) stream.ReadExactly(buffer, 0, (int)Math.Min(count, buffer.Length));
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private delegate ulong? Convert<T>(ReadOnlySpan<byte> bytes, Span<T> values);

    private static ulong? Read<T>(Stream stream, int size, Span<T> values, Convert<T> convert)
    {
        var buffer = ArrayPool<byte>.Shared.Rent(ChunkBytes);
        try
        {
            var perChunk = ChunkBytes / size;
            for (var done = 0; done < values.Length; done += perChunk)
            {
                var n = Math.Min(perChunk, values.Length - done);
                stream.ReadExactly(buffer, 0, n * size);
                if (convert(buffer.AsSpan(0, n * size), values.Slice(done, n)) is { } misfit) return misfit;
            }

            return null;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }
}
