namespace IlgpuSae.Activations;

/// <summary>How token sequences become contexts of one length; see <see cref="TokenPacker"/>.</summary>
public sealed record PackingOptions
{
    /// <summary>Tokens in a context, at least 1; at least 2 with a begin-batch token.</summary>
    public int ContextSize { get; init; } = 128;

    /// <summary>Put at the start of every context that does not already start with it; null: nothing.</summary>
    public int? BeginBatchToken { get; init; }

    /// <summary>Put before every sequence that does not already start with it; null: nothing.</summary>
    public int? BeginSequenceToken { get; init; }

    /// <summary>Put between two sequences of one context unless the second starts with it; null: nothing.</summary>
    public int? SequenceSeparatorToken { get; init; }

    /// <summary>One context a sequence: its first tokens; sequences that are too short are dropped.</summary>
    public bool DisableConcatSequences { get; init; }

    internal void Validate()
    {
        if (ContextSize < 1) throw new InvalidInputException($"context_size: {ContextSize} is not at least 1");
        if (ContextSize < 2 && BeginBatchToken is not null)
            throw new InvalidInputException("context_size: 1 leaves no room beside the token every context begins with; use at least 2");
    }
}
