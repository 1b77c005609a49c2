namespace IlgpuSae.Tokenizers;

/// <summary>Where short texts are filled up.</summary>
public enum PaddingSide
{
    /// <summary>Behind the text.</summary>
    Right,

    /// <summary>Before the text.</summary>
    Left,
}

/// <summary>Token ids of several texts, filled up to one length.</summary>
public sealed record TokenBatch
{
    /// <summary>The ids, row-major [rows, length].</summary>
    public required IReadOnlyList<int> Ids { get; init; }

    /// <summary>Number of texts.</summary>
    public required int Rows { get; init; }

    /// <summary>Tokens in a row: those of the longest text.</summary>
    public required int Length { get; init; }

    /// <summary>Tokens of each text without padding, [rows].</summary>
    public required IReadOnlyList<int> Lengths { get; init; }

    /// <summary>Where the padding is.</summary>
    public required PaddingSide Padding { get; init; }

    /// <summary>Whether a place holds a token of the text and no padding: the attention mask.</summary>
    /// <param name="row">The text.</param>
    /// <param name="position">The place in its row.</param>
    public bool IsText(int row, int position) => Padding == PaddingSide.Right ? position < Lengths[row] : position >= Length - Lengths[row];
}
