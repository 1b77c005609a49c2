using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Runs;

/// <summary>Some blocks of a source's columns, as if it had no others.</summary>
internal sealed class BlockView : IActivationSource
{
    private readonly IActivationSource _source;
    private readonly IReadOnlyList<ColumnBlock> _from;
    private readonly bool _whole;

    /// <summary>Looks at blocks of a source.</summary>
    /// <param name="source">The source; it stays the caller's.</param>
    /// <param name="blocks">Blocks of its columns, in the wanted order.</param>
    public BlockView(IActivationSource source, IReadOnlyList<ColumnBlock> blocks)
    {
        (_source, _from) = (source, blocks);
        Blocks = ColumnBlock.SideBySide(blocks.Select(b => (b.Name, b.Width)));
        Width = blocks.Sum(b => b.Width);
        _whole = Width == source.Width && blocks.Zip(Blocks).All(p => p.First.First == p.Second.First);
    }

    /// <inheritdoc/>
    public int Width { get; }

    /// <inheritdoc/>
    public IReadOnlyList<ColumnBlock> Blocks { get; }

    /// <inheritdoc/>
    public Tensor? Next(TensorScope scope, int rows)
    {
        var batch = _source.Next(scope, rows);
        if (batch is null || _whole) return batch;
        Tensor[] parts = [.. _from.Select(b => Columns.Take(scope, batch, b.First, b.Width))];
        return parts.Length == 1 ? parts[0] : Columns.Join(scope, parts);
    }

    /// <inheritdoc/>
    public double? MeanNorm(Device device, int batchRows, ColumnBlock? columns = null)
    {
        if (columns is not { } wanted) return _whole ? _source.MeanNorm(device, batchRows) : _from.Count == 1 ? _source.MeanNorm(device, batchRows, _from[0]) : null;
        for (var i = 0; i < Blocks.Count; i++)
            if (Blocks[i].First == wanted.First && Blocks[i].Width == wanted.Width) return _source.MeanNorm(device, batchRows, _from[i]);
        return null;
    }
}
