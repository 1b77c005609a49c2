using System.Text.Json.Nodes;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using IlgpuSae.Training;
using Xunit;

namespace IlgpuSae.Tests.Training;

public sealed class SaeTrainerTests : IDisposable
{
    private static readonly TrainerConfig Config = new()
    {
        TotalTrainingSamples = 1280,
        TrainBatchSizeSamples = 64,
        Lr = 3e-3,
        LrWarmUpSteps = 3,
        LrDecaySteps = 5,
        DeadFeatureWindow = 3,
        FeatureSamplingWindow = 7,
    };

    private readonly TempFolder _temp = new();

    public void Dispose() => _temp.Dispose();

    [Theory]
    [InlineData("standard")]
    [InlineData("topk")]
    public void The_same_run_gives_the_same_bytes_on_any_number_of_threads(string architecture)
    {
        var runs = new[] { 1, 2, 3, 2 }.Select(threads =>
        {
            using var device = new CpuDevice(threads);
            using var rows = Rows(device, 640, 24);
            using var sae = NewSae(architecture, device);
            using var trainer = new SaeTrainer(sae, new RowSource(rows), Config);
            var report = trainer.Train(TestContext.Current.CancellationToken);
            return (Weights: sae.ExportState().SelectMany(p => p.Values).ToArray(), report.Last!.Loss, Sparsity: report.LogSparsity);
        }).ToArray();
        foreach (var run in runs[1..])
        {
            Assert.True(runs[0].Weights.AsSpan().SequenceEqual(run.Weights));
            Assert.Equal(runs[0].Loss, run.Loss);
            Assert.Equal(runs[0].Sparsity, run.Sparsity);
        }
    }

    [Fact]
    public void Training_learns_and_says_so()
    {
        using var device = new CpuDevice(2);
        using var rows = Rows(device, 640, 24);
        using var sae = NewSae("topk", device);
        using var trainer = new SaeTrainer(sae, new RowSource(rows), Config with { TotalTrainingSamples = 64 * 200 });
        List<TrainingProgress> told = [];
        trainer.Progress = told.Add;
        var report = trainer.Train(TestContext.Current.CancellationToken);
        Assert.Equal((TrainingEnd.Completed, 200L, 12800L), (report.End, report.Steps, report.Samples));
        Assert.Equal(200, told.Count);
        Assert.All(told, p => Assert.True(p.SamplesPerSecond > 0 && p.TotalSteps == 200));
        Assert.Equal(TimeSpan.Zero, told[^1].TimeLeft);
        Assert.True(told[^1].Metrics.Losses["mse_loss"] < 0.5 * told[0].Metrics.Losses["mse_loss"], $"{told[0].Metrics.Loss} -> {told[^1].Metrics.Loss}");
        Assert.InRange(told[^1].Metrics.ExplainedVariance, 0.5, 1);
        Assert.Equal(96, report.LogSparsity.Length);
        // The last window began with step 196 (the 28th multiple of 7, counted from 1): 5 batches.
        Assert.Equal(5 * 64, trainer.Activity.WindowSamples);
        Assert.Equal(trainer.Activity.Frequencies.Sum(), (long)Math.Round(told[^5..].Sum(p => p.Metrics.L0 * 64)));
    }

    [Fact]
    public void After_its_first_steps_training_asks_the_system_for_no_memory()
    {
        // With more threads, how many hold scratch at once depends on how the system schedules them.
        using var device = new CpuDevice(1);
        using var rows = Rows(device, 640, 24);
        // Without dead features every step's tensors have the sizes of the first's.
        using var sae = NewSae("topk", device);
        using var trainer = new SaeTrainer(sae, new RowSource(rows), Config with { DeadFeatureWindow = 100 });
        List<long> allocations = [];
        trainer.Progress = _ => allocations.Add(device.SystemAllocations);
        trainer.Train(TestContext.Current.CancellationToken);
        Assert.Equal(20, allocations.Count);
        Assert.All(allocations[1..], n => Assert.Equal(allocations[0], n));
    }

