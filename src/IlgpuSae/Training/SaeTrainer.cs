using System.Diagnostics;
using System.Globalization;
using IlgpuSae.Autograd;
using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Training;

/// <summary>
/// Trains any <see cref="TrainingSae"/> on any <see cref="IActivationSource"/>: Adam, clipping by the norm of all
/// gradients, learning-rate and coefficient schedules, dead features, activation scale. The order within a step is
/// SAELens'. One scope a step: after the first step nothing is allocated. Same seed and rows, same bytes.
/// </summary>
public sealed class SaeTrainer : IDisposable
{
    private const int ScaleBatches = 1000;
    private readonly Lookahead _source;
    private readonly LearningRateSchedule _schedule;
    private readonly Tensor[] _parameters;
    private readonly Stopwatch _clock = new();
    private (TimeSpan Time, long Samples) _mark;
    private double _rate;
    private long _rowsForScale;
    private bool _started;

    /// <summary>Makes a trainer at step 0.</summary>
    /// <param name="sae">The SAE, initialised; it stays the caller's.</param>
    /// <param name="source">Where rows come from; it stays the caller's.</param>
    /// <param name="config">Settings.</param>
    /// <exception cref="InvalidInputException">A setting is out of range, or the source's rows do not fit the SAE.</exception>
    public SaeTrainer(TrainingSae sae, IActivationSource source, TrainerConfig config)
    {
        sae.Config.Validate();
        config.Validate();
        if (source.Width != sae.Config.RowWidth) throw sae.WrongWidth(source.Width);
        (Sae, _source, Config) = (sae, new Lookahead(source), config);
        _schedule = new LearningRateSchedule(config);
        _parameters = [.. sae.Parameters.Values];
        Optimizer = new Adam(sae.Parameters, config.AdamBeta1, config.AdamBeta2, config.AdamEps);
        Activity = new FeatureActivity(sae.Config.DSae);
        if (config.FinetuningMethod is not null) Extensions.Add(new Finetuning(config));
        if (sae.Config.NormalizeSaeDecoder) Extensions.Add(new UnitDecoder());
        if (config.ResampleEverySteps > 0) Extensions.Add(new NeuronResampling(config));
    }

    /// <summary>The SAE in training.</summary>
    public TrainingSae Sae { get; }

    /// <summary>The settings.</summary>
    public TrainerConfig Config { get; }

    /// <summary>The optimiser and its moments.</summary>
    public Adam Optimizer { get; }

    /// <summary>Which features fire how often.</summary>
    public FeatureActivity Activity { get; }

    /// <summary>Steps made.</summary>
    public long Steps { get; private set; }

    /// <summary>Rows trained on.</summary>
    public long Samples { get; private set; }

    /// <summary>
    /// Factor on every batch under <c>expected_average_only_in</c>: sqrt(d_in) / mean norm. Null until it is known, and
    /// after it was folded into the weights.
    /// </summary>
    public double? ActivationScale { get; set; }

    /// <summary>
    /// The same for a transcoder's target: sqrt(d_out) / its mean norm. Null for SAEs, whose target is the input.
    /// </summary>
    public double? TargetScale { get; set; }

    /// <summary>
    /// What the run adds to every step. Those that the settings ask for are there from the beginning; more may be added
    /// before the first step.
    /// </summary>
    public IList<IStepExtension> Extensions { get; } = [];

    /// <summary>Where every step's numbers go; they stay the caller's.</summary>
    public IList<IMetricSink> Sinks { get; } = [];

    /// <summary>Told after every step.</summary>
    public Action<TrainingProgress>? Progress { get; set; }

