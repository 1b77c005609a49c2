namespace IlgpuSae.Activations;

/// <summary>Contexts that lie in memory.</summary>
/// <param name="name">Where they come from, for messages.</param>
/// <param name="contextSize">Tokens in each.</param>
/// <param name="contexts">Token ids, [contextSize] each.</param>
public sealed class RecordedTokens(string name, int contextSize, IReadOnlyList<int[]> contexts) : TokenSource(contextSize)
{
    /// <inheritdoc/>
    public override string Name { get; } = name;

    /// <inheritdoc/>
    public override IEnumerable<int[]> Contexts() => contexts;
}
