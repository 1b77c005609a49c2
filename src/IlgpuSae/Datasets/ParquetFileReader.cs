using IlgpuSae.Files;
using Parquet;
using Parquet.Schema;

namespace IlgpuSae.Datasets;

/// <summary>Rows of a Parquet file, one row group in memory at a time; only the wanted column is read.</summary>
internal sealed class ParquetFileReader : RowReader
{
    /// <inheritdoc/>
    public override IReadOnlyList<string>? Columns(string file) => With(file, reader => reader.RowGroupCount == 0 ? null : reader.Schema.Fields.Select(f => f.Name).ToList());

    /// <inheritdoc/>
    public override DataColumnKind KindOf(string file, string column) => With(file, reader =>
    {
        var fields = Leaves(reader, column);
        if (fields.Count == 1 && fields[0].MaxRepetitionLevel == 0 && IsText(fields[0])) return DataColumnKind.Text;
        if (fields.Count == 1 && fields[0].MaxRepetitionLevel == 1 && IsInteger(fields[0])) return DataColumnKind.Tokens;
        if (fields.Any(f => Last(f) == "role") && fields.Any(f => Last(f) == "content")) throw new InvalidFileException(file, $"column {Say.Quote(column)} holds conversations, which are read from .jsonl and .arrow files only; convert it");
        throw new InvalidFileException(file, $"column {Say.Quote(column)} is neither text nor a list of token ids");
    });

    /// <inheritdoc/>
    public override IEnumerable<DataRow?> Rows(string file, string column, DataColumnKind kind, long from, Action<long, string> malformed)
    {
        var reader = Wait(ParquetReader.CreateAsync(file, null, default));
        try
        {
            var field = Leaves(reader, column) is { Count: 1 } leaves ? leaves[0] : throw new InvalidFileException(file, $"has no column {Say.Quote(column)} of the kind of the first file's");
            var row = 0L;
            for (var g = 0; g < reader.RowGroupCount; g++)
            {
                using var group = reader.OpenRowGroupReader(g);
                if (row + group.RowCount <= from)
                {
                    row += group.RowCount;
                    continue;
                }

                foreach (var value in kind == DataColumnKind.Text ? Texts(group, field) : Tokens(group, field))
                {
                    if (row++ < from) continue;
                    if (value is null) malformed(row, $"{Say.Quote(column)} is null or holds what is no token id");
                    yield return value;
                }
            }
        }
        finally
        {
            reader.DisposeAsync().AsTask().GetAwaiter().GetResult();
        }
    }

    private static IEnumerable<DataRow?> Texts(ParquetRowGroupReader group, DataField field)
    {
        if (!IsText(field)) throw new InvalidOperationException($"the column {field.Name} is no text");
        var texts = new string?[group.RowCount];
        group.ReadAsync(field, texts.AsMemory()!, null, default).AsTask().GetAwaiter().GetResult();
        for (var i = 0; i < texts.Length; i++)
        {
            yield return texts[i] is { } text ? new DataRow { Text = text } : null;
            texts[i] = null; // so that long texts are not kept until the group's end
        }
    }

    private static IEnumerable<DataRow?> Tokens(ParquetRowGroupReader group, DataField field) => Type.GetTypeCode(field.ClrType) switch
    {
        TypeCode.Int32 => Lists<int>(group, field, static v => v),
        TypeCode.Int64 => Lists<long>(group, field, static v => v),
        TypeCode.UInt32 => Lists<uint>(group, field, static v => v),
        TypeCode.Int16 => Lists<short>(group, field, static v => v),
        TypeCode.UInt16 => Lists<ushort>(group, field, static v => v),
        _ => throw new InvalidOperationException($"the column {field.Name} holds no whole numbers"),
    };

    private static IEnumerable<DataRow?> Lists<T>(ParquetRowGroupReader group, DataField field, Func<T, long> number) where T : struct
    {
        // Levels, not the friendly call: that one takes nested columns for flat ones.
        var n = checked((int)group.GetMetadata(field)!.MetaData!.NumValues);
        T[] values = new T[n];
        int[] definition = new int[n], repetition = new int[n];
        group.ReadRawAsync<T>(field, values, definition.AsMemory(), repetition.AsMemory(), default).AsTask().GetAwaiter().GetResult();
        var element = field.MaxDefinitionLevel - (field.IsNullable ? 1 : 0);
        var row = new List<int>();
        var valid = true;
        for (int i = 0, value = 0; i < n; i++)
        {
            if (repetition[i] == 0 && i > 0)
            {
                yield return valid ? new DataRow { Tokens = [.. row] } : null;
                row.Clear();
                valid = true;
            }

            if (definition[i] == field.MaxDefinitionLevel)
            {
                var id = number(values[value++]);
                valid &= id is >= 0 and <= int.MaxValue;
                row.Add((int)Math.Clamp(id, 0, int.MaxValue));
            }
            else
            {
                // An empty list ends one level below an element; a null, of the list or in it, is malformed.
                valid &= definition[i] == element - 1;
            }
        }

        if (n > 0) yield return valid ? new DataRow { Tokens = [.. row] } : null;
    }

    private static List<DataField> Leaves(ParquetReader reader, string column) => [.. reader.Schema.GetDataFields().Where(f => f.Path.FirstPart == column)];

    private static string Last(DataField field) => field.Path.ToString().Split('/', '.')[^1];

    private static bool IsText(DataField field) => field.ClrType == typeof(string) || field.ClrType == typeof(ReadOnlyMemory<char>);

    private static bool IsInteger(DataField field) => Type.GetTypeCode(field.ClrType) is TypeCode.Int32 or TypeCode.Int64 or TypeCode.UInt32 or TypeCode.Int16 or TypeCode.UInt16;

    private static T With<T>(string file, Func<ParquetReader, T> use)
    {
        var reader = Wait(ParquetReader.CreateAsync(file, null, default));
        try
        {
            return use(reader);
        }
        finally
        {
            reader.DisposeAsync().AsTask().GetAwaiter().GetResult();
        }
    }

    private static T Wait<T>(Task<T> task) => task.GetAwaiter().GetResult();
}