    [Theory]
    [InlineData(float.NaN, "NaN")]
    [InlineData(float.PositiveInfinity, "Infinity")]
    public void Activations_that_are_not_finite_stop_it_before_the_weights_change(float bad, string shown)
    {
        foreach (var architecture in new[] { "standard", "topk" })
        {
            using var device = new CpuDevice(2);
            using var rows = Rows(device, 640, 24);
            var values = rows.ToArray<float>();
            values[(200 * 24) + 5] = bad;
            rows.CopyFrom<float>(values);
            using var sae = NewSae(architecture, device);
            using var trainer = new SaeTrainer(sae, new RowSource(rows), Config);
            var path = _temp["metrics.jsonl"];
            using (var sink = new JsonLinesSink(path))
            {
                trainer.Sinks.Add(sink);
                float[]? before = null;
                trainer.Progress = p => before = p.Metrics.Step == 2 ? sae.WDec.ToArray<float>() : before;
                var e = Assert.Throws<TrainingFailedException>(() => trainer.Train(TestContext.Current.CancellationToken));
                Assert.Equal($"train: stopped at step 3: the activations hold {shown} (row 200 of the run, column 5); look at the model or the file they come from", e.Message);
                Assert.Equal(before, sae.WDec.ToArray<float>());
            }

            Assert.Empty(Directory.EnumerateFileSystemEntries(_temp.Path));
        }
    }

