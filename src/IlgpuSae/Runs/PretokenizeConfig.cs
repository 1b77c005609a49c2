using System.ComponentModel;
using System.Text.Json.Serialization;

namespace IlgpuSae.Runs;

/// <summary>How a data set becomes contexts of token ids, in SAELens' fields.</summary>
public sealed record PretokenizeConfig
{
    /// <summary>Folder of the tokenizer: a model's.</summary>
    [Description("folder of the model whose tokenizer is used")]
    public string? TokenizerName { get; init; }

    /// <summary>The data set, or several with their weights as <c>PATH:WEIGHT,PATH:WEIGHT</c>.</summary>
    [Description("a file or folder of .txt, .jsonl (.gz, .zst), .parquet or .arrow; several as PATH:WEIGHT,PATH:WEIGHT")]
    public string? DatasetPath { get; init; }

    /// <summary>The column; null: found by its name.</summary>
    [Description("column of the data set; if not given the first of tokens, input_ids, text, problem and messages that it has")]
    public string? ColumnName { get; init; }

    /// <summary>Tokens in a context.</summary>
    [Description("tokens in a context")]
    public int ContextSize { get; init; } = 128;

    /// <summary>Whether the contexts are put in a random order.</summary>
    [Description("put the contexts in a random order")]
    public bool Shuffle { get; init; } = true;

    /// <summary>Decides that order.</summary>
    [Description("decides the random order")]
    public int Seed { get; init; } = 42;

    /// <summary>What every context begins with.</summary>
    [Description("what every context begins with: bos, eos, sep, none or a token id")]
    [JsonConverter(typeof(TextOrNumberConverter))]
    public string? BeginBatchToken { get; init; } = "bos";

    /// <summary>What every document begins with.</summary>
    [Description("what every document begins with: bos, eos, sep, none or a token id")]
    [JsonConverter(typeof(TextOrNumberConverter))]
    public string? BeginSequenceToken { get; init; }

    /// <summary>What stands between two documents of one context.</summary>
    [Description("between documents of one context: bos, eos, sep, none or a token id")]
    [JsonConverter(typeof(TextOrNumberConverter))]
    public string? SequenceSeparatorToken { get; init; } = "bos";

    /// <summary>One context a document.</summary>
    [Description("one context a document; shorter documents are dropped")]
    public bool DisableConcatSequences { get; init; }

    /// <summary>Text that ends a document inside a .txt file.</summary>
    [Description("text that ends a document inside a .txt file")]
    public string DocumentSeparator { get; init; } = "<|endoftext|>";

    /// <summary>Share of malformed rows that is borne.</summary>
    [Description("share of malformed rows that is borne before reading stops")]
    public double MaxMalformedFraction { get; init; } = 0.01;

    /// <summary>Folder for the result.</summary>
    [Description("folder for the result")]
    public string? SavePath { get; init; }
}
