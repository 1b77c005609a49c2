using System.Text.Json.Nodes;

namespace IlgpuSae.Datasets;

/// <summary>What a column of a data set holds.</summary>
public enum DataColumnKind
{
    /// <summary>Text, one document a row.</summary>
    Text,

    /// <summary>Token ids made before, one context or more a row.</summary>
    Tokens,

    /// <summary>Conversations: lists of messages with role and content.</summary>
    Messages,
}

/// <summary>One row of a data set; one of the three is set.</summary>
public sealed record DataRow
{
    /// <summary>A document, or a part of one.</summary>
    public string? Text { get; init; }

    /// <summary>Token ids.</summary>
    public int[]? Tokens { get; init; }

    /// <summary>A conversation.</summary>
    public JsonArray? Messages { get; init; }
}

/// <summary>A place between two rows of a data set; it can be kept as JSON and gone back to.</summary>
/// <param name="File">The file, counted in the data set's order.</param>
/// <param name="Row">The next row of it, malformed ones counted as well.</param>
public sealed record DatasetCursor(int File, long Row)
{
    /// <summary>Before the first row.</summary>
    public static DatasetCursor Start { get; } = new(0, 0);
}

/// <summary>How a data set is read.</summary>
public sealed record DatasetOptions
{
    /// <summary>The column; null: the first of tokens, input_ids, text, problem and messages that the first row has.</summary>
    public string? Column { get; init; }

    /// <summary>Text that ends a document inside a .txt file; empty: a file is one document.</summary>
    public string DocumentSeparator { get; init; } = "";

    /// <summary>Share of malformed rows that is borne; beyond ten rows and this share reading stops.</summary>
    public double MaxMalformedFraction { get; init; } = 0.01;

    internal void Validate()
    {
        if (MaxMalformedFraction is not (>= 0 and <= 1)) throw new InvalidInputException($"max_malformed_fraction: {MaxMalformedFraction} is not a share between 0 and 1");
    }
}
