using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>Which normalisation the blocks use.</summary>
public enum NormKind
{
    /// <summary>(x - mean) / sqrt(variance + eps) * w + b.</summary>
    LayerNorm,

    /// <summary>x / sqrt(mean(x^2) + eps) * w.</summary>
    RmsNorm,
}

/// <summary>How positions reach the model.</summary>
public enum PositionKind
{
    /// <summary>A learned vector a position, added to the token's embedding.</summary>
    Learned,

    /// <summary>Rotation of queries and keys.</summary>
    Rotary,

    /// <summary>A penalty on attention scores that grows with the distance (ALiBi); a slope a head.</summary>
    Alibi,
}

/// <summary>Where a block's normalisations stand.</summary>
public enum NormPlacement
{
    /// <summary>Before attention and MLP.</summary>
    Before,

    /// <summary>Before, and a second one behind, before the results join the residual stream (Gemma 2).</summary>
    BeforeAndBehind,

    /// <summary>Only behind attention and MLP (OLMo 2); they are <c>ln1</c> and <c>ln2</c> all the same.</summary>
    Behind,
}

/// <summary>Whether queries and keys are normalised, by RMSNorm, before they are rotated.</summary>
public enum QueryKeyNorm
{
    /// <summary>They are not.</summary>
    None,

    /// <summary>Each head by itself, with one weight [d_head] for all heads (Qwen 3, Gemma 3).</summary>
    EachHead,

    /// <summary>All heads of a token together, with a weight [heads * d_head] (OLMo 2).</summary>
    AllHeads,
}

/// <summary>
/// What a transformer is made of: sizes and the differences between families, as data. A <see cref="ModelFamily"/> reads
/// it from a configuration; the forward pass, the hook names and the list of parameters follow from it alone.
/// </summary>
public sealed record ModelSpec
{
    /// <summary>Name of the architecture as Hugging Face writes it, such as <c>GPT2LMHeadModel</c>.</summary>
    public required string Architecture { get; init; }

    /// <summary>Width of the residual stream.</summary>
    public required int DModel { get; init; }

    /// <summary>Number of blocks.</summary>
    public required int NLayers { get; init; }

    /// <summary>Number of query heads.</summary>
    public required int NHeads { get; init; }

    /// <summary>Number of key and value heads; divides <see cref="NHeads"/>.</summary>
    public required int NKvHeads { get; init; }

    /// <summary>Width of one head.</summary>
    public required int DHead { get; init; }

    /// <summary>Width of the MLP's hidden layer.</summary>
    public required int DMlp { get; init; }

    /// <summary>Longest context, in tokens.</summary>
    public required int NCtx { get; init; }

    /// <summary>Number of token ids.</summary>
    public required int DVocab { get; init; }

    /// <summary>Normalisation of the blocks and at the end.</summary>
    public required NormKind Norm { get; init; }

    /// <summary>Added under the root of the normalisation.</summary>
    public required float Eps { get; init; }

    /// <summary>Added to the normalisation's weight: Gemma stores w - 1.</summary>
    public float NormWeightOffset { get; init; }

    /// <summary>Where the blocks' normalisations stand.</summary>
    public NormPlacement NormPlacement { get; init; }

    /// <summary>
    /// ln1, ln2 and ln_final have no weights of their own: they were multiplied into the matrices behind them
    ///.
    /// </summary>
    public bool FoldedNorms { get; init; }

    /// <summary>A LayerNorm, <c>embed.ln</c>, of the token embeddings (BLOOM).</summary>
    public bool EmbedNorm { get; init; }

    /// <summary>Normalisation of queries and keys.</summary>
    public QueryKeyNorm QueryKeyNorm { get; init; }

    /// <summary>The MLP's activation function.</summary>
    public required ActivationKind Activation { get; init; }

    /// <summary>MLP of the form act(x W_gate) * (x W_in), as in SwiGLU.</summary>
    public bool GatedMlp { get; init; }

    /// <summary>How positions reach the model.</summary>
    public required PositionKind Positions { get; init; }

    /// <summary>Rotary: how many of a head's dimensions are rotated, even.</summary>
    public int RotaryDim { get; init; }

    /// <summary>Rotary: theta, the base of the wavelengths.</summary>
    public double RotaryBase { get; init; } = 10000;

