using System.ComponentModel;
using System.Globalization;
using System.Text.Json.Serialization;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>How a temporal SAE chooses among the codes of what the context does not predict.</summary>
public enum TemporalSelection
{
    /// <summary>All that are positive.</summary>
    Relu,

    /// <summary>The <c>kval_topk</c> largest, of those the positive ones.</summary>
    Topk,
}

/// <summary>Settings of a temporal SAE.</summary>
public sealed record TemporalConfig : SaeConfig
{
    /// <inheritdoc/>
    public override string Architecture => "temporal";

    /// <summary>Attention heads.</summary>
    [Description("attention heads")]
    public int NHeads { get; init; } = 8;

    /// <summary>Attention layers, one after another.</summary>
    [Description("attention layers")]
    public int NAttnLayers { get; init; } = 1;

    /// <summary>Queries and keys are d_sae / this wide.</summary>
    [Description("queries and keys are d_sae / this wide")]
    public int BottleneckFactor { get; init; } = 64;

    /// <summary>How novel codes are chosen.</summary>
    [Description("how novel codes are chosen: relu or topk")]
    public TemporalSelection SaeDiffType { get; init; } = TemporalSelection.Topk;

    /// <summary>k of <c>topk</c>; null: all that are positive.</summary>
    [Description("k of sae_diff_type = topk; all that are positive if not given")]
    public int? KvalTopk { get; init; }

    /// <summary>Whether the encoder is the transposed decoder.</summary>
    [Description("use the transposed decoder as encoder")]
    public bool TiedWeights { get; init; } = true;

    /// <summary>Factor on the input under <c>constant_scalar_rescale</c>.</summary>
    [Description("factor on the input under normalize_activations = constant_scalar_rescale")]
    public double ActivationNormalizationFactor { get; init; } = 1;

    /// <inheritdoc/>
    public override bool ReadsContext => true;

    /// <inheritdoc/>
    [JsonIgnore]
    public override double? InputFactor => ActivationNormalizationFactor;

    /// <summary>Width of queries and keys, all heads together.</summary>
    [JsonIgnore]
    public int Bottleneck => DSae / BottleneckFactor;

    /// <inheritdoc/>
    public override IReadOnlyList<ParameterSpec> Parameters
    {
        get
        {
            List<ParameterSpec> all = [new("b_dec", [DIn]), new("W_dec", [DSae, DIn])];
            if (!TiedWeights) all.Add(new("W_enc", [DSae, DIn], TransposedInFile: true));
            for (var l = 0; l < NAttnLayers; l++)
            {
                foreach (var (name, width) in new[] { ("k_ctx", Bottleneck), ("q_target", Bottleneck), ("v_ctx", DSae), ("c_proj", DSae) })
                {
                    all.Add(new(Name(l, name, "weight"), [width, DSae]));
                    all.Add(new(Name(l, name, "bias"), [width]));
                }
            }

            return all;
        }
    }

    /// <inheritdoc/>
    public override void Validate()
    {
        base.Validate();
        if (NHeads < 1) throw new InvalidInputException($"n_heads: {NHeads} is not at least 1");
        if (NAttnLayers < 0) throw new InvalidInputException($"n_attn_layers: {NAttnLayers} is negative");
        if (BottleneckFactor < 1) throw new InvalidInputException($"bottleneck_factor: {BottleneckFactor} is not at least 1");
        if (DSae % ((long)BottleneckFactor * NHeads) != 0)
            throw new InvalidInputException($"d_sae: {DSae} is not a multiple of bottleneck_factor x n_heads = {BottleneckFactor} x {NHeads}");
        if (KvalTopk is { } k && (k < 1 || k > DSae)) throw new InvalidInputException($"kval_topk: {k} is not in 1..{DSae} (d_sae)");
        if (!(ActivationNormalizationFactor > 0 && double.IsFinite(ActivationNormalizationFactor)))
            throw new InvalidInputException($"activation_normalization_factor: {ActivationNormalizationFactor} is not a positive number");
        if (ReshapeActivations != ReshapeActivations.None)
            throw new InvalidInputException("reshape_activations: architecture temporal takes [contexts, positions, d_in]; use none");
    }

    internal static string Name(int layer, string part, string kind) => string.Create(CultureInfo.InvariantCulture, $"attn_layers.{layer}.{part}.{kind}");
}

/// <summary>
/// Temporal SAE, for use: what the context predicts of each position is taken away, and features are what is new. With
/// lambda = 1 / (4 d_in) and r = x - b_dec at first, each attention layer computes codes z = ReLU(lambda r W_enc), attends causally
/// from z to the codes of earlier positions, p = ReLU(result), and takes the projection of r on p W_dec out of r. The features
/// are the codes of the r that is left; the reconstruction adds what they decode to, the projections and b_dec. x is
/// [contexts, positions, d_in], or [positions, d_in] for one context. arXiv:2511.01836.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("temporal")]
public sealed class TemporalSae(TemporalConfig config, Device device) : Sae(config, device)
{
    /// <summary>Kept from dividing by zero, as in SAELens.</summary>
    private const float Epsilon = 1e-6f;

    /// <summary>Encoder rows: the decoder's if <c>tied_weights</c>.</summary>
    public override Tensor WEnc => Own.TiedWeights ? WDec : Parameters["W_enc"];

    private TemporalConfig Own => (TemporalConfig)Config;

