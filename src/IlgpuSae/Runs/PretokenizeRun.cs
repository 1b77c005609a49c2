using System.Globalization;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Nodes;
using IlgpuSae.Activations;
using IlgpuSae.Datasets;
using IlgpuSae.Files;
using IlgpuSae.Kernels;
using IlgpuSae.Tokenizers;

namespace IlgpuSae.Runs;

/// <summary>What <see cref="PretokenizeRun"/> wrote.</summary>
/// <param name="Contexts">Contexts written.</param>
/// <param name="Tokens">Tokens in them.</param>
/// <param name="Malformed">Malformed rows passed over.</param>
public sealed record PretokenizeResult(long Contexts, long Tokens, long Malformed);

/// <summary>
/// Tokenises a data set once, for many runs: a folder that Hugging Face's <c>load_from_disk</c> opens (column
/// <c>input_ids</c>), with SAELens' <c>sae_lens.json</c>, and the same contexts as <c>tokens.safetensors</c>. Memory
/// does not grow with the data set. Unlike SAELens, which packs a thousand documents at a time and drops what each
/// thousand leaves over, documents are packed in one go.
/// </summary>
public sealed class PretokenizeRun
{
    private const int RowsAtOnce = 1000;
    private const long ShardBytes = 500L << 20;

    /// <summary>Told contexts done.</summary>
    public Action<long>? Progress { get; init; }

    /// <summary>Told what the user ought to know.</summary>
    public Action<string>? Note { get; init; }

    /// <summary>Runs it.</summary>
    /// <param name="config">What to do.</param>
    /// <param name="cancellation">Stops between two contexts; nothing is written.</param>
    /// <exception cref="InvalidInputException">A path is missing or cannot be read, or a token does not exist.</exception>
    public PretokenizeResult Execute(PretokenizeConfig config, CancellationToken cancellation = default)
    {
        var tokenizerPath = config.TokenizerName ?? throw new InvalidInputException("tokenizer_name: missing; name the folder of a model with a tokenizer");
        var dataset = config.DatasetPath ?? throw new InvalidInputException("dataset_path: missing; name a file or folder of .txt, .jsonl, .parquet or .arrow");
        var save = config.SavePath ?? throw new InvalidInputException("save_path: missing; name the folder for the result");
        var tokenizer = Tokenizer.Load(tokenizerPath);
        var packing = new PackingOptions
        {
            ContextSize = config.ContextSize,
            BeginBatchToken = Token(tokenizer, "begin_batch_token", config.BeginBatchToken),
            BeginSequenceToken = Token(tokenizer, "begin_sequence_token", config.BeginSequenceToken),
            SequenceSeparatorToken = Token(tokenizer, "sequence_separator_token", config.SequenceSeparatorToken),
            DisableConcatSequences = config.DisableConcatSequences,
        };
        var parts = DataMix.Open(dataset, new DataConfig { DatasetColumn = config.ColumnName, DocumentSeparator = config.DocumentSeparator, MaxMalformedFraction = config.MaxMalformedFraction });
        foreach (var part in parts)
            if (part.Data.Kind == DataColumnKind.Tokens) throw new InvalidInputException($"{part.Data.Path}: column \"{part.Data.Column}\" holds token ids already; train on it as it is");
        // Each text gets the special tokens that its tokenizer adds by itself, as SAELens does it here.
        using var source = new DatasetTokenSource(parts, tokenizer, packing, addBos: null);
        using var folder = AtomicDirectory.Create(save);
        var raw = folder.FileIn("contexts.tmp");
        var (count, digest) = Collect(source, raw, cancellation);
        foreach (var note in source.Notes) Note?.Invoke(note);
        if (count == 0) throw new InvalidInputException($"{source.Name}: holds no context of {config.ContextSize} tokens; use more text or a smaller context_size");
        using (var contexts = new Contexts(raw, count, config.ContextSize, config.Shuffle ? config.Seed : null))
        {
            new SafetensorsWriter().Add("tokens", SafetensorsType.I32, [count, config.ContextSize], stream => contexts.CopyTo(stream, cancellation)).Save(folder.FileIn("tokens.safetensors"));
            var shards = (int)(count * config.ContextSize * 4 / ShardBytes) + 1;
            for (var s = 0; s < shards; s++)
                TokenShard.Write(folder.FileIn(Shard(s, shards)), contexts.Rows(count * s / shards, count * (s + 1) / shards, cancellation), RowsAtOnce);
            WriteDescriptions(folder, config, dataset, shards, digest);
        }

        File.Delete(raw);
        folder.Commit();
        return new PretokenizeResult(count, count * config.ContextSize, parts.Sum(p => p.Data.Malformed));
    }

