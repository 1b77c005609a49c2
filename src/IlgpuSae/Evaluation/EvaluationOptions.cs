using System.ComponentModel;

namespace IlgpuSae.Evaluation;

/// <summary>What <see cref="SaeEvaluator"/> measures, and on how much.</summary>
public sealed record EvaluationOptions
{
    /// <summary>Contexts the model runs at once.</summary>
    [Description("contexts the model runs at once")]
    public int BatchSizePrompts { get; init; } = 8;

    /// <summary>Batches for cross-entropy and KL (three runs of the model each); 0: none; null: until the tokens end.</summary>
    [Description("batches for cross-entropy and KL; 0: none")]
    public int? NEvalReconstructionBatches { get; init; } = 10;

    /// <summary>Batches for reconstruction, sparsity and feature statistics; 0: none; null: until the tokens end.</summary>
    [Description("batches for reconstruction and sparsity statistics; 0: none")]
    public int? NEvalSparsityVarianceBatches { get; init; } = 10;

    /// <summary>Token ids whose positions do not count and keep their activations.</summary>
    [Browsable(false)]
    public IReadOnlyList<int> ExcludedTokens { get; init; } = [];

    /// <summary>Share of tokens above which a feature counts as dense.</summary>
    [Description("share of tokens above which a feature counts as dense")]
    public double DenseAbove { get; init; } = 0.1;

    /// <summary>Rows of a synthetic source to judge on.</summary>
    [Description("rows of a synthetic source to judge on")]
    public int EvalSamples { get; init; } = 100_000;

    /// <summary>One head of a hook that has heads; null: all.</summary>
    [Browsable(false)]
    public int? HookHeadIndex { get; init; }

    /// <summary>Hook whose activations a transcoder gives; null: as its metadata say.</summary>
    [Browsable(false)]
    public string? HookNameOut { get; init; }

    /// <summary>One head of <see cref="HookNameOut"/>; null: all.</summary>
    [Browsable(false)]
    public int? HookHeadIndexOut { get; init; }

    /// <summary>Factor on activations before encoding, for an SAE whose scale was not folded in; null: none.</summary>
    [Browsable(false)]
    public double? ActivationScale { get; init; }

    internal void Validate()
    {
        if (BatchSizePrompts < 1) throw new InvalidInputException($"batch_size_prompts: {BatchSizePrompts} is not at least 1");
        if (NEvalReconstructionBatches is < 0) throw new InvalidInputException($"n_eval_reconstruction_batches: {NEvalReconstructionBatches} is negative");
        if (NEvalSparsityVarianceBatches is < 0) throw new InvalidInputException($"n_eval_sparsity_variance_batches: {NEvalSparsityVarianceBatches} is negative");
        if (EvalSamples < 1) throw new InvalidInputException($"eval_samples: {EvalSamples} is not at least 1");
        if (ActivationScale is { } s && !(s > 0 && double.IsFinite(s))) throw new InvalidInputException($"activation scale: {s} is not a positive number");
        if (!(DenseAbove is > 0 and <= 1)) throw new InvalidInputException($"dense_above: {DenseAbove} is not in (0, 1]");
    }
}
