using IlgpuSae.Evaluation;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using IlgpuSae.Training;
using Xunit;

namespace IlgpuSae.Tests.Training;

/// <summary>
/// A map that is known is learned: each of 40 features, active one row in twenty, has a direction in the input and another in
/// the output, more features than dimensions, so no linear map will do. What a skip transcoder is given has a dense part besides, which goes to the output through a
/// linear map.
/// </summary>
public sealed class TranscoderTrainingTests : IDisposable
{
    private const int In = 24;
    private const int Out = 18;
    private const int True = 40;
    private readonly CpuDevice _device = new(2);
    private readonly double[][] _from = Directions(True, In, 1);
    private readonly double[][] _to = Directions(True, Out, 2);
    private readonly double[][] _linear = Directions(Out, In, 3);

    public void Dispose() => _device.Dispose();

    public static TheoryData<string> Trained => [.. SaeRegistry.Default.TrainingNames.Where(n => n.EndsWith("transcoder", StringComparison.Ordinal))];

    [Theory]
    [MemberData(nameof(Trained))]
    public void A_known_map_is_found(string architecture)
    {
        var linear = architecture.Contains("skip", StringComparison.Ordinal);
        var (quality, found) = Train(architecture, linear);
        var about = $"{architecture}: explained variance {quality.ReconstructionQuality!.ExplainedVariance:0.000}, L0 {quality.Sparsity!.L0:0.0}, {found} of {True} directions";
        TestContext.Current.TestOutputHelper?.WriteLine(about);
        Assert.True(quality.ReconstructionQuality.ExplainedVariance > 0.85, about);
        Assert.True(quality.Sparsity.L0 < 8, about);
        if (!linear)
        {
            Assert.True(found >= 36, about);
            return;
        }

        // The linear part takes its share of every feature, so directions differ; without it the dense part is lost.
        var (without, _) = Train(architecture.Replace("skip_", "", StringComparison.Ordinal), linear);
        about += $"; without the skip {without.ReconstructionQuality!.ExplainedVariance:0.000}";
        TestContext.Current.TestOutputHelper?.WriteLine(about);
        Assert.True(quality.ReconstructionQuality.ExplainedVariance > without.ReconstructionQuality.ExplainedVariance + 0.05, about);
    }

    private (EvaluationResult Quality, int Found) Train(string architecture, bool linear)
    {
        using var scope = new TensorScope(_device);
        var table = scope.From<float>(Rows(8192, linear, 5), [8192, In + Out]);
        using var sae = SaeRegistry.Default.CreateForTraining(Config(architecture), _device, seed: 1);
        using var trainer = new SaeTrainer(sae, new RowSource(table), new TrainerConfig
        {
            TotalTrainingSamples = 256 * 600,
            TrainBatchSizeSamples = 256,
            Lr = 5e-3,
            LrDecaySteps = 200,
            DeadFeatureWindow = 60,
        });
        var report = trainer.Train(TestContext.Current.CancellationToken);
        Assert.True(report.ActivationScale > 0);
        using var inference = sae.ToInference();
        var fresh = scope.From<float>(Rows(2048, linear, 6), [2048, In + Out]);
        return (RowsEvaluator.Run(inference, new RowSource(fresh), 2048), Found(inference.WDec.ToArray<float>()));
    }

    [Fact]
    public void Targets_that_are_not_finite_are_named()
    {
        using var scope = new TensorScope(_device);
        var rows = Rows(64, false, 5);
        rows[(3 * (In + Out)) + In + 2] = float.NaN;
        using var sae = SaeRegistry.Default.CreateForTraining((TrainingSaeConfig)new TopKTranscoderTrainingConfig { DIn = In, DSae = 32, K = 3 }.WithOutputWidth(Out), _device);
        using var trainer = new SaeTrainer(sae, new RowSource(scope.From<float>(rows, [64, In + Out])), new TrainerConfig { TotalTrainingSamples = 64, TrainBatchSizeSamples = 64 });
        Assert.Contains("the targets hold NaN (row 3 of the run, column 2)", Assert.Throws<TrainingFailedException>(() => trainer.Train(TestContext.Current.CancellationToken)).Message, StringComparison.Ordinal);
        Assert.Equal("train: the rows are 24 wide but a transcoder of d_in = 24 and d_out = 18 takes 42: its input and its target side by side",
            Assert.Throws<ShapeException>(() => new SaeTrainer(sae, new RowSource(scope.Zeros([4, In])), new TrainerConfig { TotalTrainingSamples = 64, TrainBatchSizeSamples = 4 })).Message);
    }

    private static TrainingSaeConfig Config(string architecture)
    {
        var type = SaeRegistry.Default.ConfigType(architecture, training: true);
        var json = ConfigJson.ToJson(Activator.CreateInstance(type)!);
        void Set(string name, double value)
        {
            if (!json.ContainsKey(name)) return;
            if (value == Math.Floor(value)) json[name] = (int)value;
            else json[name] = value;
        }

        Set("d_in", In);
        Set("d_out", Out);
        Set("d_sae", 2 * True);
        Set("k", 5);
        Set("l1_coefficient", 0.5);
        Set("l0_coefficient", 0.3);
        Set("l0_warm_up_steps", 100);
        Set("jumprelu_bandwidth", 0.5);
        if (json.ContainsKey("jumprelu_init_threshold"))
        {
            // Logarithms of thresholds hardly travel in so few steps.
            json["train_log_threshold"] = false;
            json["jumprelu_init_threshold"] = 0.01;
            json["decoder_init_norm"] = 0.5;
        }

        json["normalize_activations"] = "expected_average_only_in";
        return (TrainingSaeConfig)ConfigJson.FromJson(json, type, "test");
    }

    /// <summary>Directions that a decoder row of its own points to, |cosine| at least 0.9.</summary>
    private int Found(float[] decoder) => _to.Count(d => decoder.Chunk(Out).Any(row =>
        row.Zip(d).Sum(p => p.First * p.Second) > 0.9 * Math.Sqrt(row.Sum(v => (double)v * v))));

    private float[] Rows(int rows, bool linear, int seed)
    {
        var random = new Random(seed);
        var values = new float[rows * (In + Out)];
        for (var r = 0; r < rows; r++)
        {
            double[] x = new double[In], y = new double[Out];
            for (var j = 0; j < True; j++)
            {
                if (random.NextDouble() >= 0.05) continue;
                var size = 0.7 + (0.6 * random.NextDouble());
                for (var i = 0; i < In; i++) x[i] += size * _from[j][i];
                for (var i = 0; i < Out; i++) y[i] += 3 * size * _to[j][i];
            }

            if (linear)
            {
                for (var i = 0; i < In; i++) x[i] += 0.8 * (random.NextDouble() - 0.5);
                for (var i = 0; i < Out; i++) y[i] += 4 * x.Zip(_linear[i]).Sum(p => p.First * p.Second);
            }

            x.Concat(y).Select(v => (float)v).ToArray().CopyTo(values, r * (In + Out));
        }

        return values;
    }

    private static double[][] Directions(int count, int width, int seed)
    {
        var random = new Random(seed);
        return [.. Enumerable.Range(0, count).Select(_ =>
        {
            double[] d = [.. Enumerable.Range(0, width).Select(_ => Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble()))];
            var norm = Math.Sqrt(d.Sum(v => v * v));
            return d.Select(v => v / norm).ToArray();
        })];
    }
}
