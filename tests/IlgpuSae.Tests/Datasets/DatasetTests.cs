using System.IO.Compression;
using System.Text;
using Apache.Arrow;
using Apache.Arrow.Ipc;
using Apache.Arrow.Types;
using IlgpuSae.Datasets;
using Parquet;
using Parquet.Schema;
using Xunit;
using Field = Apache.Arrow.Field;

namespace IlgpuSae.Tests.Datasets;

/// <summary>Data sets of every form give their rows; damaged ones are refused or passed over as promised.</summary>
public sealed class DatasetTests : IDisposable
{
    private readonly TempFolder _temp = new();

    public void Dispose() => _temp.Dispose();

    [Fact]
    public void Text_files_are_documents_between_separators()
    {
        _temp.Write("b.txt", "three<|end|><|end|>four");
        _temp.Write("a.txt", "one<|end|>two\nlines<|end|>");
        Assert.Equal(["one", "two\nlines", "three", "four"], Texts(_temp.Path, new() { DocumentSeparator = "<|end|>" }));
        Assert.Equal(["one<|end|>two\nlines<|end|>", "three<|end|><|end|>four"], Texts(_temp.Path));
        Assert.Equal(["one<|end|>two\nlines<|end|>"], Texts(_temp["a.txt"]));
    }

    [Theory]
    [InlineData(65_535)]
    [InlineData(65_536)]
    [InlineData(65_530)]
    [InlineData(200_000)]
    public void Separators_are_found_across_the_pieces_that_are_read(int before)
    {
        _temp.Write("a.txt", new string('x', before) + "<|end|>y<|end|>" + new string('z', before));
        Assert.Equal([new string('x', before), "y", new string('z', before)], Texts(_temp["a.txt"], new() { DocumentSeparator = "<|end|>" }));
    }

    [Fact]
    public void Documents_of_millions_of_characters_come_in_parts_of_whole_lines()
    {
        var lines = string.Concat(Enumerable.Range(0, 700_000).Select(i => $"line {i}\n"));
        _temp.Write("a.txt", lines);
        var parts = Texts(_temp["a.txt"]);
        Assert.Equal(lines, string.Concat(parts));
        Assert.True(parts.Count > 1);
        Assert.All(parts, p => Assert.EndsWith("\n", p, StringComparison.Ordinal));
        var one = new string('x', 9_000_001);
        Assert.Equal(one, string.Concat(Texts(_temp.Write("b.txt", one))));
    }

    [Theory]
    [InlineData("d.jsonl")]
    [InlineData("d.jsonl.gz")]
    [InlineData("d.jsonl.zst")]
    public void Json_lines_are_read_plain_and_compressed(string name)
    {
        Compressed(name, "{\"id\": 1, \"text\": \"one\\n\\u00e9\"}\r\n\n{\"text\": \"two\", \"more\": {\"text\": \"no\"}}\n{\"text\":\"\"}");
        Assert.Equal(["one\né", "two", ""], Texts(_temp[name]));
        var data = Dataset.Open(_temp[name]);
        Assert.Equal(("text", DataColumnKind.Text), (data.Column, data.Kind));
        Assert.Equal("no column", Assert.Throws<InvalidFileException>(() => Dataset.Open(_temp[name], new() { Column = "txt" })).Message[(_temp[name].Length + 6)..][..9]);
    }

    [Fact]
    public void Columns_are_found_in_saelens_order()
    {
        Assert.Equal(("tokens", DataColumnKind.Tokens), Detect("""{"text": "a", "problem": "b", "input_ids": [1], "tokens": [2]}"""));
        Assert.Equal(("input_ids", DataColumnKind.Tokens), Detect("""{"text": "a", "input_ids": [1]}"""));
        Assert.Equal(("text", DataColumnKind.Text), Detect("""{"problem": "b", "text": "a"}"""));
        Assert.Equal(("problem", DataColumnKind.Text), Detect("""{"problem": "b", "messages": []}"""));
        Assert.Equal(("messages", DataColumnKind.Messages), Detect("""{"messages": [{"role": "user", "content": "hi"}]}"""));
        _temp.Write("x.jsonl", "{\"body\": \"a\"}");
        Assert.Equal($"{_temp["x.jsonl"]}: has none of the columns tokens, input_ids, text, problem and messages; it has \"body\"; name the column", Assert.Throws<InvalidFileException>(() => Dataset.Open(_temp["x.jsonl"])).Message);
        Assert.Equal(["a"], Texts(_temp["x.jsonl"], new() { Column = "body" }));

        (string, DataColumnKind) Detect(string line) => Dataset.Open(_temp.Write("d.jsonl", line)) is var d ? (d.Column, d.Kind) : default;
    }

