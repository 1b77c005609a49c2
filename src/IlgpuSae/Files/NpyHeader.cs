using System.Buffers.Binary;
using System.Globalization;
using System.Text;

namespace IlgpuSae.Files;

/// <summary>What the header of NumPy's <c>.npy</c> format says: a literal of a Python dictionary.</summary>
/// <param name="Type">Element type.</param>
/// <param name="Shape">Sizes of the axes; empty for a scalar.</param>
/// <param name="FortranOrder">Whether the first axis runs fastest in the file.</param>
/// <param name="Bytes">Length of magic, header and padding: where the elements begin.</param>
internal sealed record NpyHeader(SafetensorsType Type, IReadOnlyList<long> Shape, bool FortranOrder, int Bytes)
{
    private const int MaxHeaderBytes = 1 << 16;

    /// <summary>Number of elements.</summary>
    public long Count => Shape.Aggregate(1L, (n, d) => n * d);

    /// <summary>Reads a header and leaves the stream at the first element.</summary>
    /// <param name="path">The file, for messages.</param>
    /// <param name="name">The array, for messages.</param>
    /// <param name="stream">Begins with the magic bytes.</param>
    /// <exception cref="InvalidFileException">No such header, or of objects, records or another byte order.</exception>
    public static NpyHeader Read(string path, string name, Stream stream)
    {
        InvalidFileException Wrong(string problem) => new(path, $"array {Say.Quote(name)} {problem}");
        Span<byte> start = stackalloc byte[12];
        if (stream.ReadAtLeast(start[..10], 10, throwOnEndOfStream: false) < 10 || !Magic(start))
            throw Wrong("does not begin as NumPy's format does");
        var (major, minor) = (start[6], start[7]);
        if (major is < 1 or > 3) throw Wrong($"is of version {major}.{minor} of NumPy's format; 1 to 3 are read");
        int length, prefix = 10;
        if (major == 1)
        {
            length = BinaryPrimitives.ReadUInt16LittleEndian(start[8..]);
        }
        else
        {
            if (stream.ReadAtLeast(start[10..12], 2, throwOnEndOfStream: false) < 2) throw Wrong("ends within its header");
            var wide = BinaryPrimitives.ReadUInt32LittleEndian(start[8..]);
            if (wide > MaxHeaderBytes) throw Wrong($"claims a header of {wide} bytes; at most {MaxHeaderBytes} are read");
            (length, prefix) = ((int)wide, 12);
        }

        var bytes = new byte[length];
        if (stream.ReadAtLeast(bytes, length, throwOnEndOfStream: false) < length) throw Wrong("ends within its header");
        var literal = new PythonLiteral(Encoding.Latin1.GetString(bytes));
        if (literal.Read() is not Dictionary<string, object?> fields) throw Wrong($"has the header {Say.Quote(literal.Text.Trim())}, which is no dictionary");
        if (!fields.TryGetValue("descr", out var descr) || !fields.TryGetValue("shape", out var shape) || !fields.TryGetValue("fortran_order", out var order) || fields.Count != 3)
            throw Wrong($"has a header with {string.Join(", ", fields.Keys.Select(Say.Quote))}; descr, fortran_order and shape are expected");
        if (shape is not List<object?> axes || axes.Any(a => a is not long)) throw Wrong("has no list of sizes as its shape");
        if (order is not bool fortran) throw Wrong("has a fortran_order that is neither True nor False");
        long[] sizes = [.. axes.Select(a => (long)a!)];
        var type = TypeOf(descr, Wrong);
        if (SafetensorsHeader.BitCount(type, sizes) is null) throw Wrong($"has the impossible shape {SafetensorsHeader.Show(sizes)}");
        return new NpyHeader(type, sizes, fortran, prefix + length);
    }

    /// <summary>The bytes of a header, padded so that the elements begin at a multiple of 64, as NumPy pads it.</summary>
    /// <param name="type">F32, F16, F64, I32 or I64.</param>
    /// <param name="shape">Sizes of the axes.</param>
    public static byte[] Write(SafetensorsType type, IReadOnlyList<long> shape)
    {
        var descr = type switch
        {
            SafetensorsType.F32 => "<f4",
            SafetensorsType.F16 => "<f2",
            SafetensorsType.F64 => "<f8",
            SafetensorsType.I32 => "<i4",
            SafetensorsType.I64 => "<i8",
            _ => throw new ArgumentOutOfRangeException(nameof(type), type, "no element type that is written"),
        };
        var sizes = string.Join(", ", shape.Select(d => d.ToString(CultureInfo.InvariantCulture))) + (shape.Count == 1 ? "," : "");
        var text = $"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}";
        var total = (10 + text.Length + 1 + 63) / 64 * 64;
        var bytes = new byte[total];
        bytes.AsSpan().Fill((byte)' ');
        bytes[0] = 0x93;
        "NUMPY"u8.CopyTo(bytes.AsSpan(1));
        (bytes[6], bytes[7]) = (1, 0);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(8), (ushort)(total - 10));
        Encoding.ASCII.GetBytes(text, bytes.AsSpan(10));
        bytes[^1] = (byte)'\n';
        return bytes;
    }

    private static bool Magic(ReadOnlySpan<byte> start) => start[0] == 0x93 && start[1..6].SequenceEqual("NUMPY"u8);

    private static SafetensorsType TypeOf(object? descr, Func<string, InvalidFileException> wrong)
    {
        if (descr is not string text) throw wrong("is of records, not of numbers");
        return text switch
        {
            "<f4" => SafetensorsType.F32,
            "<f2" => SafetensorsType.F16,
            "<f8" => SafetensorsType.F64,
            // NumPy has no bfloat16: JAX's is written as two bytes without a meaning.
            "<V2" or "|V2" => SafetensorsType.BF16,
            "<i8" => SafetensorsType.I64,
            "<i4" => SafetensorsType.I32,
            "<i2" => SafetensorsType.I16,
            "|i1" => SafetensorsType.I8,
            "<u8" => SafetensorsType.U64,
            "<u4" => SafetensorsType.U32,
            "<u2" => SafetensorsType.U16,
            "|u1" => SafetensorsType.U8,
            "|b1" => SafetensorsType.BOOL,
            _ when text.Contains('O', StringComparison.Ordinal) => throw wrong("holds pickled Python objects, which could run code; they are never read"),
            _ when text.StartsWith('>') => throw wrong($"is in big-endian order ({Say.Quote(text)}); write it little-endian"),
            _ => throw wrong($"is of type {Say.Quote(text)}; read are f2, f4, f8, bfloat16 (V2), integers and booleans"),
        };
    }
}
