using System.Buffers.Binary;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;

namespace IlgpuSae.Files;

/// <summary>
/// Writes a safetensors file as the format's own library does: tensors by type (wide first), then by name; the header
/// compact and padded with spaces to 8 bytes; metadata sorted by key. The same tensors give the same bytes whatever
/// order they were added in. Contents are streamed, the file appears whole or not at all.
/// </summary>
public sealed class SafetensorsWriter
{
    private readonly List<(SafetensorsEntry Entry, Action<Stream> Write)> _tensors = [];
    private readonly HashSet<string> _names = new(StringComparer.Ordinal);

    /// <summary>Free-form text entries of the header; <c>format</c> = <c>pt</c> is what PyTorch programs expect.</summary>
    public IDictionary<string, string> Metadata { get; } = new Dictionary<string, string>(StringComparer.Ordinal);

    /// <summary>Adds a tensor whose bytes are produced when the file is written.</summary>
    /// <param name="name">Its name, unique within the file.</param>
    /// <param name="type">Its element type.</param>
    /// <param name="shape">Sizes of its axes; empty for a scalar.</param>
    /// <param name="write">Writes exactly the tensor's bytes, little-endian, row-major; called once for every <see cref="Save"/>.</param>
    /// <exception cref="InvalidInputException">The name is taken or no valid text, or the shape is impossible.</exception>
    public SafetensorsWriter Add(string name, SafetensorsType type, IReadOnlyList<long> shape, Action<Stream> write)
    {
        ArgumentNullException.ThrowIfNull(name);
        ArgumentNullException.ThrowIfNull(shape);
        ArgumentNullException.ThrowIfNull(write);
        foreach (var d in shape)
            if (d < 0) throw new InvalidInputException($"safetensors: tensor {Say.Quote(name)} has the negative size {d} in {SafetensorsHeader.Show(shape)}");
        if (SafetensorsHeader.BitCount(type, shape) is not { } bits) throw new InvalidInputException($"safetensors: shape {SafetensorsHeader.Show(shape)} of tensor {Say.Quote(name)} overflows 64 bits");
        if (bits % 8 != 0) throw new InvalidInputException($"safetensors: shape {SafetensorsHeader.Show(shape)} of {type} of tensor {Say.Quote(name)} does not end on a whole byte");
        if (name == "__metadata__" || !IsText(name)) throw new InvalidInputException($"safetensors: {Say.Quote(name)} cannot be a tensor's name");
        if (!_names.Add(name)) throw new InvalidInputException($"safetensors: tensor {Say.Quote(name)} was added twice");
        _tensors.Add((new SafetensorsEntry(name, type, [.. shape], 0, bits / 8), write));
        return this;
    }

    /// <summary>Adds a tensor of values in memory; their type is taken from <typeparamref name="T"/>.</summary>
    /// <typeparam name="T">float, double, Half, long, int, short, sbyte, ulong, uint, ushort, byte or bool.</typeparam>
    /// <param name="name">Its name, unique within the file.</param>
    /// <param name="shape">Sizes of its axes; empty for a scalar.</param>
    /// <param name="values">Row-major; must stay unchanged until the file is written.</param>
    /// <exception cref="InvalidInputException">As the other overload, or the count is not that of the shape.</exception>
    public SafetensorsWriter Add<T>(string name, IReadOnlyList<long> shape, ReadOnlyMemory<T> values) where T : unmanaged
    {
        Add(name, TypeOf<T>(), shape, stream =>
        {
            const int Slice = 1 << 20;
            for (var i = 0; i < values.Length; i += Slice)
                stream.Write(MemoryMarshal.AsBytes(values.Span.Slice(i, Math.Min(Slice, values.Length - i))));
        });
        var entry = _tensors[^1].Entry;
        if (entry.Count == values.Length) return this;
        _tensors.RemoveAt(_tensors.Count - 1);
        _names.Remove(name);
        throw new InvalidInputException($"safetensors: tensor {Say.Quote(name)} of shape {SafetensorsHeader.Show(shape)} has {entry.Count} elements, {values.Length} were given");
    }

    /// <summary>Adds a tensor of values in memory.</summary>
    /// <typeparam name="T">As the other overload.</typeparam>
    /// <param name="name">Its name, unique within the file.</param>
    /// <param name="shape">Sizes of its axes; empty for a scalar.</param>
    /// <param name="values">Row-major; must stay unchanged until the file is written.</param>
    /// <exception cref="InvalidInputException">As the other overload.</exception>
    public SafetensorsWriter Add<T>(string name, IReadOnlyList<long> shape, T[] values) where T : unmanaged => Add(name, shape, (ReadOnlyMemory<T>)values);

    /// <summary>Writes the file, whole or not at all; an existing file is replaced.</summary>
    /// <param name="path">The file; missing parent folders are created.</param>
    /// <exception cref="IlgpuSaeException">It cannot be written.</exception>
    public void Save(string path)
    {
        var (header, ordered) = Layout();
        var total = header.Length + ordered.Sum(t => t.Entry.Bytes);
        AtomicFile.Write(path, stream => WriteTo(stream, header, ordered), total);
    }

