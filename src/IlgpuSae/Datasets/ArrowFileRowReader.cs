using System.Text.Json.Nodes;
using Apache.Arrow;
using Apache.Arrow.Ipc;
using Apache.Arrow.Types;
using IlgpuSae.Files;

namespace IlgpuSae.Datasets;

/// <summary>Rows of an Arrow file, one record batch in memory at a time. Hugging Face's shards are streams; files of the other form, with an index, are read as well.</summary>
internal sealed class ArrowFileRowReader : RowReader
{
    /// <inheritdoc/>
    public override IReadOnlyList<string>? Columns(string file)
    {
        using var reader = Open(file);
        return [.. reader.Schema.FieldsList.Select(f => f.Name)];
    }

    /// <inheritdoc/>
    public override DataColumnKind KindOf(string file, string column)
    {
        using var reader = Open(file);
        var type = reader.Schema.GetFieldByName(column).DataType;
        if (type is StringType or LargeStringType or StringViewType) return DataColumnKind.Text;
        if (Element(type) is IntegerType) return DataColumnKind.Tokens;
        if (Element(type) is StructType) return DataColumnKind.Messages;
        throw new InvalidFileException(file, $"column {Say.Quote(column)} is {type.Name}: neither text, nor a list of token ids, nor a list of messages");
    }

    /// <inheritdoc/>
    public override IEnumerable<DataRow?> Rows(string file, string column, DataColumnKind kind, long from, Action<long, string> malformed)
    {
        using var reader = Open(file);
        if (reader.Schema.GetFieldIndex(column) < 0) throw new InvalidFileException(file, $"has no column {Say.Quote(column)}, which the first file has");
        var row = 0L;
        while (reader.ReadNextRecordBatch() is { } batch)
        {
            using (batch)
            {
                var values = batch.Column(column);
                if (row + batch.Length <= from)
                {
                    row += batch.Length;
                    continue;
                }

                for (var i = 0; i < batch.Length; i++)
                {
                    if (row++ < from) continue;
                    var found = values.IsNull(i) ? null : Row(values, i, kind);
                    if (found is null) malformed(row, $"{Say.Quote(column)} is null or not of the column's kind");
                    yield return found;
                }
            }
        }
    }

    private static ArrowStreamReader Open(string file)
    {
        var stream = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.Read, 1 << 16);
        Span<byte> magic = stackalloc byte[6];
        var n = stream.ReadAtLeast(magic, 6, throwOnEndOfStream: false);
        stream.Position = 0;
        if (n < 6)
        {
            stream.Dispose();
            throw new InvalidFileException(file, "is too short to be an Arrow file");
        }

        return magic.SequenceEqual("ARROW1"u8) ? new ArrowFileReader(stream) : new ArrowStreamReader(stream);
    }

    private static IArrowType? Element(IArrowType type) => type switch
    {
        ListType list => list.ValueDataType,
        LargeListType list => list.ValueDataType,
        FixedSizeListType list => list.ValueDataType,
        _ => null,
    };

    private static DataRow? Row(IArrowArray values, int i, DataColumnKind kind)
    {
        if (kind == DataColumnKind.Text) return Text(values, i) is { } text ? new DataRow { Text = text } : null;
        // A slice of a list's values, whichever of the three kinds of list it is.
        var items = values switch
        {
            ListArray list => list.GetSlicedValues(i),
            LargeListArray list => list.GetSlicedValues(i),
            FixedSizeListArray list => list.GetSlicedValues(i),
            _ => null,
        };
        if (items is null) return null;
        if (kind == DataColumnKind.Messages) return items is StructArray messages ? new DataRow { Messages = Messages(messages) } : null;
        var tokens = new int[items.Length];
        for (var k = 0; k < tokens.Length; k++)
        {
            long? id = items.IsNull(k) ? null : items switch
            {
                Int32Array a => a.Values[k],
                Int64Array a => a.Values[k],
                UInt32Array a => a.Values[k],
                Int16Array a => a.Values[k],
                UInt16Array a => a.Values[k],
                Int8Array a => a.Values[k],
                UInt8Array a => a.Values[k],
                _ => null,
            };
            if (id is not (>= 0 and <= int.MaxValue)) return null;
            tokens[k] = (int)id;
        }

        return new DataRow { Tokens = tokens };
    }

    private static JsonArray Messages(StructArray messages)
    {
        var fields = ((StructType)messages.Data.DataType).Fields;
        var list = new JsonArray();
        for (var k = 0; k < messages.Length; k++)
        {
            var message = new JsonObject();
            for (var f = 0; f < fields.Count; f++)
                if (Text(messages.Fields[f], k) is { } text) message[fields[f].Name] = text;
            list.Add(message);
        }

        return list;
    }

    private static string? Text(IArrowArray values, int i) => values switch
    {
        StringArray a => a.GetString(i),
        LargeStringArray a => a.GetString(i),
        StringViewArray a => a.GetString(i),
        _ => null,
    };
}
