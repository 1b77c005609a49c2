using IlgpuSae.Datasets;

namespace IlgpuSae.Activations;

/// <summary>A place in a stream of contexts, to the token. It is plain data: written as JSON and read back, it says the same.</summary>
public sealed record TokenPosition
{
    /// <summary>How often the end had been reached.</summary>
    public int Wraps { get; init; }

    /// <summary>Contexts served in all.</summary>
    public long Served { get; init; }

    /// <summary>Contexts served since the last beginning.</summary>
    public long InPass { get; init; }

    /// <summary>Where each data set stands; empty where contexts are counted.</summary>
    public IReadOnlyList<PartPosition> Parts { get; init; } = [];

    /// <summary>The data set whose row is being packed; -1: none.</summary>
    public int Current { get; init; } = -1;

    /// <summary>Tokens of that row that are used up.</summary>
    public int Offset { get; init; }

    /// <summary>Tokens of the context begun.</summary>
    public IReadOnlyList<int> Begun { get; init; } = [];
}

/// <summary>Where a data set of a mix stands.</summary>
/// <param name="Next">The next row to read.</param>
/// <param name="Tokens">Tokens read from it since the mix began; decides whose turn it is.</param>
/// <param name="Ended">Whether it reached its end since then.</param>
public sealed record PartPosition(DatasetCursor Next, long Tokens, bool Ended);