    /// <summary>Rotary: how the frequencies were changed for longer contexts.</summary>
    public RopeScaling RotaryScaling { get; init; } = RopeScaling.None;

    /// <summary>Rotary: theta in layers with a window, whose frequencies are not scaled (Gemma 3); null: as in the others.</summary>
    public double? LocalRotaryBase { get; init; }

    /// <summary>Rotary: neighbouring dimensions form the pairs (GPT-J) rather than the two halves.</summary>
    public bool RotaryAdjacentPairs { get; init; }

    /// <summary>Factor on q.k; null: 1 / sqrt(<see cref="DHead"/>).</summary>
    public double? AttentionScale { get; init; }

    /// <summary>Attention scores are divided by the layer's number, counted from 1, too.</summary>
    public bool ScaleByInverseLayer { get; init; }

    /// <summary>Attention window of each layer in tokens, 0 for unlimited; empty: unlimited everywhere.</summary>
    public IReadOnlyList<int> Windows { get; init; } = [];

    /// <summary>c in c * tanh(scores / c); 0: none.</summary>
    public float AttentionSoftCap { get; init; }

    /// <summary>c in c * tanh(logits / c); 0: none.</summary>
    public float LogitSoftCap { get; init; }

    /// <summary>Attention and MLP both read the residual stream that enters the block; there is no resid_mid.</summary>
    public bool ParallelBlock { get; init; }

    /// <summary>Queries, keys and values have biases.</summary>
    public bool QkvBias { get; init; }

    /// <summary>The attention's output has a bias.</summary>
    public bool AttentionOutBias { get; init; }

    /// <summary>The MLP's layers have biases.</summary>
    public bool MlpBias { get; init; }

    /// <summary>The logits have a bias.</summary>
    public bool UnembedBias { get; init; }

    /// <summary>The unembedding is the embedding.</summary>
    public bool TiedEmbeddings { get; init; }

    /// <summary>Factor on token embeddings; Gemma's is sqrt(d_model). <c>hook_embed</c> sees the product.</summary>
    public float EmbedScale { get; init; } = 1;

    /// <summary>The token that begins a text; null: the configuration names none.</summary>
    public int? BosToken { get; init; }

    /// <summary>Tokens that end a text; empty: the configuration names none.</summary>
    public IReadOnlyList<int> EosTokens { get; init; } = [];

    /// <summary>Checks that the sizes fit each other.</summary>
    /// <exception cref="InvalidInputException">They do not; the message names both.</exception>
    public void Validate()
    {
        foreach (var (name, value) in new[]
        {
            ("d_model", DModel), ("n_layers", NLayers), ("n_heads", NHeads), ("n_kv_heads", NKvHeads), ("d_head", DHead),
            ("d_mlp", DMlp), ("n_ctx", NCtx), ("d_vocab", DVocab),
        })
        {
            if (value < 1) throw new InvalidInputException($"{Architecture}: {name} is {value}, expected at least 1");
        }

        if (NHeads % NKvHeads != 0)
            throw new InvalidInputException($"{Architecture}: {NKvHeads} key/value heads do not divide {NHeads} query heads");
        if (!(Eps >= 0)) throw new InvalidInputException($"{Architecture}: eps of the normalisation is {Eps}, expected 0 or more");
        if (Norm == NormKind.LayerNorm && NormWeightOffset != 0)
            throw new InvalidInputException($"{Architecture}: the weight of a LayerNorm has no offset, found {NormWeightOffset}");
        if (Positions == PositionKind.Rotary && (RotaryDim < 2 || RotaryDim % 2 != 0 || RotaryDim > DHead))
            throw new InvalidInputException($"{Architecture}: rotary dimension {RotaryDim} is not an even number from 2 to d_head {DHead}");
        if (Positions == PositionKind.Rotary && !(RotaryBase > 0))
            throw new InvalidInputException($"{Architecture}: rotary base {RotaryBase} is not above 0");
        if (Positions == PositionKind.Rotary && !(LocalRotaryBase is null or > 0))
            throw new InvalidInputException($"{Architecture}: rotary base of local layers {LocalRotaryBase} is not above 0");
        if (Positions == PositionKind.Alibi && AttentionSoftCap != 0)
            throw new InvalidInputException($"{Architecture}: ALiBi and a soft cap of the scores ({AttentionSoftCap}) do not go together");
        if (NormPlacement == NormPlacement.Behind && ParallelBlock)
            throw new InvalidInputException($"{Architecture}: blocks with attention and MLP in parallel have their normalisations before, found {NormPlacement}");
        if (Windows.Count != 0 && Windows.Count != NLayers)
            throw new InvalidInputException($"{Architecture}: {Windows.Count} attention windows for {NLayers} layers");
        if (Windows.Any(w => w < 0)) throw new InvalidInputException($"{Architecture}: an attention window is negative");
    }

