using System.Text.Json;
using System.Text.Json.Nodes;
using IlgpuSae.Files;

namespace IlgpuSae.Datasets;

/// <summary>JSON objects, one a line (.jsonl). Empty lines do not count; a line that cannot be used is malformed.</summary>
internal sealed class JsonLinesReader : RowReader
{
    private const int LongestLine = 256 << 20;

    /// <inheritdoc/>
    public override IReadOnlyList<string>? Columns(string file)
    {
        foreach (var (line, _) in Lines(file))
        {
            if (Parse(line) is { } first) return [.. first.Select(p => p.Key)];
        }

        return null;
    }

    /// <inheritdoc/>
    public override DataColumnKind KindOf(string file, string column)
    {
        foreach (var (line, _) in Lines(file))
        {
            if (Parse(line)?[column] is not { } value) continue;
            if (value.GetValueKind() == JsonValueKind.String) return DataColumnKind.Text;
            if (value is JsonArray list) return list.Count > 0 && list[0] is JsonObject ? DataColumnKind.Messages : DataColumnKind.Tokens;
            break;
        }

        throw new InvalidFileException(file, $"column {Say.Quote(column)} is neither text, nor token ids, nor messages");
    }

    /// <inheritdoc/>
    public override IEnumerable<DataRow?> Rows(string file, string column, DataColumnKind kind, long from, Action<long, string> malformed)
    {
        var row = 0L;
        foreach (var (line, number) in Lines(file))
        {
            if (row++ < from) continue;
            var (found, problem) = Read(line.Span, column, kind);
            if (problem is not null) malformed(number, problem);
            yield return found;
        }
    }

    private static JsonObject? Parse(ReadOnlyMemory<byte> line)
    {
        try
        {
            return JsonNode.Parse(line.Span) as JsonObject;
        }
        catch (Exception e) when (e is JsonException or ArgumentException or InvalidOperationException)
        {
            return null;
        }
    }

    private static (DataRow? Row, string? Problem) Read(ReadOnlySpan<byte> line, string column, DataColumnKind kind)
    {
        DataRow? row = null;
        try
        {
            var reader = new Utf8JsonReader(line);
            reader.Read();
            if (reader.TokenType != JsonTokenType.StartObject) return (null, "is no JSON object");
            while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
            {
                var wanted = reader.ValueTextEquals(column);
                reader.Read();
                if (!wanted)
                {
                    reader.Skip();
                    continue;
                }

                row = Value(ref reader, line, kind);
                if (row is null) return (null, $"{Say.Quote(column)} is {Found(reader.TokenType)}, not {kind switch { DataColumnKind.Text => "text", DataColumnKind.Tokens => "a list of token ids", _ => "a list of messages" }}");
            }

            reader.Read(); // what follows the object is an error
            return row is null ? (null, $"has no {Say.Quote(column)}") : (row, null);
        }
        catch (JsonException e)
        {
            var reason = AtomicFile.OneLine(e.Message);
            return (null, $"is no JSON: {(reason.IndexOf(" LineNumber:", StringComparison.Ordinal) is > 0 and var cut ? reason[..cut] : reason)}");
        }
        catch (InvalidOperationException)
        {
            return (null, "holds text that is no valid Unicode");
        }
    }

    private static DataRow? Value(ref Utf8JsonReader reader, ReadOnlySpan<byte> line, DataColumnKind kind)
    {
        if (kind == DataColumnKind.Text) return reader.TokenType == JsonTokenType.String ? new DataRow { Text = reader.GetString() } : null;
        if (reader.TokenType != JsonTokenType.StartArray) return null;
        if (kind == DataColumnKind.Messages)
        {
            var start = (int)reader.TokenStartIndex;
            reader.Skip();
            var messages = (JsonArray)JsonNode.Parse(line[start..(int)(reader.TokenStartIndex + 1)])!;
            return messages.All(m => m is JsonObject) ? new DataRow { Messages = messages } : null;
        }

        var tokens = new List<int>();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            if (reader.TokenType != JsonTokenType.Number || !reader.TryGetInt32(out var id) || id < 0) return null;
            tokens.Add(id);
        }

        return new DataRow { Tokens = [.. tokens] };
    }

    private static string Found(JsonTokenType type) => type switch
    {
        JsonTokenType.Null => "null",
        JsonTokenType.String => "a text",
        JsonTokenType.Number => "a number",
        JsonTokenType.StartObject => "an object",
        JsonTokenType.StartArray or JsonTokenType.EndArray => "a list of something else",
        _ => "true or false",
    };

    /// <summary>The lines that are not empty, with their numbers; each is valid until the next.</summary>
    private static IEnumerable<(ReadOnlyMemory<byte> Line, long Number)> Lines(string file)
    {
        using var stream = DatasetFiles.Open(file);
        var buffer = new byte[1 << 16];
        int start = 0, end = 0, searched = 0;
        var number = 0L;
        while (true)
        {
            var newline = Array.IndexOf(buffer, (byte)'\n', searched, end - searched);
            if (newline >= 0)
            {
                number++;
                if (Trimmed(buffer.AsMemory(start, newline - start), number) is { Length: > 0 } line) yield return (line, number);
                start = searched = newline + 1;
                continue;
            }

            searched = end;
            if (start > 0)
            {
                buffer.AsSpan(start, end - start).CopyTo(buffer);
                (end, searched, start) = (end - start, searched - start, 0);
            }
            else if (end == buffer.Length)
            {
                if (buffer.Length >= LongestLine) throw new InvalidFileException(file, $"line {number + 1} is longer than {LongestLine} bytes; it is no file of JSON lines");
                Array.Resize(ref buffer, buffer.Length * 2);
            }

            var n = stream.Read(buffer, end, buffer.Length - end);
            if (n == 0) break;
            end += n;
        }

        if (Trimmed(buffer.AsMemory(start, end - start), number + 1) is { Length: > 0 } last) yield return (last, number + 1);
    }

    private static ReadOnlyMemory<byte> Trimmed(ReadOnlyMemory<byte> line, long number)
    {
        if (number == 1 && line.Span.StartsWith("\uFEFF"u8)) line = line[3..];
        while (line.Length > 0 && line.Span[^1] is (byte)'\r' or (byte)' ' or (byte)'\t') line = line[..^1];
        return line;
    }
}