    [Fact]
    public void Malformed_lines_are_counted_with_their_numbers_and_borne_below_the_threshold()
    {
        var lines = Enumerable.Range(1, 2000).Select(i => $"{{\"text\": \"t{i}\"}}").ToList();
        lines[4] = "{\"text\": ";
        lines[9] = "{\"text\": 5}";
        lines[19] = "{\"body\": \"x\"}";
        lines[29] = "[1]";
        lines[39] = "{\"text\": \"\\ud800\"}";
        lines[49] = "{\"text\": null}";
        lines[59] = "{\"text\": \"a\"} x";
        var path = _temp.Write("d.jsonl", string.Join('\n', lines));
        var data = Dataset.Open(path);
        Assert.Equal(1993, data.Rows().Count());
        Assert.Equal(1993, data.Rows().Count()); // a second reading counts nothing twice
        Assert.Equal(7, data.Malformed);
        Assert.StartsWith($"{path}: 7 malformed rows were passed over: {path} line 5: is no JSON: ", data.MalformedNote, StringComparison.Ordinal);
        Assert.Contains($"{path} line 10: \"text\" is a number, not text; {path} line 20: has no \"text\"; {path} line 30: is no JSON object; {path} line 40: holds text that is no valid Unicode; ...", data.MalformedNote, StringComparison.Ordinal);

        path = _temp.Write("bad.jsonl", string.Join('\n', lines.Take(100).Concat(Enumerable.Repeat("x", 30))));
        Assert.StartsWith($"{path}: 11 of the first 104 rows are malformed, more than max_malformed_fraction = 0.01 allows: ", Assert.Throws<InvalidFileException>(() => Dataset.Open(path).Rows().Count()).Message, StringComparison.Ordinal);
        Assert.Equal(93, Dataset.Open(path, new() { MaxMalformedFraction = 0.5 }).Rows().Count());
    }