    private static int? Token(Tokenizer tokenizer, string field, string? choice) => choice switch
    {
        null or "none" or "" => null,
        "bos" => tokenizer.BosToken ?? throw Lacks(field, "BOS"),
        "eos" => tokenizer.EosToken ?? throw Lacks(field, "EOS"),
        "sep" => tokenizer.SepToken ?? throw Lacks(field, "SEP"),
        _ when int.TryParse(choice, NumberStyles.None, CultureInfo.InvariantCulture, out var id) && id < tokenizer.VocabularySize => id,
        _ => throw new InvalidInputException($"{field}: \"{choice}\" is none of bos, eos, sep, none and the token ids 0..{tokenizer.VocabularySize - 1}"),
    };

    private static InvalidInputException Lacks(string field, string token) => new($"{field}: the tokenizer has no {token} token; use another, none, or a token id");

    private static string Shard(int i, int n) => string.Create(CultureInfo.InvariantCulture, $"data-{i:D5}-of-{n:D5}.arrow");

    /// <summary>All contexts in one file, so that their number is known before anything is written that states it.</summary>
    private (long Count, string Digest) Collect(DatasetTokenSource source, string path, CancellationToken cancellation)
    {
        using var file = new FileStream(path, FileMode.CreateNew, FileAccess.Write, FileShare.None, 1 << 20);
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var count = 0L;
        foreach (var context in source.Contexts())
        {
            cancellation.ThrowIfCancellationRequested();
            var bytes = MemoryMarshal.AsBytes<int>(context);
            file.Write(bytes);
            hash.AppendData(bytes);
            if (++count % 100 == 0) Progress?.Invoke(count);
        }

        return (count, Convert.ToHexStringLower(hash.GetHashAndReset())[..16]);
    }

    private static void WriteDescriptions(AtomicDirectory folder, PretokenizeConfig config, string dataset, int shards, string digest)
    {
        var files = new JsonArray([.. Enumerable.Range(0, shards).Select(s => (JsonNode)new JsonObject { ["filename"] = Shard(s, shards) })]);
        Write("state.json", new JsonObject
        {
            ["_data_files"] = files,
            ["_fingerprint"] = digest,
            ["_format_columns"] = null,
            ["_format_kwargs"] = new JsonObject(),
            ["_format_type"] = null,
            ["_output_all_columns"] = false,
            ["_split"] = "train",
        });
        Write("dataset_info.json", new JsonObject { ["citation"] = "", ["description"] = "", ["features"] = TokenShard.Features(), ["homepage"] = "", ["license"] = "" });
        Write("sae_lens.json", new JsonObject
        {
            ["sae_lens_version"] = $"ilgpusae {typeof(PretokenizeRun).Assembly.GetName().Version!.ToString(3)}",
            ["tokenizer_name"] = Path.GetFileName(Path.TrimEndingDirectorySeparator(config.TokenizerName!)),
            ["original_dataset"] = string.Join(',', dataset.Split(',').Select(p => Path.GetFileName(Path.TrimEndingDirectorySeparator(p)))),
            ["original_dataset_name"] = null,
            ["original_split"] = "train",
            ["original_data_files"] = null,
            ["original_column_name"] = config.ColumnName ?? "text",
            ["context_size"] = config.ContextSize,
            ["shuffled"] = config.Shuffle,
            ["seed"] = config.Shuffle ? config.Seed : null,
            ["begin_batch_token"] = config.BeginBatchToken,
            ["begin_sequence_token"] = config.BeginSequenceToken,
            ["sequence_separator_token"] = config.SequenceSeparatorToken,
            ["disable_concat_sequences"] = config.DisableConcatSequences,
        });

        void Write(string name, JsonObject json) => AtomicFile.WriteText(folder.FileIn(name), json.ToJsonString(new JsonSerializerOptions { WriteIndented = true }) + "\n");
    }

    /// <summary>The contexts collected, in their order or a random one.</summary>
    private sealed class Contexts : IDisposable
    {
        private readonly Microsoft.Win32.SafeHandles.SafeFileHandle _file;
        private readonly long _count;
        private readonly int _size;
        private readonly int[]? _order;

        public Contexts(string path, long count, int size, int? seed)
        {
            if (seed is not null && count > Array.MaxLength) throw new InvalidInputException($"shuffle: {count} contexts are too many to put in a random order at once; use shuffle false");
            (_count, _size) = (count, size);
            _order = seed is { } s ? Philox.Permutation((int)count, (ulong)s, 0) : null;
            _file = File.OpenHandle(path);
        }

        public IEnumerable<int[]> Rows(long from, long to, CancellationToken cancellation)
        {
            for (var i = from; i < to; i++)
            {
                cancellation.ThrowIfCancellationRequested();
                var row = new int[_size];
                var bytes = MemoryMarshal.AsBytes(row.AsSpan());
                if (RandomAccess.Read(_file, bytes, (_order?[i] ?? i) * bytes.Length) != bytes.Length) throw new IlgpuSaeException("the contexts collected so far could not be read back; the disk fails");
                yield return row;
            }
        }

        public void CopyTo(Stream stream, CancellationToken cancellation)
        {
            foreach (var row in Rows(0, _count, cancellation)) stream.Write(MemoryMarshal.AsBytes<int>(row));
        }

        public void Dispose() => _file.Dispose();
    }
}
