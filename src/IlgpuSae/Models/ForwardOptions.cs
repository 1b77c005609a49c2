namespace IlgpuSae.Models;

/// <summary>How a forward pass is run.</summary>
public sealed record ForwardOptions
{
    /// <summary>No hooks, to the end.</summary>
    public static ForwardOptions Default { get; } = new();

    /// <summary>Functions attached to hook points; several at one point run in this order, each seeing what the one before made.</summary>
    public IReadOnlyList<Hook> Hooks { get; init; } = [];

    /// <summary>
    /// Stop before this block and return the residual stream that enters it, as TransformerLens does: 0 returns the
    /// embeddings, n_layers what leaves the last block (without the final normalisation), -1 what enters the last block.
    /// Hooks from there on are not reached. Null: run to the logits.
    /// </summary>
    public int? StopAtLayer { get; init; }

    /// <summary>
    /// Keys and values of the tokens before these; the pass appends its own. Null: the tokens are whole sequences. With a
    /// cache no gradients are recorded.
    /// </summary>
    public KeyValueCache? Cache { get; init; }

    /// <summary>
    /// How many tokens at the beginning of each row are padding (left padding), where sequences of different lengths
    /// make a batch; empty: none. A row then gets the numbers it would get alone. With a cache, given with its first
    /// tokens. Gradients do not pass through a padded batch.
    /// </summary>
    public IReadOnlyList<int> Padding { get; init; } = [];
}