    [Fact]
    public async Task Parquet_files_give_text_and_token_ids()
    {
        var text = new DataField<string>("text");
        var list = new ListField("input_ids", new DataField<int?>("element"));
        foreach (var (name, from) in new[] { ("a.parquet", 0), ("b.parquet", 6) })
        {
            await using var stream = File.Create(_temp[name]);
            await using var writer = await ParquetWriter.CreateAsync(new ParquetSchema(text), stream, cancellationToken: TestContext.Current.CancellationToken);
            for (var g = 0; g < 2; g++)
            {
                using var group = writer.CreateRowGroup();
                await group.WriteAsync(text, Enumerable.Range(from + 3 * g, 3).Select(i => i == 4 ? null! : $"row {i} é").ToArray(), null);
            }
        }

        Assert.Equal(["row 0 é", "row 1 é", "row 2 é", "row 3 é", "row 5 é", "row 6 é", "row 7 é", "row 8 é", "row 9 é", "row 10 é", "row 11 é"], Texts(_temp.Path));
        Assert.Equal(["row 5 é", "row 6 é"], Dataset.Open(_temp.Path).Rows(new(0, 5)).Take(2).Select(r => r.Row.Text));
        _temp.Write("c.parquet", File.ReadAllBytes(_temp["b.parquet"]).AsSpan(0, 100).ToArray());
        Assert.StartsWith($"{_temp["c.parquet"]}: ", Assert.ThrowsAny<InvalidFileException>(() => Dataset.Open(_temp["c.parquet"])).Message, StringComparison.Ordinal);

        var lists = _temp["lists"];
        Directory.CreateDirectory(lists);
        await using (var stream = File.Create(Path.Combine(lists, "l.parquet")))
        {
            await using var writer = await ParquetWriter.CreateAsync(new ParquetSchema(list), stream, cancellationToken: TestContext.Current.CancellationToken);
            using var group = writer.CreateRowGroup();
            var leaf = (DataField)list.Item;
            // [1, 2, 3], [], null, [7]
            int top = leaf.MaxDefinitionLevel;
            await group.WriteAllPartsAsync<int>(leaf, new[] { 1, 2, 3, 7 }, new[] { top, top, top, 1, 0, top }, new[] { 0, 1, 1, 0, 0, 0 }, TestContext.Current.CancellationToken);
        }

        var data = Dataset.Open(lists);
        Assert.Equal(("input_ids", DataColumnKind.Tokens), (data.Column, data.Kind));
        Assert.Equal(["1,2,3", "", "7"], data.Rows().Select(r => string.Join(',', r.Row.Tokens!)));
        Assert.Equal(1, data.Malformed);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Arrow_shards_are_read_in_the_order_their_folder_states(bool stream)
    {
        var strings = new StringArray.Builder().Append("zero").AppendNull().Append("two é").Build();
        WriteArrow("data-00000-of-00002.arrow", stream, new Field("text", StringType.Default, true), strings);
        WriteArrow("data-00001-of-00002.arrow", stream, new Field("text", StringType.Default, true), new StringArray.Builder().Append("three").Build());
        Assert.Equal(["zero", "two é", "three"], Texts(_temp.Path));
        _temp.Write("state.json", """{"_data_files": [{"filename": "data-00001-of-00002.arrow"}, {"filename": "data-00000-of-00002.arrow"}]}""");
        Assert.Equal(["three", "zero", "two é"], Texts(_temp.Path));
        Assert.Equal(["two é"], Dataset.Open(_temp.Path).Rows(new(1, 1)).Select(r => r.Row.Text));
        _temp.Write("state.json", """{"_data_files": [{"filename": "../x.arrow"}]}""");
        Assert.Equal($"{_temp.Path}: names the file \"../x.arrow\", which lies outside the folder", Assert.Throws<InvalidFileException>(() => Dataset.Open(_temp.Path)).Message);
        _temp.Write("short.arrow", "abc");
        Assert.Equal($"{_temp["short.arrow"]}: is too short to be an Arrow file", Assert.Throws<InvalidFileException>(() => Dataset.Open(_temp["short.arrow"])).Message);
    }

    [Fact]
    public void Arrow_lists_are_token_ids_or_conversations()
    {
        var ids = new ListArray.Builder(Int64Type.Default);
        var values = (Int64Array.Builder)ids.ValueBuilder;
        foreach (var row in new long[][] { [5, 6], [], [7] })
        {
            ids.Append();
            values.Append(row.AsSpan());
        }

        WriteArrow("ids.arrow", true, new Field("tokens", new ListType(Int64Type.Default), true), ids.Build());
        Assert.Equal(["5,6", "", "7"], Dataset.Open(_temp["ids.arrow"]).Rows().Select(r => string.Join(',', r.Row.Tokens!)));
        Assert.Equal(["7"], Dataset.Open(_temp["ids.arrow"]).Rows(new(0, 2)).Select(r => string.Join(',', r.Row.Tokens!)));

        var message = new StructType([new Field("role", StringType.Default, true), new Field("content", StringType.Default, true)]);
        var messages = new StructArray(message, 3, [new StringArray.Builder().AppendRange(["user", "assistant", "user"]).Build(), new StringArray.Builder().AppendRange(["hi", "yo", "bye"]).Build()], ArrowBuffer.Empty);
        var offsets = new ArrowBuffer.Builder<int>().AppendRange([0, 2, 3]).Build();
        var type = new ListType(message);
        WriteArrow("chat.arrow", true, new Field("messages", type, true), new ListArray(type, 2, offsets, messages, ArrowBuffer.Empty));
        var data = Dataset.Open(_temp["chat.arrow"]);
        Assert.Equal(DataColumnKind.Messages, data.Kind);
        Assert.Equal(["""[{"role":"user","content":"hi"},{"role":"assistant","content":"yo"}]""", """[{"role":"user","content":"bye"}]"""], data.Rows().Select(r => r.Row.Messages!.ToJsonString()));
    }

    [Fact]
    public void A_folder_of_splits_gives_the_one_for_training()
    {
        Directory.CreateDirectory(_temp["train"]);
        _temp.Write("train/d.jsonl", """{"text": "t"}""");
        _temp.Write("dataset_dict.json", """{"splits": ["test", "train"]}""");
        Assert.Equal(["t"], Texts(_temp.Path));
        _temp.Write("dataset_dict.json", """{"splits": ["test", "validation"]}""");
        Assert.Equal($"{_temp.Path}: has no split \"train\"; name the folder of one of its splits: test, validation", Assert.Throws<InvalidFileException>(() => Dataset.Open(_temp.Path)).Message);
    }

    [Fact]
    public void What_is_no_data_set_is_refused()
    {
        Assert.Equal($"{_temp["no"]}: no such file or folder; a data set is a file or folder of .txt, .jsonl (.gz, .zst), .parquet or .arrow", Assert.Throws<InvalidFileException>(() => Dataset.Open(_temp["no"])).Message);
        Assert.Equal($"{_temp.Path}: the folder holds no .txt, .jsonl, .parquet or .arrow file", Assert.Throws<InvalidFileException>(() => Dataset.Open(_temp.Path)).Message);
        Assert.Equal($"{_temp["e.jsonl"]}: holds no row", Assert.Throws<InvalidFileException>(() => Dataset.Open(_temp.Write("e.jsonl", "\n"))).Message);
        Compressed("d.jsonl.zst", string.Concat(Enumerable.Range(0, 5000).Select(i => $"{{\"text\": \"{i * 7919}\"}}\n")));
        _temp.Write("cut.jsonl.zst", File.ReadAllBytes(_temp["d.jsonl.zst"]).SkipLast(20).ToArray());
        Assert.StartsWith($"{_temp["cut.jsonl.zst"]}: ", Assert.Throws<InvalidFileException>(() => Dataset.Open(_temp["cut.jsonl.zst"]).Rows().Count()).Message, StringComparison.Ordinal);
        _temp.Write("not.jsonl.gz", "not compressed");
        Assert.StartsWith($"{_temp["not.jsonl.gz"]}: ", Assert.Throws<InvalidFileException>(() => Dataset.Open(_temp["not.jsonl.gz"])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Every_place_can_be_gone_back_to()
    {
        _temp.Write("a.jsonl", string.Join('\n', Enumerable.Range(0, 20).Select(i => i % 7 == 3 ? "bad" : $"{{\"text\": \"a{i}\"}}")));
        _temp.Write("b.jsonl", string.Join('\n', Enumerable.Range(0, 5).Select(i => $"{{\"text\": \"b{i}\"}}")));
        var all = Dataset.Open(_temp.Path).Rows().ToList();
        for (var i = 0; i < all.Count; i++)
        {
            Assert.Equal(all.Skip(i).Select(r => r.Row.Text), Dataset.Open(_temp.Path).Rows(all[i].Before).Select(r => r.Row.Text));
            Assert.Equal(all.Skip(i + 1).Select(r => r.Row.Text), Dataset.Open(_temp.Path).Rows(all[i].After).Select(r => r.Row.Text));
        }
    }

    private static List<string> Texts(string path, DatasetOptions? options = null) => [.. Dataset.Open(path, options).Rows().Select(r => r.Row.Text!)];

    private void Compressed(string name, string text)
    {
        using var file = File.Create(_temp[name]);
        using Stream stream = Path.GetExtension(name) switch
        {
            ".gz" => new GZipStream(file, CompressionLevel.Fastest),
            ".zst" => new ZstdSharp.CompressionStream(file),
            _ => file,
        };
        stream.Write(Encoding.UTF8.GetBytes(text));
    }

    private void WriteArrow(string name, bool asStream, Field field, IArrowArray column)
    {
        using var file = File.Create(_temp[name]);
        var schema = new Schema([field], []);
        using var writer = asStream ? new ArrowStreamWriter(file, schema) : new ArrowFileWriter(file, schema);
        writer.WriteStart();
        writer.WriteRecordBatch(new RecordBatch(schema, [column], column.Length));
        writer.WriteEnd();
    }
}
