using System.Text.Json;
using System.Text.Unicode;

namespace IlgpuSae.Files;

/// <summary>
/// The JSON header of a safetensors file, believed only after every claim in it was checked: names unique, types
/// known, sizes equal to shape times type, spans in a row that fill the buffer exactly.
/// </summary>
/// <remarks>Format: https://huggingface.co/docs/safetensors; the checks are those of its own library, and duplicate keys.</remarks>
internal sealed class SafetensorsHeader
{
    private readonly string _path;
    private readonly long _buffer;

    private SafetensorsHeader(string path, long bufferBytes)
    {
        _path = path;
        _buffer = bufferBytes;
    }

    /// <summary>The tensors, by ascending offset.</summary>
    public List<SafetensorsEntry> Tensors { get; } = [];

    /// <summary>Free-form text under <c>__metadata__</c>.</summary>
    public Dictionary<string, string> Metadata { get; } = new(StringComparer.Ordinal);

    /// <summary>Reads and checks a header.</summary>
    /// <param name="path">The file, for messages.</param>
    /// <param name="json">The header's bytes, padding included.</param>
    /// <param name="bufferBytes">How many bytes follow the header.</param>
    /// <exception cref="InvalidFileException">A claim does not hold.</exception>
    public static SafetensorsHeader Parse(string path, ReadOnlySpan<byte> json, long bufferBytes)
    {
        var header = new SafetensorsHeader(path, bufferBytes);
        if (json.Length == 0 || json[0] != (byte)'{') throw header.Wrong("the header does not begin with '{': this is no safetensors file");
        if (!Utf8.IsValid(json)) throw header.Wrong("the header is not valid UTF-8");
        try
        {
            header.ReadObject(json);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            // InvalidOperationException is what the JSON reader throws for escaped lone surrogates.
            throw header.Wrong($"the header is not valid JSON: {AtomicFile.OneLine(e.Message)}", e);
        }

        header.CheckSpans();
        return header;
    }

    private InvalidFileException Wrong(string problem, Exception? inner = null) => new(_path, problem, inner);

    private void ReadObject(ReadOnlySpan<byte> json)
    {
        var reader = new Utf8JsonReader(json, new JsonReaderOptions { MaxDepth = 8 });
        reader.Read();
        var names = new HashSet<string>(StringComparer.Ordinal);
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            var name = reader.GetString()!;
            if (!names.Add(name)) throw Wrong($"the header names {Say.Quote(name)} twice");
            reader.Read();
            if (name == "__metadata__") ReadMetadata(ref reader);
            else Tensors.Add(ReadTensor(ref reader, name));
        }

