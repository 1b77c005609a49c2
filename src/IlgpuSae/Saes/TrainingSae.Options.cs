using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <content>Noise, normalised losses, and what remedies for dead features need to know.</content>
public abstract partial class TrainingSae
{
    /// <summary>Rows as the encoder takes them: normalised, b_dec subtracted if it is. Not recorded.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [n, d_in], already multiplied by the activation scale.</param>
    /// <returns>F32 [n, d_in].</returns>
    public Tensor EncoderInput(TensorScope scope, Tensor x)
    {
        using (new NoGradient(scope)) return Centred(scope, Normalized(scope, x));
    }

    /// <summary>Rows as <c>normalize_activations</c> makes them. Not recorded.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [n, d_in], already multiplied by the activation scale.</param>
    /// <returns>F32 [n, d_in].</returns>
    public Tensor Normalized(TensorScope scope, Tensor x)
    {
        using (new NoGradient(scope)) return Enter(scope, x, out _);
    }

    /// <summary>
    /// What a parameter [d_sae] of one feature is set to when the feature starts anew: what <see cref="Initialize"/>
    /// gives it. 0 for biases.
    /// </summary>
    /// <param name="parameter">Its name.</param>
    protected internal virtual float FreshValue(string parameter) => 0;

    /// <summary>The same as <see cref="SelectInTraining"/> from dense pre-activations.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="dense">F32 [n, d_sae].</param>
    /// <param name="rows">F32 [n, d_in], as in <see cref="Sae.Select"/>.</param>
    /// <param name="pre">For the losses, <see cref="TrainingContext.Pre"/>.</param>
    protected virtual SparseFeatures SelectFromInTraining(TensorScope scope, Tensor dense, Tensor rows, out SparseFeatures? pre)
    {
        pre = null;
        return SelectFrom(scope, dense, rows);
    }

    /// <summary>
    /// Whether <see cref="StartFromData"/> is still to give the features their first directions
    /// (<see cref="DecoderInitMethod.Data"/>). Weights that are loaded have theirs.
    /// </summary>
    public bool AwaitsData { get; private set; }

    /// <summary>Starts the features at data points, their mean taken out: feature j at row j, while there are rows.</summary>
    /// <param name="points">F32 [n, d_out], as they are reconstructed: scaled, normalised.</param>
    /// <param name="inputs">F32 [n, d_in], the inputs they belong to; for an SAE the same.</param>
    public void StartFromData(Tensor points, Tensor inputs)
    {
        WeightInit.FromRows(WDec, points, Config);
        if (Config.IsTranscoder) WeightInit.FromRows(WEnc, inputs, Config);
        else if (Config.InitEncoderAsDecoderTranspose && !ReferenceEquals(WEnc, WDec)) WEnc.CopyFrom(WDec);
        AwaitsData = false;
    }

    /// <inheritdoc/>
    public override void ImportState(IReadOnlyList<NamedValues> state, string where)
    {
        base.ImportState(state, where);
        AwaitsData = false;
    }

    /// <summary>Features of a batch, with noise on the pre-activations if the settings ask for it.</summary>
    private SparseFeatures Encoded(TensorScope scope, Tensor rows, TrainingStep step, out SparseFeatures? forLosses)
    {
        if (Config.NoiseScale == 0) return SelectInTraining(scope, rows, out forLosses);
        var pre = PreActivations(scope, rows);
        return SelectFromInTraining(scope, Add.Sum(scope, pre, PreActivationNoise.Of(scope, Config, step, pre.Shape)), rows, out forLosses);
    }

    /// <summary>mse_loss.</summary>
    /// <param name="scope">Owns the results.</param>
    /// <param name="xhat">F32 [n, d].</param>
    /// <param name="x">F32 [n, d].</param>
    /// <param name="squaredError">The plain loss, not recorded; null where mse_loss is it.</param>
    private Tensor ReconstructionLoss(TensorScope scope, Tensor xhat, Tensor x, out Tensor? squaredError)
    {
        squaredError = null;
        if (Config.MseLossNormalization is null) return SquaredError.MeanOfRowSums(scope, xhat, x);
        using (new NoGradient(scope)) squaredError = SquaredError.MeanOfRowSums(scope, xhat, x);
        return DenseBatchError.MeanOfRowSums(scope, xhat, x);
    }
}
