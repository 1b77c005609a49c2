using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>A loss coefficient and its warm-up: step n (from 0) uses final * min(n, warmUpSteps) / warmUpSteps.</summary>
/// <param name="Final">The value after warm-up.</param>
/// <param name="WarmUpSteps">Steps of linear growth from 0; 0: the final value from the start.</param>
public readonly record struct LossCoefficient(double Final, int WarmUpSteps)
{
    /// <summary>The value used at a step; the first step of a warm-up uses 0.</summary>
    /// <param name="step">Steps completed before it.</param>
    public double At(long step) => WarmUpSteps == 0 ? Final : Final * Math.Min(step, WarmUpSteps) / WarmUpSteps;
}

/// <summary>What the trainer knows about a step when it asks for the losses.</summary>
/// <param name="Index">Steps completed before.</param>
/// <param name="Coefficients">Value of each loss coefficient at this step, by name.</param>
/// <param name="Dead">Features that have not fired for longer than the window, ascending.</param>
public sealed record TrainingStep(long Index, IReadOnlyDictionary<string, double> Coefficients, ReadOnlyMemory<int> Dead)
{
    /// <summary>Seed of what is drawn within the step (noise).</summary>
    public ulong Seed { get; init; }

    /// <summary>Steps of the whole run; 0: not known.</summary>
    public long TotalSteps { get; init; }
}

/// <summary>What an architecture's losses are computed from.</summary>
/// <param name="Step">The step.</param>
/// <param name="X">F32 [n, d_in]: the batch as given.</param>
/// <param name="Target">F32 [n, d_out]: what is to be reconstructed; X itself for an SAE.</param>
/// <param name="Rows">F32 [n, d_in]: normalised, what the encoder took.</param>
/// <param name="Frame">What decoding undoes.</param>
/// <param name="Features">[n, d_sae].</param>
/// <param name="Reconstruction">F32 [n, d_out].</param>
/// <param name="Pre">
/// [n, d_sae]: pre-activations that losses need besides the features, as <see cref="TrainingSae.SelectInTraining"/> gave them;
/// null: none.
/// </param>
public sealed record TrainingContext(
    TrainingStep Step, Tensor X, Tensor Target, Tensor Rows, InputFrame Frame, SparseFeatures Features, Tensor Reconstruction,
    SparseFeatures? Pre = null);

/// <summary>Result of a training forward pass.</summary>
/// <param name="Features">[n, d_sae].</param>
/// <param name="Reconstruction">F32 [n, d_out].</param>
/// <param name="Total">F32 []: the sum of the losses, to be differentiated.</param>
/// <param name="Losses">Each loss by its logged name, coefficients included: F32 [].</param>
/// <param name="Step">The step.</param>
public sealed record TrainingPass(
    SparseFeatures Features, Tensor Reconstruction, Tensor Total, IReadOnlyList<(string Name, Tensor Value)> Losses, TrainingStep Step)
{
    /// <summary>F32 []: mean over rows of the summed squared error, where mse_loss is something else; null: it is mse_loss.</summary>
    public Tensor? SquaredError { get; init; }
}

/// <summary>
/// An SAE in training. The loss is mse_loss = mean over rows of the summed squared error against the input, or for a
/// transcoder against the target, plus what the architecture adds in <see cref="Losses"/>. Everything runs over kernels that record on the scope's tape.
/// </summary>
public abstract partial class TrainingSae : Sae
{
    /// <summary>Creates an SAE whose parameters are zero; <see cref="Initialize"/> draws them.</summary>
    /// <param name="config">Its settings, valid.</param>
    /// <param name="device">Where the parameters live.</param>
    protected TrainingSae(TrainingSaeConfig config, Device device) : base(config, device)
    {
    }

    /// <summary>Its settings.</summary>
    public new TrainingSaeConfig Config => (TrainingSaeConfig)base.Config;

    /// <summary>The scheduled coefficients, by the name they are logged under (<c>l1</c>, <c>l0</c>).</summary>
    public virtual IReadOnlyDictionary<string, LossCoefficient> Coefficients { get; } = new Dictionary<string, LossCoefficient>();

