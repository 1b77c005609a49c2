using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>
/// Changes of weights that leave a model's probabilities as they are and make its parts easier to read, as TransformerLens
/// does them in <c>from_pretrained</c>. Source: its weight_processing.py and further_comments.md.
/// </summary>
public sealed record WeightProcessing
{
    /// <summary>Weights as they are stored (TransformerLens: <c>from_pretrained_no_processing</c>).</summary>
    public static WeightProcessing None { get; } = new();

    /// <summary>What TransformerLens' <c>from_pretrained</c> does unless told otherwise.</summary>
    public static WeightProcessing Default { get; } = new()
    {
        FoldLayerNorm = true,
        CenterWritingWeights = true,
        CenterUnembed = true,
        FoldValueBiases = true,
    };

    /// <summary>
    /// <c>fold_ln</c>: the weights and biases of ln1, ln2 and ln_final are multiplied into the matrices that read what
    /// they give, which with LayerNorm are centred too. <c>hook_normalized</c> is then x / scale, centred with LayerNorm.
    /// </summary>
    public bool FoldLayerNorm { get; init; }

    /// <summary>
    /// <c>center_writing_weights</c>: what writes to the residual stream writes vectors of mean 0, which LayerNorm would
    /// subtract anyway. Not with RMSNorm.
    /// </summary>
    public bool CenterWritingWeights { get; init; }

    /// <summary><c>center_unembed</c>: the logits of a token have mean 0 over the vocabulary. Not with a soft cap of the logits.</summary>
    public bool CenterUnembed { get; init; }

    /// <summary><c>fold_value_biases</c>: the biases of values, which every pattern passes on unchanged, move into that of attention's result.</summary>
    public bool FoldValueBiases { get; init; }

    /// <summary>
    /// <c>refactor_factored_attn_matrices</c>: W_Q and W_K of each head become factors of equal size with orthogonal
    /// columns, W_V carries the singular values of W_V W_O and W_O is orthogonal. Not with rotary positions, normalised
    /// queries and keys, or grouped heads.
    /// </summary>
    public bool RefactorFactoredAttentionMatrices { get; init; }

    /// <summary>Whether anything is changed at all.</summary>
    public bool Any => this != None;

    /// <summary>Reads the keyword arguments of TransformerLens' <c>from_pretrained</c>, such as SAELens' <c>model_from_pretrained_kwargs</c>.</summary>
    /// <param name="keywords">The object; keys that are not about processing are passed over.</param>
    /// <param name="otherwise">What absent keys mean.</param>
    /// <exception cref="InvalidFileException">A value is neither true nor false.</exception>
    public static WeightProcessing Read(JsonConfig keywords, WeightProcessing otherwise) => new()
    {
        FoldLayerNorm = keywords.GetBool("fold_ln", otherwise.FoldLayerNorm),
        CenterWritingWeights = keywords.GetBool("center_writing_weights", otherwise.CenterWritingWeights),
        CenterUnembed = keywords.GetBool("center_unembed", otherwise.CenterUnembed),
        FoldValueBiases = keywords.GetBool("fold_value_biases", otherwise.FoldValueBiases),
        RefactorFactoredAttentionMatrices = keywords.GetBool("refactor_factored_attn_matrices", otherwise.RefactorFactoredAttentionMatrices),
    };

    /// <summary>This processing without what a model does not allow; TransformerLens leaves the same things out with a warning.</summary>
    /// <param name="spec">The model.</param>
    /// <param name="note">Told what is left out, and why.</param>
    public WeightProcessing For(ModelSpec spec, Action<string>? note = null)
    {
        var p = this;
        if (FoldLayerNorm && spec.NormPlacement == NormPlacement.Behind)
        {
            note?.Invoke($"fold_ln is left out: the norms of {spec.Architecture} stand behind attention and MLP, so no matrix reads what they give");
            p = p with { FoldLayerNorm = false };
        }

        if (CenterWritingWeights && spec.Norm != NormKind.LayerNorm)
        {
            note?.Invoke($"center_writing_weights is left out: {spec.Architecture} has RMSNorm, which does not subtract the mean");
            p = p with { CenterWritingWeights = false };
        }

        if (CenterUnembed && spec.LogitSoftCap != 0)
        {
            note?.Invoke($"center_unembed is left out: the soft cap of {spec.Architecture}'s logits is not invariant under adding a constant");
            p = p with { CenterUnembed = false };
        }

        if (RefactorFactoredAttentionMatrices
            && (spec.Positions == PositionKind.Rotary || spec.QueryKeyNorm != QueryKeyNorm.None || spec.NKvHeads != spec.NHeads))
        {
            var why = spec.Positions == PositionKind.Rotary ? "rotary positions stand between W_Q and W_K"
                : spec.QueryKeyNorm != QueryKeyNorm.None ? "norms stand between W_Q and W_K" : "heads share their W_K and W_V";
            note?.Invoke($"refactor_factored_attn_matrices is left out: in {spec.Architecture} {why}");
            p = p with { RefactorFactoredAttentionMatrices = false };
        }

        return p;
    }
}