    /// <summary>Factor on q.k in one layer.</summary>
    /// <param name="layer">The layer, from 0.</param>
    public float ScaleOf(int layer) =>
        (float)((AttentionScale ?? 1 / Math.Sqrt(DHead)) / (ScaleByInverseLayer ? layer + 1 : 1));

    /// <summary>Attention window of one layer in tokens; 0: unlimited.</summary>
    /// <param name="layer">The layer, from 0.</param>
    public int WindowOf(int layer) => Windows.Count == 0 ? 0 : Windows[layer];

    /// <summary>Normalisations behind attention and MLP, beside those before them.</summary>
    internal bool PostNorms => NormPlacement == NormPlacement.BeforeAndBehind;

    /// <summary>
    /// Every parameter and its shape, under TransformerLens' names. Matrices are rows [out, in], with the heads of
    /// attention side by side: W_Q is [n_heads * d_head, d_model], W_O [d_model, n_heads * d_head].
    /// </summary>
    public IEnumerable<(string Name, Shape Shape)> Parameters()
    {
        int q = NHeads * DHead, kv = NKvHeads * DHead;
        yield return ("embed.W_E", [DVocab, DModel]);
        if (Positions == PositionKind.Learned) yield return ("pos_embed.W_pos", [NCtx, DModel]);
        if (EmbedNorm)
        {
            yield return ("embed.ln.w", [DModel]);
            yield return ("embed.ln.b", [DModel]);
        }

        for (var l = 0; l < NLayers; l++)
        {
            var b = $"blocks.{l}.";
            foreach (var p in NormParameters(b + "ln1", FoldedNorms)) yield return p;
            yield return (b + "attn.W_Q", [q, DModel]);
            yield return (b + "attn.W_K", [kv, DModel]);
            yield return (b + "attn.W_V", [kv, DModel]);
            yield return (b + "attn.W_O", [DModel, q]);
            if (QkvBias)
            {
                yield return (b + "attn.b_Q", [q]);
                yield return (b + "attn.b_K", [kv]);
                yield return (b + "attn.b_V", [kv]);
            }

            if (QueryKeyNorm != QueryKeyNorm.None)
            {
                var all = QueryKeyNorm == QueryKeyNorm.AllHeads;
                yield return (b + "attn.q_norm.w", [all ? q : DHead]);
                yield return (b + "attn.k_norm.w", [all ? kv : DHead]);
            }

            if (AttentionOutBias) yield return (b + "attn.b_O", [DModel]);
            if (PostNorms) foreach (var p in NormParameters(b + "ln1_post", false)) yield return p;
            foreach (var p in NormParameters(b + "ln2", FoldedNorms)) yield return p;
            if (GatedMlp) yield return (b + "mlp.W_gate", [DMlp, DModel]);
            yield return (b + "mlp.W_in", [DMlp, DModel]);
            yield return (b + "mlp.W_out", [DModel, DMlp]);
            if (MlpBias)
            {
                if (GatedMlp) yield return (b + "mlp.b_gate", [DMlp]);
                yield return (b + "mlp.b_in", [DMlp]);
                yield return (b + "mlp.b_out", [DModel]);
            }

            if (PostNorms) foreach (var p in NormParameters(b + "ln2_post", false)) yield return p;
        }

        foreach (var p in NormParameters("ln_final", FoldedNorms)) yield return p;
        if (!TiedEmbeddings) yield return ("unembed.W_U", [DVocab, DModel]);
        if (UnembedBias) yield return ("unembed.b_U", [DVocab]);
    }

    /// <summary>Number of parameters.</summary>
    public long ParameterCount => Parameters().Sum(p => p.Shape.Count);

    private IEnumerable<(string Name, Shape Shape)> NormParameters(string name, bool folded)
    {
        if (folded) yield break;
        yield return (name + ".w", [DModel]);
        if (Norm == NormKind.LayerNorm) yield return (name + ".b", [DModel]);
    }
}