    /// <summary>Further numbers to log with each step, such as a moving threshold.</summary>
    public virtual IReadOnlyDictionary<string, double> Metrics { get; } = new Dictionary<string, double>();

    /// <summary>The losses of a batch.</summary>
    /// <param name="scope">Its recorder receives the computation.</param>
    /// <param name="x">F32 [n, d_in], already multiplied by the activation scale.</param>
    /// <param name="step">Coefficients and dead features.</param>
    /// <param name="target">F32 [n, d_out], scaled as well: what a transcoder is to give; null: x, as for an SAE.</param>
    /// <exception cref="ShapeException">x does not fit d_in, or the target does not fit d_out.</exception>
    public TrainingPass Forward(TensorScope scope, Tensor x, TrainingStep step, Tensor? target = null)
    {
        target ??= x;
        if (target.Shape.Last != Config.OutputWidth)
            throw new ShapeException($"train: the target is {target.Shape} but the output is {Config.OutputWidth} wide; a transcoder is trained on pairs of input and target");
        var rows = Enter(scope, x, out var frame);
        var f = Encoded(scope, rows, step, out var pre);
        var xhat = Decode(scope, f, frame);
        var mse = ReconstructionLoss(scope, xhat, target, out var squaredError);
        List<(string, Tensor)> losses = [("mse_loss", mse)];
        var total = mse;
        foreach (var (name, value) in Losses(scope, new TrainingContext(step, x, target, rows, frame, f, xhat, pre)))
        {
            losses.Add((name, value));
            total = Add.Sum(scope, total, value);
        }

        return new TrainingPass(f, xhat, total, losses, step) { SquaredError = squaredError };
    }

    /// <summary>
    /// Called after the optimiser's step, for what an architecture keeps besides gradients (norms, thresholds).
    /// </summary>
    /// <param name="scope">The step's scope, no longer recording.</param>
    /// <param name="pass">The step's forward pass.</param>
    public virtual void AfterStep(TensorScope scope, TrainingPass pass)
    {
    }

    /// <summary>The SAE that is saved and used: a copy of the parameters in the inference form.</summary>
    /// <returns>A new SAE on the same device, that the caller disposes of.</returns>
    public abstract Sae ToInference();

    /// <summary>
    /// Draws the parameters as SAELens does: W_dec by <c>decoder_init_method</c> (uniform in +-sqrt(6 / d_out)), rows
    /// scaled to <c>decoder_init_norm</c>, W_enc the same rows or a draw of its own, everything else zero. A transcoder's
    /// W_enc, which is of another space, is always drawn by itself, uniform in +-sqrt(6 / d_sae), and its rows scaled likewise.
    /// </summary>
    /// <param name="seed">Seed of the draw; the same on every device.</param>
    public virtual void Initialize(ulong seed)
    {
        foreach (var p in Parameters.Values) p.Clear();
        WeightInit.Decoder(WDec, Config, seed);
        WeightInit.Encoder(WEnc, WDec, Config, seed);
        AwaitsData = Config is { DecoderInitMethod: DecoderInitMethod.Data, DecoderInitNorm: not null };
    }

    /// <summary>The architecture's losses besides mse_loss, coefficients included; their sum is added to it.</summary>
    /// <param name="scope">Owns the results.</param>
    /// <param name="context">The forward pass.</param>
    /// <returns>Names as logged, values F32 [].</returns>
    protected abstract IEnumerable<(string Name, Tensor Value)> Losses(TensorScope scope, TrainingContext context);

    /// <summary>
    /// The encoder in a training step; without anything else, <see cref="Sae.Select"/>. An architecture whose losses look at more
    /// pre-activations than fire selects those in the same pass.
    /// </summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="rows">F32 [n, d_in], as in <see cref="Sae.Select"/>.</param>
    /// <param name="pre">For the losses, <see cref="TrainingContext.Pre"/>.</param>
    /// <returns>Features; entries that are 0 may be among them.</returns>
    protected virtual SparseFeatures SelectInTraining(TensorScope scope, Tensor rows, out SparseFeatures? pre)
    {
        pre = null;
        return Select(scope, rows);
    }
}
