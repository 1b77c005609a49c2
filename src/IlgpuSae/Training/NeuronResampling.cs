using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Training;

/// <summary>
/// Neuron resampling: every <c>resample_every_steps</c> each dead feature starts anew from a row that the SAE
/// reconstructs badly. Rows are drawn without replacement, with probability proportional to a power of their squared
/// error; with v the row as the encoder takes it, scaled to norm 1, the feature's decoder row becomes v times the mean norm of
/// the living decoder rows, its encoder row v times <c>resample_encoder_scale</c> times the mean norm of the living encoder
/// rows, its biases what they start with, its moments of Adam zero. Bricken et al. 2023, "Towards Monosemanticity",
/// appendix on resampling (power 2 of the loss); dictionary_learning's <c>resample_neurons</c> (power 0.5).
/// </summary>
/// <remarks>
/// There W_dec has rows of norm 1, which the mean norm then is. The row is taken less b_dec, since the encoder
/// sees it so: the new feature is active on it. A transcoder's decoder row takes the direction of the row's residual instead,
/// target less output. More dead features than rows: the rest waits for the next time.
/// </remarks>
/// <param name="config">Settings.</param>
internal sealed class NeuronResampling(TrainerConfig config) : IStepExtension
{
    private readonly List<float> _errors = [];
    private readonly List<float[]> _rows = [];
    private readonly List<float[]> _directions = [];
    private int _resampled;

    private long LastStep => config.ResampleUntilStep ?? (config.TotalTrainingSamples / config.TrainBatchSizeSamples) - config.ResampleEverySteps;

    /// <inheritdoc/>
    public void Start(SaeTrainer trainer)
    {
        var sae = trainer.Sae;
        if (!sae.Parameters.ContainsKey("W_enc"))
            throw new InvalidInputException($"resample_every_steps: architecture {sae.Config.Architecture} has no encoder of its own to start anew; use 0");
    }

    /// <inheritdoc/>
    public void AfterStep(StepContext step)
    {
        var done = step.Step.Index + 1;
        var every = config.ResampleEverySteps;
        if (done > LastStep) return;
        var left = (every - (done % every)) % every;
        if (left < config.ResampleBatches) Collect(step);
        if (left != 0) return;
        Resample(step, done);
        _rows.Clear();
        _directions.Clear();
        _errors.Clear();
    }

    /// <summary>Features started anew so far.</summary>
    internal int Resampled => _resampled;

    /// <summary>n of the rows, without replacement, each draw with probability proportional to its weight.</summary>
    /// <param name="weights">At least 0; rows of weight 0 are not drawn.</param>
    /// <param name="n">How many at most.</param>
    /// <param name="seed">The seed.</param>
    /// <param name="stream">The stream.</param>
    /// <returns>Row numbers in the order drawn.</returns>
    internal static int[] Draw(double[] weights, int n, ulong seed, ulong stream)
    {
        // The n smallest of exponential numbers with these rates are such draws (Efraimidis and Spirakis 2006).
        var draws = new Philox(seed, stream);
        var times = new (double Time, int Row)[weights.Length];
        for (var r = 0; r < weights.Length; r++)
        {
            var u = (draws.NextUInt32() + 0.5) / 4294967296.0;
            times[r] = (weights[r] > 0 ? -Philox.Log(u) / weights[r] : double.PositiveInfinity, r);
        }

        Array.Sort(times);
        return [.. times.Take(n).TakeWhile(t => double.IsFinite(t.Time)).Select(t => t.Row)];
    }

    private void Collect(StepContext step)
    {
        var (scope, sae) = (step.Scope, step.Trainer.Sae);
        var residual = Sae.Residual(scope, step.Target, step.Pass!.Reconstruction);
        _errors.AddRange(RowNorm.L2(scope, residual).ToArray<float>());
        float[][] rows = [.. sae.EncoderInput(scope, step.X).ToArray<float>().Chunk(sae.Config.DIn)];
        _rows.AddRange(rows);
        _directions.AddRange(sae.Config.IsTranscoder ? residual.ToArray<float>().Chunk(sae.Config.OutputWidth) : rows);
    }

    private void Resample(StepContext step, long done)
    {
        var trainer = step.Trainer;
        var dead = trainer.Activity.Dead(config.DeadFeatureWindow).ToArray();
        if (dead.Length == 0) return;
        // Divided by the largest, powers neither overflow nor vanish together.
        var largest = _errors.Max();
        if (!(largest > 0)) return;
        var weights = _errors.Select((e, r) => Length(_rows[r]) * Length(_directions[r]) == 0 ? 0 : Math.Pow(e / (double)largest, 2 * config.ResampleLossPower)).ToArray();
        var chosen = Draw(weights, dead.Length, config.Seed, RandomUses.Resampling(done));
        var sae = trainer.Sae;
        var isDead = new bool[sae.Config.DSae];
        foreach (var j in dead) isDead[j] = true;
        using var scope = new TensorScope(sae.Device);
        var encoderNorm = config.ResampleEncoderScale * LivingNorm(scope, sae.WEnc, isDead);
        var decoderNorm = LivingNorm(scope, sae.WDec, isDead);
        for (var i = 0; i < chosen.Length; i++)
        {
            var (j, row, direction) = (dead[i], _rows[chosen[i]], _directions[chosen[i]]);
            foreach (var (name, p) in sae.Parameters)
            {
                // Others may have a first axis of the same size by chance.
                if (p.Shape.Rank == 0 || p.Shape[0] != sae.Config.DSae || name is "b_dec" or "W_skip") continue;
                float[] value = name switch
                {
                    "W_enc" => Array.ConvertAll(row, v => (float)(v * (encoderNorm / Length(row)))),
                    "W_dec" => Array.ConvertAll(direction, v => (float)(v * (decoderNorm / Length(direction)))),
                    _ => [sae.FreshValue(name)],
                };
                Set(p, j, value);
                Set(trainer.Optimizer.FirstMoment(name), j, new float[value.Length]);
                Set(trainer.Optimizer.SecondMoment(name), j, new float[value.Length]);
            }

            trainer.Activity.StepsSinceFired[j] = 0;
        }

        _resampled += chosen.Length;
    }

    private static double Length(float[] row) => Math.Sqrt(row.Sum(v => (double)v * v));

    private static void Set(Tensor table, int row, float[] values)
    {
        using var part = table.Slice(row, 1);
        part.CopyFrom<float>(values);
    }

    /// <summary>Mean norm of the rows that are not dead; of all, if all are.</summary>
    private static double LivingNorm(TensorScope scope, Tensor rows, bool[] isDead)
    {
        var norms = RowNorm.L2(scope, rows).ToArray<float>();
        var living = norms.Where((_, j) => !isDead[j]).ToArray();
        return (living.Length > 0 ? living : norms).Average(n => (double)n);
    }
}