    private float Lambda => 1f / (4 * Config.DIn);

    /// <inheritdoc/>
    public override void FoldDecoderNorm() => throw new InvalidInputException("fold: architecture temporal attends over its codes, whose scale decoder norms would change");

    /// <inheritdoc/>
    public override void FoldActivationScale(double factor) => throw new InvalidInputException("fold: architecture temporal attends over its codes, whose scale an activation scale would change");

    /// <inheritdoc/>
    protected override (Tensor Rows, Tensor? Bypass) PassBy(TensorScope scope, Shape shape, Tensor raw, Tensor rows)
    {
        if (shape.Rank is < 2 or > 3) throw new ShapeException($"encode: x is {shape}, but architecture temporal takes [contexts, positions, d_in], or [positions, d_in] for one context");
        var (contexts, positions) = shape.Rank == 3 ? (shape[0], shape[1]) : (1, shape[0]);
        var rest = Centred(scope, rows);
        Tensor? predicted = null;
        if (rest.Shape[0] == 0) return (rest, null);
        for (var l = 0; l < Own.NAttnLayers; l++)
        {
            var codes = Activate.Forward(scope, Gemm.Multiply(scope, Scale.By(scope, rest, Lambda), WEnc, transposeB: true), ActivationKind.Relu);
            var prediction = Activate.Forward(scope, Attend(scope, l, Earlier(scope, codes, contexts, positions), codes, contexts, positions), ActivationKind.Relu);
            var direction = Gemm.Multiply(scope, prediction, WDec);
            var projection = RowAffine.Apply(scope, direction, Share(scope, direction, rest), shift: null);
            predicted = predicted is null ? projection : Add.Sum(scope, predicted, projection);
            rest = Residual(scope, rest, projection);
        }

        return (rest, predicted);
    }

    /// <inheritdoc/>
    protected override SparseFeatures Select(TensorScope scope, Tensor rows)
    {
        var (scaled, none) = (Scale.By(scope, rows, Lambda), scope.Zeros([Config.DSae]));
        return Own is { SaeDiffType: TemporalSelection.Topk, KvalTopk: { } k }
            ? EncodeSelect.TopK(scope, scaled, WEnc, none, k)
            : EncodeSelect.Relu(scope, scaled, WEnc, none);
    }

    /// <inheritdoc/>
    protected override Tensor PreActivations(TensorScope scope, Tensor rows) => Gemm.Multiply(scope, Scale.By(scope, rows, Lambda), WEnc, transposeB: true);

    /// <inheritdoc/>
    protected override SparseFeatures SelectFrom(TensorScope scope, Tensor pre, Tensor rows) =>
        Own is { SaeDiffType: TemporalSelection.Topk, KvalTopk: { } k }
            ? TopKSelect.Rows(scope, pre, k, relu: true)
            : SparseFromDense.Of(scope, Activate.Forward(scope, pre, ActivationKind.Relu));

    /// <summary>The codes of the position before, 0 for the first: [n, d_sae].</summary>
    private static Tensor Earlier(TensorScope scope, Tensor codes, int contexts, int positions)
    {
        int n = codes.Shape[0], width = codes.Shape[1];
        var padded = Columns.Join(scope, Reshape.As(scope, codes, [1, n * width]), scope.Zeros([1, contexts * width]));
        var order = new int[n];
        for (var i = 0; i < n; i++) order[i] = i % positions == 0 ? n + (i / positions) : i - 1;
        return GatherRows.Forward(scope, Reshape.As(scope, padded, [n + contexts, width]), scope.From<int>(order, [n]));
    }

    /// <summary>(direction . rest) / (|direction| + epsilon)^2 of each row: F32 [n].</summary>
    private static Tensor Share(TensorScope scope, Tensor direction, Tensor rest)
    {
        int n = rest.Shape[0], width = rest.Shape[1];
        var norm = RowNorm.L2(scope, direction);
        var product = Scale.By(scope, RowMoments.Mean(scope, Multiply.Elementwise(scope, direction, rest)), width);
        var once = RowAffine.Undo(scope, Reshape.As(scope, product, [n, 1]), norm, shift: null, Epsilon);
        return Reshape.As(scope, RowAffine.Undo(scope, once, norm, shift: null, Epsilon), [n]);
    }

    /// <summary>One attention layer, from codes to the codes of earlier positions: [n, d_sae].</summary>
    private Tensor Attend(TensorScope scope, int layer, Tensor earlier, Tensor codes, int contexts, int positions)
    {
        Tensor Linear(Tensor x, string part) => Gemm.Multiply(scope, x, Parameters[TemporalConfig.Name(layer, part, "weight")],
            Parameters[TemporalConfig.Name(layer, part, "bias")], transposeB: true);
        Tensor Heads(Tensor x) => Reshape.As(scope, x, [contexts, positions, Own.NHeads, x.Shape[1] / Own.NHeads]);
        Tensor q = Heads(Linear(codes, "q_target")), k = Heads(Linear(earlier, "k_ctx")), v = Heads(Linear(earlier, "v_ctx"));
        var pattern = Softmax.Rows(scope, Attention.Scores(scope, q, k, (float)(1 / Math.Sqrt(q.Shape.Last))));
        var mixed = Reshape.As(scope, Attention.Mix(scope, pattern, v), codes.Shape);
        return Linear(mixed, "c_proj");
    }
}