    [Fact]
    public void A_loss_that_runs_away_stops_it()
    {
        using var device = new CpuDevice(1);
        using var rows = Rows(device, 640, 24);
        using var sae = NewSae("standard", device);
        using var trainer = new SaeTrainer(sae, new RowSource(rows), Config with { Lr = 1e30, LrWarmUpSteps = 0 });
        var e = Assert.Throws<TrainingFailedException>(() => trainer.Train(TestContext.Current.CancellationToken));
        Assert.Contains("although the activations are; lower lr", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Stopping_it_keeps_what_was_done()
    {
        using var device = new CpuDevice(2);
        using var rows = Rows(device, 640, 24);
        using var sae = NewSae("standard", device);
        using var trainer = new SaeTrainer(sae, new RowSource(rows), Config);
        using var stop = new CancellationTokenSource();
        var path = _temp["metrics.jsonl"];
        using var sink = new JsonLinesSink(path);
        trainer.Sinks.Add(sink);
        trainer.Progress = p =>
        {
            if (p.Metrics.Step == 4) stop.Cancel();
        };
        var report = trainer.Train(stop.Token);
        Assert.Equal((TrainingEnd.Cancelled, 5L), (report.End, report.Steps));
        var lines = File.ReadAllLines(path).Select(l => JsonNode.Parse(l)!.AsObject()).ToArray();
        Assert.Equal(5, lines.Length);
        Assert.Equal(
            ["step", "lr", "coefficients", "n_dead", "loss", "losses", "grad_norm_before_clip", "l0", "explained_variance", "n_training_samples"],
            lines[4].Select(p => p.Key));
        Assert.Equal(4, lines[4]["step"]!.GetValue<int>());
        Assert.Equal(report.Last!.Losses["l1_loss"], lines[4]["losses"]!["l1_loss"]!.GetValue<double>());
        Assert.Single(Directory.EnumerateFileSystemEntries(_temp.Path));
    }

    [Fact]
    public void A_source_that_ends_ends_the_run_and_an_empty_one_is_an_error()
    {
        using var device = new CpuDevice(1);
        using var rows = Rows(device, 100, 24);
        using var sae = NewSae("topk", device);
        using (var trainer = new SaeTrainer(sae, new RowSource(rows, repeat: false), Config))
        {
            var report = trainer.Train(TestContext.Current.CancellationToken);
            Assert.Equal((TrainingEnd.SourceEnded, 2L, 100L), (report.End, report.Steps, report.Samples));
        }

        using var none = new Tensor(device, [0, 24]);
        using var idle = new SaeTrainer(sae, new RowSource(none), Config);
        Assert.Equal("train: the activations have no rows", Assert.Throws<InvalidInputException>(() => idle.Train(TestContext.Current.CancellationToken)).Message);
    }

    [Fact]
    public void Rows_start_again_at_the_top_within_a_batch()
    {
        using var device = new CpuDevice(1);
        using var rows = new Tensor(device, [3, 2]);
        rows.CopyFrom<float>([0, 1, 2, 3, 4, 5]);
        var source = new RowSource(rows);
        using var scope = new TensorScope(device);
        Assert.Equal([0, 1, 2, 3], source.Next(scope, 2)!.ToArray<float>());
        Assert.Equal([4, 5, 0, 1, 2, 3, 4, 5, 0, 1], source.Next(scope, 5)!.ToArray<float>());
        Assert.Equal((1 + Math.Sqrt(13) + Math.Sqrt(41)) / 3, source.MeanNorm(device, 2)!.Value, 1e-6);
    }

    [Fact]
    public void The_activation_scale_is_estimated_from_batches_where_the_source_does_not_know_it()
    {
        // All-two vectors of width 64 have norm 16, so the factor is 8 / 16.
        using var device = new CpuDevice(1);
        using var sae = SaeRegistry.Default.CreateForTraining(
            new StandardTrainingConfig { DIn = 64, DSae = 8, NormalizeActivations = NormalizeActivations.ExpectedAverageOnlyIn }, device);
        using var trainer = new SaeTrainer(sae, new Twos(), new TrainerConfig { TotalTrainingSamples = 8, TrainBatchSizeSamples = 4 });
        var report = trainer.Train(TestContext.Current.CancellationToken);
        Assert.Equal(0.5, report.ActivationScale!.Value, 1e-12);
        Assert.Equal(NormalizeActivations.None, sae.Config.NormalizeActivations);
    }

    [Fact]
    public void A_source_that_the_estimate_uses_up_is_an_error_that_says_so()
    {
        using var device = new CpuDevice(1);
        using var sae = SaeRegistry.Default.CreateForTraining(
            new StandardTrainingConfig { DIn = 64, DSae = 8, NormalizeActivations = NormalizeActivations.ExpectedAverageOnlyIn }, device);
        using var trainer = new SaeTrainer(sae, new Twos(batches: 3), new TrainerConfig { TotalTrainingSamples = 8, TrainBatchSizeSamples = 4 });
        var e = Assert.Throws<InvalidInputException>(() => trainer.Train(TestContext.Current.CancellationToken));
        Assert.StartsWith("train: estimating the activation scale used up all 12 rows", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Settings_and_source_have_to_fit_the_SAE()
    {
        using var device = new CpuDevice(1);
        using var rows = Rows(device, 10, 23);
        using var sae = NewSae("topk", device);
        Assert.Equal("train: the activations are 23 wide but the SAE has d_in = 24",
            Assert.Throws<ShapeException>(() => new SaeTrainer(sae, new RowSource(rows), Config)).Message);
        Assert.Throws<InvalidInputException>(() => new SaeTrainer(sae, new RowSource(rows), Config with { Lr = -1 }));
    }

    private static TrainingSae NewSae(string architecture, Device device) => SaeRegistry.Default.CreateForTraining(
        architecture == "topk"
            ? new TopKTrainingConfig { DIn = 24, DSae = 96, K = 4 }
            : new StandardTrainingConfig { DIn = 24, DSae = 96, L1Coefficient = 0.3, L1WarmUpSteps = 4 },
        device, seed: 7);

    /// <summary>Rows that are sums of two of 30 fixed directions: something to learn.</summary>
    private static Tensor Rows(Device device, int n, int width)
    {
        var random = new Random(5);
        var directions = Enumerable.Range(0, 30 * width).Select(_ => random.NextSingle() - 0.5f).ToArray();
        var values = new float[n * width];
        for (var r = 0; r < n; r++)
        {
            for (var k = 0; k < 2; k++)
            {
                var (d, a) = (random.Next(30), 1 + random.NextSingle());
                for (var i = 0; i < width; i++) values[(r * width) + i] += a * directions[(d * width) + i];
            }
        }

        var t = new Tensor(device, [n, width]);
        t.CopyFrom<float>(values);
        return t;
    }

    private sealed class Twos(int batches = int.MaxValue) : IActivationSource
    {
        private int _left = batches;

        public int Width => 64;

        public Tensor? Next(TensorScope scope, int rows) => _left-- <= 0 ? null : scope.From<float>([.. Enumerable.Repeat(2f, rows * 64)], [rows, 64]);
    }
}
