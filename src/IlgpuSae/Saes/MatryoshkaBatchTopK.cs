using System.ComponentModel;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>Settings of a Matryoshka BatchTopK SAE in training.</summary>
public sealed record MatryoshkaBatchTopKTrainingConfig : BatchTopKTrainingConfig
{
    /// <inheritdoc/>
    public override string Architecture => "matryoshka_batchtopk";

    /// <summary>Numbers of features that must reconstruct alone, strictly increasing; d_sae is added if it is not the last.</summary>
    [Description("numbers of first features that must reconstruct alone, increasing: 256,1024; d_sae is added if it is not the last")]
    public WidthList MatryoshkaWidths { get; init; } = new();

    /// <summary>Whether each level's dead features are revived by what its own levels still miss.</summary>
    [LeftOutByDefault]
    [Description("let each level's dead features reconstruct what the levels up to theirs miss, instead of what the whole misses")]
    public bool UseMatryoshkaAuxLoss { get; init; }

    /// <inheritdoc/>
    public override IReadOnlyList<string> Notes => DSae < 1 || MatryoshkaWidths.Count == 0 ? []
        : MatryoshkaWidths[^1] != DSae ? [$"matryoshka_widths: {MatryoshkaWidths} does not end with d_sae = {DSae}, which is added as the last level"]
        : MatryoshkaWidths.Count == 1 ? [$"matryoshka_widths: {MatryoshkaWidths} alone is a plain BatchTopK SAE"]
        : [];

    /// <inheritdoc/>
    public override void Validate()
    {
        base.Validate();
        if (MatryoshkaWidths.Count == 0)
            throw new InvalidInputException("matryoshka_widths: missing; give increasing numbers of features, such as a sixteenth and a quarter of d_sae");
        var before = 0;
        foreach (var width in MatryoshkaWidths)
        {
            if (width < 1) throw new InvalidInputException($"matryoshka_widths: {width} is not a number of features");
            if (width <= before) throw new InvalidInputException($"matryoshka_widths: {MatryoshkaWidths} is not strictly increasing: {width} follows {before}");
            if (width > DSae) throw new InvalidInputException($"matryoshka_widths: {width} features, but there are only d_sae = {DSae}");
            before = width;
        }
    }

    /// <summary>The same with d_sae as the last width.</summary>
    internal MatryoshkaBatchTopKTrainingConfig Completed() => MatryoshkaWidths[^1] == DSae ? this : this with { MatryoshkaWidths = new([.. MatryoshkaWidths, DSae]) };
}

/// <summary>
/// BatchTopK SAE in training whose first features must do by themselves as well: for every width w of
/// <c>matryoshka_widths</c> but the last, inner_mse_loss_w = mean over rows of ||f[:w] W_dec[:w] + b_dec - x||^2, with the selection
/// of the whole. With <c>use_matryoshka_aux_loss</c> auxiliary_reconstruction_loss is the sum over levels of TopK's, each of the level's own dead
/// features against what the reconstruction up to that level misses. Bussmann et al. 2025, arXiv:2503.17547.
/// </summary>
/// <param name="config">Settings.</param>
/// <param name="device">Where the parameters live.</param>
[SaeArchitecture("matryoshka_batchtopk")]
public sealed class MatryoshkaBatchTopKTrainingSae(MatryoshkaBatchTopKTrainingConfig config, Device device)
    : BatchTopKTrainingSae(config.Completed(), device)
{
    private WidthList Widths => ((MatryoshkaBatchTopKTrainingConfig)Config).MatryoshkaWidths;

    /// <inheritdoc/>
    protected override IEnumerable<(string Name, Tensor Value)> Losses(TensorScope scope, TrainingContext context)
    {
        var features = TopK.Unscaled(scope, this, context.Features, Own.RescaleActsByDecoderNorm);
        var inner = new List<(int Width, Tensor Reconstruction)>();
        foreach (var width in Widths.SkipLast(1)) inner.Add((width, SparseDecode.Forward(scope, SparsePrefix.Of(scope, features, width), WDec, BDec)));
        yield return ("auxiliary_reconstruction_loss", ((MatryoshkaBatchTopKTrainingConfig)Config).UseMatryoshkaAuxLoss
            ? LevelLosses(scope, context, [.. inner, (Config.DSae, context.Reconstruction)])
            : AuxiliaryLoss(scope, context));
        foreach (var (width, reconstruction) in inner)
            yield return ($"inner_mse_loss_{width}", SquaredError.MeanOfRowSums(scope, reconstruction, context.Target));
    }

    private Tensor LevelLosses(TensorScope scope, TrainingContext context, IEnumerable<(int Width, Tensor Reconstruction)> levels)
    {
        var sum = scope.Zeros([]);
        var before = 0;
        foreach (var (width, reconstruction) in levels)
        {
            int[] dead = [.. context.Step.Dead.ToArray().Where(j => j >= before && j < width)];
            before = width;
            if (dead.Length == 0) continue;
            sum = Add.Sum(scope, sum, TopK.AuxiliaryLoss(
                scope, this, context, dead, reconstruction, Own.AuxLossCoefficient, Own.RescaleActsByDecoderNorm));
        }

        return sum;
    }
}
