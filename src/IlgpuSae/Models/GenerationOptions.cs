namespace IlgpuSae.Models;

/// <summary>How tokens are generated.</summary>
public sealed record GenerationOptions
{
    /// <summary>Tokens to add to each prompt at most; null: until the context is full.</summary>
    public int? MaxNewTokens { get; init; }

    /// <summary>Logits are divided by this before sampling; 0: greedy, always the likeliest token, the lowest id among equals.</summary>
    public double Temperature { get; init; }

    /// <summary>Sample among this many likeliest tokens; 0: all.</summary>
    public int TopK { get; init; }

    /// <summary>Sample among the likeliest tokens whose probabilities first reach this sum, 0 to 1; 1: all.</summary>
    public double TopP { get; init; } = 1;

    /// <summary>Seed of the sampling. The same seed gives the same tokens; each row of a batch has a stream of its own.</summary>
    public ulong Seed { get; init; }

    /// <summary>A row ends after any of these.</summary>
    public IReadOnlyCollection<int> StopTokens { get; init; } = [];

    /// <summary>
    /// Attached to every forward pass. With the cache they see the prompt once and then one position at a time
    /// (<see cref="HookSite.FirstPosition"/>); without it, the whole sequence at every step.
    /// </summary>
    public IReadOnlyList<Hook> Hooks { get; init; } = [];

    /// <summary>Keep keys and values rather than run the whole sequence at every step.</summary>
    public bool UseCache { get; init; } = true;

    internal void Validate()
    {
        if (MaxNewTokens is < 1) throw new InvalidInputException($"generate: max new tokens is {MaxNewTokens}, expected at least 1");
        if (!(Temperature >= 0) || double.IsInfinity(Temperature)) throw new InvalidInputException($"generate: temperature is {Temperature}, expected 0 (greedy) or more");
        if (TopK < 0) throw new InvalidInputException($"generate: top-k is {TopK}, expected 0 (all) or more");
        if (!(TopP is > 0 and <= 1)) throw new InvalidInputException($"generate: top-p is {TopP}, expected more than 0 and at most 1");
    }
}
