namespace IlgpuSae.Tensors;

/// <summary>
/// SAE activations of a batch as compressed rows [rows, d_sae]: every architecture encodes into it, decodes from it and
/// back-propagates through it. Only features that are not zero are stored. <see cref="Values"/> is an ordinary
/// tensor that a tape can track; the pattern (offsets and indices) is constant.
/// </summary>
/// <param name="columns">d_sae.</param>
/// <param name="rowOffsets">I32 [rows + 1], ascending; row r holds entries rowOffsets[r] .. rowOffsets[r+1]-1.</param>
/// <param name="indices">I32 [nnz], feature indices, ascending within a row.</param>
/// <param name="values">F32 [nnz], activations.</param>
public sealed class SparseFeatures(int columns, Tensor rowOffsets, Tensor indices, Tensor values)
{
    private PatternCache _cache = new();

    /// <summary>Number of rows (tokens).</summary>
    public int Rows { get; } = rowOffsets.Shape[0] - 1;

    /// <summary>Number of features, d_sae.</summary>
    public int Columns { get; } = columns;

    /// <summary>Number of stored entries.</summary>
    public int EntryCount { get; } = checked((int)values.Count);

    /// <summary>I32 [rows + 1]: where each row's entries start; the last is <see cref="EntryCount"/>.</summary>
    public Tensor RowOffsets { get; } = rowOffsets;

    /// <summary>I32 [nnz]: feature of each entry, ascending within a row.</summary>
    public Tensor Indices { get; } = indices;

    /// <summary>F32 [nnz]: activation of each entry.</summary>
    public Tensor Values { get; } = values;

    /// <summary>Share of entries that are stored, 0..1; 0 for an empty batch.</summary>
    public double Density => Rows == 0 || Columns == 0 ? 0 : (double)EntryCount / ((double)Rows * Columns);

    /// <summary>Mean number of stored entries a row; 0 for an empty batch.</summary>
    public double L0 => Rows == 0 ? 0 : (double)EntryCount / Rows;

    /// <summary>The same entries ordered by feature; made on first use by the kernel that transposes, shared by all values.</summary>
    internal SparseColumns? ByColumn
    {
        get => _cache.Columns;
        set => _cache.Columns = value;
    }

    /// <summary>The same pattern with other values.</summary>
    /// <param name="values">F32 [nnz].</param>
    /// <exception cref="ShapeException">The number of values is not <see cref="EntryCount"/>.</exception>
    public SparseFeatures With(Tensor values)
    {
        if (values.Count != EntryCount)
            throw new ShapeException($"sparse features: {values.Shape} values for {EntryCount} entries");
        return new SparseFeatures(Columns, RowOffsets, Indices, values) { _cache = _cache };
    }

    /// <summary>What is known about a pattern.</summary>
    private sealed class PatternCache
    {
        internal SparseColumns? Columns { get; set; }
    }
}

/// <summary>The pattern of <see cref="SparseFeatures"/> ordered by feature, then by row (a stable counting sort).</summary>
/// <param name="ColumnOffsets">I32 [d_sae + 1].</param>
/// <param name="RowIndices">I32 [nnz]: row of each entry, ascending within a feature.</param>
/// <param name="Entries">I32 [nnz]: place of each entry in the row order, so values need no copy.</param>
internal sealed record SparseColumns(Tensor ColumnOffsets, Tensor RowIndices, Tensor Entries);
