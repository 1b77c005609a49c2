using System.Text.Json.Nodes;
using Apache.Arrow;
using Apache.Arrow.Ipc;
using Apache.Arrow.Types;

namespace IlgpuSae.Datasets;

/// <summary>Writes token ids as Hugging Face's save_to_disk lays out a shard: an Arrow stream with the column input_ids.</summary>
internal static class TokenShard
{
    /// <summary>The column, in the words of Hugging Face's dataset_info.json.</summary>
    public static JsonObject Features() => new()
    {
        ["input_ids"] = new JsonObject { ["feature"] = new JsonObject { ["dtype"] = "int32", ["_type"] = "Value" }, ["_type"] = "Sequence" },
    };

    /// <summary>Writes a shard.</summary>
    /// <param name="path">The file.</param>
    /// <param name="rows">Token ids.</param>
    /// <param name="rowsAtOnce">Rows in a record batch.</param>
    public static void Write(string path, IEnumerable<int[]> rows, int rowsAtOnce)
    {
        var info = new JsonObject { ["info"] = new JsonObject { ["features"] = Features() } };
        var schema = new Schema.Builder()
            .Field(new Field("input_ids", new ListType(Int32Type.Default), nullable: true))
            .Metadata("huggingface", info.ToJsonString())
            .Build();
        using var stream = new FileStream(path, FileMode.CreateNew, FileAccess.Write, FileShare.None, 1 << 20);
        using var writer = new ArrowStreamWriter(stream, schema);
        writer.WriteStart();
        foreach (var batch in rows.Chunk(rowsAtOnce))
        {
            var list = new ListArray.Builder(Int32Type.Default);
            var values = (Int32Array.Builder)list.ValueBuilder;
            foreach (var row in batch)
            {
                list.Append();
                values.Append(row.AsSpan());
            }

            using var record = new RecordBatch(schema, [list.Build()], batch.Length);
            writer.WriteRecordBatch(record);
        }

        writer.WriteEnd();
        stream.Flush(flushToDisk: true);
    }
}
