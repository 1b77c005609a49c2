namespace IlgpuSae.Saes;

/// <summary>What some columns of a source's rows are: one hook's activations, or the input or target of a transcoder.</summary>
/// <param name="Name">The hook or tensor; empty where there is nothing to tell apart.</param>
/// <param name="First">First column.</param>
/// <param name="Width">Columns.</param>
public readonly record struct ColumnBlock(string Name, int First, int Width)
{
    /// <summary>Blocks that stand side by side, in order.</summary>
    /// <param name="parts">Names and widths.</param>
    public static IReadOnlyList<ColumnBlock> SideBySide(params IEnumerable<(string Name, int Width)> parts)
    {
        var blocks = new List<ColumnBlock>();
        foreach (var (name, width) in parts) blocks.Add(new ColumnBlock(name, blocks.Count == 0 ? 0 : blocks[^1].First + blocks[^1].Width, width));
        return blocks;
    }
}