    /// <summary>Trains until the rows asked for are used up, the source ends or the user stops it; folds the scale.</summary>
    /// <param name="cancellation">Stops after the current step.</param>
    /// <exception cref="InvalidInputException">The source has no rows.</exception>
    /// <exception cref="TrainingFailedException">Activations or losses are not finite.</exception>
    public TrainingReport Train(CancellationToken cancellation = default)
    {
        _clock.Restart();
        _mark = default;
        StepMetrics? last = null;
        TrainingEnd? end = null;
        if (Sae.Config.NormalizeActivations == NormalizeActivations.ExpectedAverageOnlyIn && ActivationScale is null)
            end = EstimateActivationScale(cancellation) ? null : TrainingEnd.Cancelled;
        if (end is null && Steps == 0) SetFirstWeights(cancellation);
        while (end is null && Samples < Config.AllSamples)
        {
            if (cancellation.IsCancellationRequested)
            {
                end = TrainingEnd.Cancelled;
                break;
            }

            using var scope = new TensorScope(Sae.Device);
            if (_source.Next(scope, Config.TrainBatchSizeSamples) is not { } rows)
            {
                if (Steps == 0) throw NoRows();
                end = TrainingEnd.SourceEnded;
                break;
            }

            last = Step(scope, rows);
            foreach (var sink in Sinks) sink.Write(last);
            Report(last);
        }

        foreach (var sink in Sinks) sink.Complete();
        var scale = ActivationScale;
        if (scale is { } s) Sae.FoldActivationScale(s);
        if (scale is { } input && TargetScale is { } output) Sae.ScaleOutput(input / output);
        (ActivationScale, TargetScale) = (null, null);
        return new TrainingReport(Sae, end ?? TrainingEnd.Completed, Steps, Samples, last, Activity.LogSparsity(),
            Activity.Dead(Config.DeadFeatureWindow).Length, scale, _clock.Elapsed);
    }

    /// <summary>One step on given rows.</summary>
    /// <param name="scope">Owns everything the step makes.</param>
    /// <param name="rows">F32 [n, d_in], n at least 1, unscaled; for a transcoder [n, d_in + d_out].</param>
    /// <returns>The step's numbers.</returns>
    /// <exception cref="TrainingFailedException">Activations or losses are not finite; the weights are unchanged.</exception>
    public StepMetrics Step(TensorScope scope, Tensor rows)
    {
        var (x, target) = Sae.Split(scope, rows);
        return Step(scope, x, target);
    }

    /// <summary>One step on given inputs and targets.</summary>
    /// <param name="scope">Owns everything the step makes.</param>
    /// <param name="x">F32 [n, d_in], n at least 1, unscaled.</param>
    /// <param name="target">F32 [n, d_out], unscaled; <paramref name="x"/> itself for an SAE.</param>
    /// <returns>The step's numbers.</returns>
    /// <exception cref="TrainingFailedException">Activations or losses are not finite; the weights are unchanged.</exception>
    public StepMetrics Step(TensorScope scope, Tensor x, Tensor target)
    {
        Start();
        if ((Steps + 1) % Config.FeatureSamplingWindow == 0) Activity.StartWindow();
        var coefficients = Sae.Coefficients.ToDictionary(c => c.Key, c => c.Value.At(Steps));
        var dead = Activity.Dead(Config.DeadFeatureWindow);
        var lr = _schedule.At(Steps);
        var scaled = ActivationScale is { } s ? Scale.By(scope, x, (float)s) : x;
        var goal = ReferenceEquals(target, x) ? scaled : TargetScale is { } t ? Scale.By(scope, target, (float)t) : target;

        var step = new StepContext(this, scope, x, scaled, goal, new TrainingStep(Steps, coefficients, dead) { Seed = Config.Seed, TotalSteps = TotalSteps }, lr);
        foreach (var e in Extensions) e.BeforeForward(step);
        TrainingPass pass;
        using (var tape = new Tape(scope))
        {
            foreach (var p in _parameters) tape.Watch(p);
            pass = Sae.Forward(scope, scaled, step.Step, goal);
            foreach (var e in Extensions) pass = e.Extend(step, pass);
            if (!float.IsFinite(pass.Total.Scalar())) throw NotFinite(x, target, pass);
            tape.Backward(pass.Total);
            foreach (var (name, p) in Sae.Parameters) step.Gradients[name] = tape.Gradient(p);
        }

        step.Pass = pass;
        foreach (var e in Extensions) e.OnGradients(step);
        Tensor?[] gradients = [.. Sae.Parameters.Keys.Select(name => step.Gradients[name])];
        var norm = GradientNorm.L2(scope, [.. gradients.OfType<Tensor>(), .. step.FurtherGradients]);
        if (!float.IsFinite(norm)) throw Failed("the gradient is not finite although the loss is; lower lr");
        var deadCount = dead.Length;
        var fired = Activity.Count(scope, pass.Features);
        step.ClipFactor = (float)Math.Min(1, Config.ClipGradNorm / (norm + 1e-6));
        Optimizer.Step(gradients, lr, step.ClipFactor);
        Sae.AfterStep(scope, pass);
        foreach (var e in Extensions) e.AfterStep(step);

        var losses = pass.Losses.ToDictionary(l => l.Name, l => (double)l.Value.Scalar());
        var variance = Variance(scope, goal);
        var metrics = new StepMetrics
        {
            Step = Steps,
            Lr = lr,
            Coefficients = coefficients,
            NDead = deadCount,
            Loss = pass.Total.Scalar(),
            Losses = losses,
            GradNormBeforeClip = norm,
            L0 = (double)fired / pass.Features.Rows,
            ExplainedVariance = variance > 0 ? 1 - ((pass.SquaredError?.Scalar() ?? losses["mse_loss"]) / variance) : 0,
            NTrainingSamples = Samples + x.Shape[0],
            Metrics = Sae.Metrics.ToDictionary(),
        };
        Steps++;
        Samples += x.Shape[0];
        return metrics;
    }