        if (reader.Read()) throw Wrong("the header goes on after its closing brace");
    }

    private void ReadMetadata(ref Utf8JsonReader reader)
    {
        if (reader.TokenType != JsonTokenType.StartObject) throw Wrong("__metadata__ is not an object");
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            var key = reader.GetString()!;
            reader.Read();
            if (reader.TokenType != JsonTokenType.String) throw Wrong($"__metadata__ {Say.Quote(key)} is not a string");
            if (!Metadata.TryAdd(key, reader.GetString()!)) throw Wrong($"__metadata__ names {Say.Quote(key)} twice");
        }
    }

    private SafetensorsEntry ReadTensor(ref Utf8JsonReader reader, string name)
    {
        var who = $"tensor {Say.Quote(name)}";
        if (reader.TokenType != JsonTokenType.StartObject) throw Wrong($"{who} is described by {reader.TokenType}, expected an object with dtype, shape and data_offsets");
        SafetensorsType? type = null;
        List<long>? shape = null, span = null;
        var keys = new HashSet<string>(StringComparer.Ordinal);
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            var key = reader.GetString()!;
            if (!keys.Add(key)) throw Wrong($"{who} has {Say.Quote(key)} twice");
            reader.Read();
            switch (key)
            {
                case "dtype":
                    var text = reader.TokenType == JsonTokenType.String ? reader.GetString()! : reader.TokenType.ToString();
                    if (!SafetensorsTypes.TryParse(text, out var known)) throw Wrong($"{who} has the unknown dtype {Say.Quote(text)}");
                    type = known;
                    break;
                case "shape":
                    shape = ReadSizes(ref reader, $"{who}: shape");
                    break;
                case "data_offsets":
                    span = ReadSizes(ref reader, $"{who}: data_offsets");
                    break;
                default:
                    reader.Skip();
                    break;
            }
        }

        if (type is null || shape is null || span is null)
            throw Wrong($"{who} lacks {(type is null ? "dtype" : shape is null ? "shape" : "data_offsets")}");
        return Check(who, new SafetensorsEntry(name, type.Value, shape, 0, 0), span);
    }

    private List<long> ReadSizes(ref Utf8JsonReader reader, string what)
    {
        if (reader.TokenType != JsonTokenType.StartArray) throw Wrong($"{what} is no array");
        var sizes = new List<long>();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            if (reader.TokenType != JsonTokenType.Number || !reader.TryGetInt64(out var n))
                throw Wrong($"{what} holds something that is no integer of 64 bits");
            if (n < 0) throw Wrong($"{what} holds the negative number {n}");
            sizes.Add(n);
        }

        return sizes;
    }

    private SafetensorsEntry Check(string who, SafetensorsEntry entry, List<long> span)
    {
        if (span.Count != 2) throw Wrong($"{who}: data_offsets has {span.Count} numbers, expected begin and end");
        var (begin, end) = (span[0], span[1]);
        if (end < begin) throw Wrong($"{who}: data_offsets run backwards, {begin}..{end}");
        if (BitCount(entry.Type, entry.Shape) is not { } bits) throw Wrong($"{who}: shape {Show(entry.Shape)} of {entry.Type} overflows 64 bits");
        if (bits % 8 != 0) throw Wrong($"{who}: shape {Show(entry.Shape)} of {entry.Type} does not end on a whole byte");
        if (end > _buffer) throw Wrong($"{who} spans bytes {begin}..{end} of a {_buffer}-byte buffer; the file is truncated or its header lies");
        if (end - begin != bits / 8) throw Wrong($"{who}: shape {Show(entry.Shape)} of {entry.Type} takes {bits / 8} bytes, data_offsets {begin}..{end} hold {end - begin}");
        return entry with { Offset = begin, Bytes = end - begin };
    }

    /// <summary>Size in bits; null when it, or the count of elements after any axis, does not fit 63 bits.</summary>
    internal static long? BitCount(SafetensorsType type, IReadOnlyList<long> shape)
    {
        UInt128 count = 1;
        foreach (var d in shape)
        {
            count *= (UInt128)d;
            if (count > long.MaxValue) return null;
        }

        count *= (UInt128)type.Bits();
        return count > long.MaxValue ? null : (long)count;
    }

    private void CheckSpans()
    {
        Tensors.Sort((a, b) => (a.Offset, a.Bytes).CompareTo((b.Offset, b.Bytes)));
        long at = 0;
        var before = "the header";
        foreach (var t in Tensors)
        {
            var who = $"tensor {Say.Quote(t.Name)}";
            if (t.Offset < at) throw Wrong($"{who} at bytes {t.Offset}..{t.Offset + t.Bytes} overlaps {before}, which ends at {at}");
            if (t.Offset > at) throw Wrong($"bytes {at}..{t.Offset} between {before} and {who} belong to no tensor");
            at = t.Offset + t.Bytes;
            before = who;
        }

        if (at != _buffer) throw Wrong($"the tensors end at byte {at} of a {_buffer}-byte buffer; {_buffer - at} trailing bytes belong to no tensor");
    }

    internal static string Show(IReadOnlyList<long> shape) => shape.Count <= 8 ? $"[{string.Join(", ", shape)}]" : $"[{string.Join(", ", shape.Take(8))}, …]";
}
