namespace IlgpuSae.Tokenizers;

/// <summary>A tokenizer's special tokens by role, and whether texts get them by default.</summary>
internal sealed record TokenizerSpecials
{
    /// <summary>Begins a text.</summary>
    public int? Bos { get; init; }

    /// <summary>Ends a text.</summary>
    public int? Eos { get; init; }

    /// <summary>Fills up short texts.</summary>
    public int? Pad { get; init; }

    /// <summary>Stands for what cannot be expressed.</summary>
    public int? Unk { get; init; }

    /// <summary>Stands between two texts.</summary>
    public int? Sep { get; init; }

    /// <summary>Whether texts begin with <see cref="Bos"/> by default.</summary>
    public bool AddBos { get; init; }

    /// <summary>Whether texts end with <see cref="Eos"/> by default.</summary>
    public bool AddEos { get; init; }

    /// <summary>Every token that is not text.</summary>
    public IReadOnlySet<int> All { get; init; } = new HashSet<int>();
}