    /// <summary>Gives the memory of the optimiser and of what was added back.</summary>
    public void Dispose()
    {
        Optimizer.Dispose();
        _source.Dispose();
        foreach (var e in Extensions.OfType<IDisposable>()) e.Dispose();
    }

    private void Start()
    {
        if (_started) return;
        _started = true;
        foreach (var e in Extensions) e.Start(this);
    }

    /// <summary>What the first rows decide: b_dec, and the features' directions.</summary>
    private void SetFirstWeights(CancellationToken cancellation)
    {
        var directions = Sae.AwaitsData;
        if (Config.BDecInitMethod == BDecInitMethod.Zeros && !directions) return;
        using var scope = new TensorScope(Sae.Device);
        var count = Math.Max(Config.BDecInitMethod == BDecInitMethod.Zeros ? 1 : Config.BDecInitSamples, directions ? Sae.Config.DSae : 1);
        if (_source.Peek(scope, count, Config.TrainBatchSizeSamples, cancellation) is not { } rows) throw NoRows();
        var (x, target) = Sae.Split(scope, rows);
        // A transcoder's b_dec belongs to its output, whose normalisation is not undone.
        var points = Sae.Config.IsTranscoder ? Scaled(target, TargetScale) : Sae.Normalized(scope, Scaled(x, ActivationScale));
        if (directions) Sae.StartFromData(points, Sae.Config.IsTranscoder ? Sae.Normalized(scope, Scaled(x, ActivationScale)) : points);
        if (Config.BDecInitMethod != BDecInitMethod.Zeros) Sae.BDec.CopyFrom<float>(BDecInitialization.Of(Config.BDecInitMethod, points));

        Tensor Scaled(Tensor t, double? factor) => factor is { } f ? Scale.By(scope, t, (float)f) : t;
    }

    /// <summary>Mean over rows of the squared distance to the batch's mean.</summary>
    private static double Variance(TensorScope scope, Tensor x)
    {
        var n = x.Shape[0];
        var centred = AddRow.Forward(scope, x, SumRows.Of(scope, x, [x.Shape[1]]), -1f / n);
        var sum = 0.0;
        foreach (var norm in RowNorm.L2(scope, centred).ToArray<float>()) sum += (double)norm * norm;
        return sum / n;
    }

