namespace IlgpuSae.Models;

/// <summary>What becomes of a generation that would pass the model's context.</summary>
public enum ContextOverflow
{
    /// <summary>It is refused at once, with the number of tokens that fit.</summary>
    Refuse,

    /// <summary>It ends when the context is full (<see cref="FinishReason.ContextFull"/>).</summary>
    Stop,

    /// <summary>
    /// The older half of the context is forgotten whenever it is full: the tokens kept are then at the first positions,
    /// BOS is not among them.
    /// </summary>
    Slide,
}

/// <summary>The names users give to <see cref="ContextOverflow"/>.</summary>
public static class ContextOverflows
{
    /// <summary>Reads a name: refuse, stop or slide.</summary>
    /// <param name="name">The name.</param>
    /// <exception cref="InvalidInputException">It is none of them.</exception>
    public static ContextOverflow Parse(string name) => name switch
    {
        "refuse" => ContextOverflow.Refuse,
        "stop" => ContextOverflow.Stop,
        "slide" => ContextOverflow.Slide,
        _ => throw new InvalidInputException($"overflow \"{name}\" is not known; known: refuse, stop, slide"),
    };
}

/// <summary>Why a row ended.</summary>
public enum FinishReason
{
    /// <summary>It goes on.</summary>
    None,

    /// <summary>A stop token came.</summary>
    StopToken,

    /// <summary>A stop string came.</summary>
    StopString,

    /// <summary>It has as many new tokens as were asked for.</summary>
    Length,

    /// <summary>The context is full.</summary>
    ContextFull,
}

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

    /// <summary>
    /// Divides the positive logits, and multiplies the negative ones, of tokens that the row has already, prompt
    /// included: transformers' <c>repetition_penalty</c> (Keskar et al. 2019, arXiv:1909.05858). 1: none.
    /// </summary>
    public double RepetitionPenalty { get; init; } = 1;

    /// <summary>
    /// Subtracted, after the temperature, from a token's logit for every time the row has it, prompt included:
    /// TransformerLens' <c>freq_penalty</c>. At temperature 0, where TransformerLens passes over it, it is subtracted from
    /// the logits themselves. 0: none.
    /// </summary>
    public double FrequencyPenalty { get; init; }

    /// <summary>Seed of the sampling. The same seed gives the same tokens; each row of a batch has a stream of its own.</summary>
    public ulong Seed { get; init; }

    /// <summary>The first row's stream: row r draws from stream FirstRow + r, so that a row of a batch can be repeated alone.</summary>
    public ulong FirstRow { get; init; }

    /// <summary>A row ends after any of these.</summary>
    public IReadOnlyCollection<int> StopTokens { get; init; } = [];

    /// <summary>What becomes of a generation that would pass the context.</summary>
    public ContextOverflow Overflow { get; init; }

    /// <summary>
    /// Attached to every forward pass. With the cache they see the prompt once and then one position at a time
    /// (<see cref="HookSite.FirstPosition"/>); without it, the whole sequence at every step.
    /// </summary>
    public IReadOnlyList<Hook> Hooks { get; init; } = [];

    /// <summary>Keep keys and values rather than run the whole sequence at every step.</summary>
    public bool UseCache { get; init; } = true;

    /// <summary>Told each row's new tokens in order; true ends the row with <see cref="FinishReason.StopString"/>.</summary>
    internal Func<int, int, bool>? EndsAfter { get; init; }

    internal void Validate()
    {
        if (MaxNewTokens is < 1) throw new InvalidInputException($"generate: max new tokens is {MaxNewTokens}, expected at least 1");
        if (!(Temperature >= 0) || double.IsInfinity(Temperature)) throw new InvalidInputException($"generate: temperature is {Temperature}, expected 0 (greedy) or more");
        if (TopK < 0) throw new InvalidInputException($"generate: top-k is {TopK}, expected 0 (all) or more");
        if (!(TopP is > 0 and <= 1)) throw new InvalidInputException($"generate: top-p is {TopP}, expected more than 0 and at most 1");
        if (!(RepetitionPenalty > 0) || double.IsInfinity(RepetitionPenalty))
            throw new InvalidInputException($"generate: repetition penalty is {RepetitionPenalty}, expected more than 0 (1: none)");
        if (!double.IsFinite(FrequencyPenalty)) throw new InvalidInputException($"generate: frequency penalty is {FrequencyPenalty}, expected a number (0: none)");
        if (Overflow == ContextOverflow.Slide && MaxNewTokens is null)
            throw new InvalidInputException("generate: a sliding context has no end of its own; give the number of new tokens");
    }
}
