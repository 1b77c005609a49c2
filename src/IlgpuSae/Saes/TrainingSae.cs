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
public sealed record TrainingStep(long Index, IReadOnlyDictionary<string, double> Coefficients, ReadOnlyMemory<int> Dead);

/// <summary>What an architecture's losses are computed from.</summary>
/// <param name="Step">The step.</param>
/// <param name="X">F32 [n, d_in]: the batch as given.</param>
/// <param name="Target">F32 [n, d_out]: what is to be reconstructed; X itself for an SAE.</param>
/// <param name="Rows">F32 [n, d_in]: normalised, what the encoder took.</param>
/// <param name="Frame">What decoding undoes.</param>
/// <param name="Features">[n, d_sae].</param>
/// <param name="Reconstruction">F32 [n, d_out].</param>
public sealed record TrainingContext(
    TrainingStep Step, Tensor X, Tensor Target, Tensor Rows, InputFrame Frame, SparseFeatures Features, Tensor Reconstruction);

/// <summary>Result of a training forward pass.</summary>
/// <param name="Features">[n, d_sae].</param>
/// <param name="Reconstruction">F32 [n, d_out].</param>
/// <param name="Total">F32 []: the sum of the losses, to be differentiated.</param>
/// <param name="Losses">Each loss by its logged name, coefficients included: F32 [].</param>
public sealed record TrainingPass(
    SparseFeatures Features, Tensor Reconstruction, Tensor Total, IReadOnlyList<(string Name, Tensor Value)> Losses);

/// <summary>
/// An SAE in training. The loss is mse_loss = mean over rows of the summed squared error against the input, or for a
/// transcoder against the target, plus what the architecture adds in <see cref="Losses"/>. Everything runs over kernels that record on the scope's tape.
/// </summary>
public abstract class TrainingSae : Sae
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
        var f = EncodeRows(scope, rows, frame);
        var xhat = Decode(scope, f, frame);
        var mse = SquaredError.MeanOfRowSums(scope, xhat, target);
        List<(string, Tensor)> losses = [("mse_loss", mse)];
        var total = mse;
        foreach (var (name, value) in Losses(scope, new TrainingContext(step, x, target, rows, frame, f, xhat)))
        {
            losses.Add((name, value));
            total = Add.Sum(scope, total, value);
        }

        return new TrainingPass(f, xhat, total, losses);
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
    /// Draws the parameters as SAELens does: W_dec uniform in +-sqrt(6 / d_out), rows scaled to
    /// <c>decoder_init_norm</c>, W_enc the same rows, everything else zero. A transcoder's W_enc, which is of another
    /// space, is drawn by itself, uniform in +-sqrt(6 / d_sae), and its rows scaled likewise.
    /// </summary>
    /// <param name="seed">Seed of the draw; the same on every device.</param>
    public virtual void Initialize(ulong seed)
    {
        foreach (var p in Parameters.Values) p.Clear();
        var rows = Draw(WDec, Config.OutputWidth, seed, stream: 0);
        if (Config.IsTranscoder) Draw(WEnc, Config.DSae, seed, stream: 1);
        else WEnc.CopyFrom<float>(rows);
    }

    /// <summary>The architecture's losses besides mse_loss, coefficients included; their sum is added to it.</summary>
    /// <param name="scope">Owns the results.</param>
    /// <param name="context">The forward pass.</param>
    /// <returns>Names as logged, values F32 [].</returns>
    protected abstract IEnumerable<(string Name, Tensor Value)> Losses(TensorScope scope, TrainingContext context);

    /// <summary>Draws a parameter uniformly in +-sqrt(6 / fan-in) and scales its rows.</summary>
    private float[] Draw(Tensor parameter, int fanIn, ulong seed, ulong stream)
    {
        var bound = (float)Math.Sqrt(6.0 / fanIn);
        var width = parameter.Shape[1];
        RandomFill.Uniform(parameter, seed, stream, -bound, bound);
        var rows = parameter.ToArray<float>();
        for (var at = 0; at < rows.Length && Config.DecoderInitNorm is not null; at += width)
        {
            var row = rows.AsSpan(at, width);
            var sum = 0.0;
            foreach (var v in row) sum += (double)v * v;
            if (sum == 0) continue;
            var factor = Config.DecoderInitNorm.Value / Math.Sqrt(sum);
            foreach (ref var v in row) v = (float)(v * factor);
        }

        parameter.CopyFrom<float>(rows);
        return rows;
    }
}