    private static void WriteTo(Stream stream, byte[] header, List<(SafetensorsEntry Entry, Action<Stream> Write)> ordered)
    {
        stream.Write(header);
        foreach (var (entry, write) in ordered)
        {
            var counted = new CountingStream(stream, entry.Bytes);
            write(counted);
            if (counted.Count != entry.Bytes)
                throw new InvalidOperationException($"tensor {entry.Name} takes {entry.Bytes} bytes, {counted.Count} were written");
        }
    }

    private (byte[] Header, List<(SafetensorsEntry Entry, Action<Stream> Write)> Ordered) Layout()
    {
        var ordered = _tensors.OrderByDescending(t => t.Entry.Type).ThenBy(t => t.Entry.Name, Utf8Order.Instance).ToList();
        var json = new StringBuilder("{");
        if (Metadata.Count > 0)
        {
            var items = Metadata.OrderBy(m => m.Key, Utf8Order.Instance).Select(m => $"{Json(m.Key)}:{Json(m.Value)}");
            json.Append("\"__metadata__\":{").AppendJoin(',', items).Append("},");
        }

        long at = 0;
        foreach (var (e, _) in ordered)
        {
            json.Append(CultureInfo.InvariantCulture, $"{Json(e.Name)}:{{\"dtype\":\"{e.Type}\",\"shape\":[{string.Join(',', e.Shape)}],\"data_offsets\":[{at},{at + e.Bytes}]}},");
            at = checked(at + e.Bytes);
        }

        if (json[^1] == ',') json.Length--;
        var text = Encoding.UTF8.GetBytes(json.Append('}').ToString());
        var padded = (text.Length + 7) / 8 * 8;
        if (padded > SafetensorsFile.MaxHeaderBytes) throw new InvalidInputException($"safetensors: the header would take {padded} bytes; the format allows {SafetensorsFile.MaxHeaderBytes}");
        var header = new byte[8 + padded];
        BinaryPrimitives.WriteInt64LittleEndian(header, padded);
        text.CopyTo(header, 8);
        header.AsSpan(8 + text.Length).Fill((byte)' ');
        return (header, ordered);
    }

    private static SafetensorsType TypeOf<T>() => default(T) switch
    {
        float => SafetensorsType.F32,
        double => SafetensorsType.F64,
        Half => SafetensorsType.F16,
        long => SafetensorsType.I64,
        int => SafetensorsType.I32,
        short => SafetensorsType.I16,
        sbyte => SafetensorsType.I8,
        ulong => SafetensorsType.U64,
        uint => SafetensorsType.U32,
        ushort => SafetensorsType.U16,
        byte => SafetensorsType.U8,
        bool => SafetensorsType.BOOL,
        _ => throw new InvalidInputException($"safetensors: no element type holds {typeof(T).Name}"),
    };

    /// <summary>A JSON string with the escapes of the format's own library: quotes, backslash and control characters only.</summary>
    private static string Json(string text)
    {
        if (!IsText(text)) throw new InvalidInputException($"safetensors: {Say.Quote(text)} is no valid Unicode text");
        var s = new StringBuilder("\"");
        foreach (var c in text)
        {
            s.Append(c switch
            {
                '"' => "\\\"",
                '\\' => "\\\\",
                '\b' => "\\b",
                '\f' => "\\f",
                '\n' => "\\n",
                '\r' => "\\r",
                '\t' => "\\t",
                < ' ' => "\\u" + ((int)c).ToString("x4", CultureInfo.InvariantCulture),
                _ => c.ToString(),
            });
        }

        return s.Append('"').ToString();
    }

    private static bool IsText(string text)
    {
        for (var i = 0; i < text.Length; i++)
        {
            if (!char.IsSurrogate(text[i])) continue;
            if (i + 1 >= text.Length || !char.IsSurrogatePair(text[i], text[i + 1])) return false;
            i++;
        }

        return true;
    }

    /// <summary>Order of the UTF-8 bytes, which differs from .NET's ordinal order beyond U+FFFF.</summary>
    private sealed class Utf8Order : IComparer<string>
    {
        public static readonly Utf8Order Instance = new();

        public int Compare(string? x, string? y) => Encoding.UTF8.GetBytes(x!).AsSpan().SequenceCompareTo(Encoding.UTF8.GetBytes(y!));
    }

    /// <summary>Lets a tensor write its own bytes and no more.</summary>
    private sealed class CountingStream(Stream inner, long limit) : Stream
    {
        public long Count { get; private set; }

        public override bool CanRead => false;

        public override bool CanSeek => false;

        public override bool CanWrite => true;

        public override long Length => throw new NotSupportedException();

        public override long Position { get => Count; set => throw new NotSupportedException(); }

        public override void Flush() => inner.Flush();

        public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => Write(buffer.AsSpan(offset, count));

        public override void Write(ReadOnlySpan<byte> buffer)
        {
            if (buffer.Length > limit - Count) throw new InvalidOperationException($"a tensor of {limit} bytes wrote more");
            inner.Write(buffer);
            Count += buffer.Length;
        }
    }
}