    /// <summary>sqrt(width) / mean norm; from batches that are then gone if the source does not know its mean.</summary>
    /// <returns>False if the user stopped it.</returns>
    private bool EstimateActivationScale(CancellationToken cancellation)
    {
        var (dIn, dOut) = (Sae.Config.DIn, Sae.Config.OutputWidth);
        var two = Sae.Config.IsTranscoder;
        var mean = _source.MeanNorm(Sae.Device, Config.TrainBatchSizeSamples, two ? new ColumnBlock("x", 0, dIn) : null);
        var targetMean = two ? _source.MeanNorm(Sae.Device, Config.TrainBatchSizeSamples, new ColumnBlock("target", dIn, dOut)) : null;
        if (mean is null || (two && targetMean is null))
        {
            var (sum, targetSum, batches) = (0.0, 0.0, 0);
            for (; batches < ScaleBatches; batches++)
            {
                if (cancellation.IsCancellationRequested) return false;
                using var scope = new TensorScope(Sae.Device);
                if (_source.Next(scope, Config.TrainBatchSizeSamples) is not { } rows) break;
                var (x, target) = Sae.Split(scope, rows);
                sum += RowNorm.L2(scope, x).ToArray<float>().Average();
                if (two) targetSum += RowNorm.L2(scope, target).ToArray<float>().Average();
                _rowsForScale += x.Shape[0];
            }

            if (batches == 0) throw NoRows();
            (mean, targetMean) = (sum / batches, two ? targetSum / batches : null);
        }

        ActivationScale = ScaleTo(dIn, mean.Value, "activations", "d_in");
        TargetScale = targetMean is { } t ? ScaleTo(dOut, t, "targets", "d_out") : null;
        return true;
    }

    private long TotalSteps => (Config.AllSamples + Config.TrainBatchSizeSamples - 1) / Config.TrainBatchSizeSamples;

    private static double ScaleTo(int width, double mean, string what, string name)
    {
        if (!(mean > 0 && double.IsFinite(mean)))
            throw new TrainingFailedException($"train: the {what}' mean norm is {mean}; no scale makes that sqrt({name}); are they all zero, or not finite?");
        return Math.Sqrt(width) / mean;
    }

    private InvalidInputException NoRows() => new(_rowsForScale == 0
        ? "train: the activations have no rows"
        : $"train: estimating the activation scale used up all {_rowsForScale} rows; give more, let them repeat, or use normalize_activations = none");

    private void Report(StepMetrics metrics)
    {
        if (Progress is null) return;
        var now = _clock.Elapsed;
        var span = (now - _mark.Time).TotalSeconds;
        if (span >= 1 || _rate == 0)
        {
            _rate = (Samples - _mark.Samples) / Math.Max(span, 1e-6);
            _mark = (now, Samples);
        }

        var left = now * (Math.Max(0, Config.AllSamples - Samples) / (double)Samples);
        Progress(new TrainingProgress(metrics, TotalSteps, _rate, now, left));
    }

    private TrainingFailedException NotFinite(Tensor x, Tensor target, TrainingPass pass)
    {
        foreach (var (what, tensor) in new[] { ("activations", x), ("targets", target) })
        {
            var values = tensor.ToArray<float>();
            var bad = Array.FindIndex(values, v => !float.IsFinite(v));
            if (bad < 0) continue;
            var width = tensor.Shape.Last;
            return Failed(string.Create(CultureInfo.InvariantCulture,
                $"the {what} hold {values[bad]} (row {Samples + (bad / width)} of the run, column {bad % width}); look at the model or the file they come from"));
        }

        var losses = string.Join(", ", pass.Losses.Select(l => string.Create(CultureInfo.InvariantCulture, $"{l.Name} {l.Value.Scalar()}")));
        return Failed($"the loss is not finite ({losses}) although the activations are; lower lr or the coefficients");
    }

    private TrainingFailedException Failed(string why) =>
        new(string.Create(CultureInfo.InvariantCulture, $"train: stopped at step {Steps}: {why}"));
}

/// <summary>Training cannot go on: activations, losses or gradients are not finite. The message says at which step.</summary>
public sealed class TrainingFailedException : IlgpuSaeException
{
    /// <summary>Creates the error.</summary>
    /// <param name="message">One line.</param>
    public TrainingFailedException(string message) : base(message)
    {
    }
}
