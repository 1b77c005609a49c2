using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using IlgpuSae.Training;
using Xunit;

namespace IlgpuSae.Tests.Training;

/// <summary>What settings add to every step: remedies for dead features, unit decoder, fine-tuning, b_dec from data.</summary>
public sealed class StepExtensionTests : IDisposable
{
    private const int Width = 16, DSae = 48, Batch = 64;

    private static readonly TrainerConfig Config = new()
    {
        TotalTrainingSamples = Batch * 300,
        TrainBatchSizeSamples = Batch,
        Lr = 3e-3,
        DeadFeatureWindow = 10,
        FeatureSamplingWindow = 50,
    };

    private readonly CpuDevice _device = new(2);

    public void Dispose() => _device.Dispose();

    public static TheoryData<string> Remedies => ["ghost gradients", "resampling, standard", "resampling, topk", "auxiliary loss"];

    /// <summary>Half of the features begin with a bias of -1.5, below what their rows reach: left alone they stay dead.</summary>
    [Theory]
    [MemberData(nameof(Remedies))]
    public void A_remedy_revives_features_that_are_dead_without_it(string remedy)
    {
        TrainingSaeConfig plain = remedy is "resampling, topk" or "auxiliary loss"
            ? new TopKTrainingConfig { DIn = Width, DSae = DSae, K = 4, AuxLossCoefficient = 0 }
            : new StandardTrainingConfig { DIn = Width, DSae = DSae, L1Coefficient = 0.05 };
        var (sae, trainer) = remedy switch
        {
            "ghost gradients" => (((StandardTrainingConfig)plain) with { UseGhostGrads = true }, Config),
            "auxiliary loss" => (((TopKTrainingConfig)plain) with { AuxLossCoefficient = 1 }, Config),
            // A fifth of the living norm seldom wins among the k largest.
            "resampling, topk" => (plain, Config with { ResampleEverySteps = 60, ResampleEncoderScale = 1 }),
            _ => (plain, Config with { ResampleEverySteps = 60 }),
        };
        var (deadWithout, errorWithout) = Train(plain, Config with { Lr = 1e-2 });
        var (deadWith, errorWith) = Train(sae, trainer with { Lr = 1e-2 });
        Assert.InRange(deadWithout, DSae / 2, DSae);
        Assert.InRange(deadWith, 0, deadWithout / 3);
        // What lives again is of use.
        Assert.True(errorWith < errorWithout, $"squared error {errorWith} with the remedy, {errorWithout} without");

        (int Dead, double Error) Train(TrainingSaeConfig config, TrainerConfig settings)
        {
            using var rows = Rows();
            using var made = SaeRegistry.Default.CreateForTraining(config, _device, seed: 7);
            made.Parameters["b_enc"].CopyFrom<float>([.. Enumerable.Range(0, DSae).Select(j => j < DSae / 2 ? -1.5f : 0)]);
            using var run = new SaeTrainer(made, new RowSource(rows), settings);
            var report = run.Train(TestContext.Current.CancellationToken);
            return (report.DeadFeatures, report.Last!.Losses["mse_loss"]);
        }
    }

    [Fact]
    public void A_resampled_feature_starts_anew_from_a_row_the_SAE_does_badly_on()
    {
        using var rows = Rows();
        using var sae = NewSae(new StandardTrainingConfig { DIn = Width, DSae = DSae, L1Coefficient = 0.05 });
        sae.Parameters["b_enc"].CopyFrom<float>([.. Enumerable.Range(0, DSae).Select(j => j < 5 ? -8f : 0.05f)]);
        using var trainer = new SaeTrainer(sae, new RowSource(rows), Config with { ResampleEverySteps = 20, ResampleBatches = 3, ResampleUntilStep = 20 });
        StepContext? last = null;
        var batches = new List<float[]>();
        trainer.Extensions.Add(new Spy(after: step =>
        {
            last = step;
            if (step.Step.Index != 19)
            {
                if (step.Step.Index is 17 or 18) batches.Add(sae.EncoderInput(step.Scope, step.X).ToArray<float>());
                return;
            }

            batches.Add(sae.EncoderInput(step.Scope, step.X).ToArray<float>());
            var enc = sae.WEnc.ToArray<float>().Chunk(Width).ToArray();
            var dec = sae.WDec.ToArray<float>().Chunk(Width).ToArray();
            var living = Enumerable.Range(5, DSae - 5).ToArray();
            for (var j = 0; j < 5; j++)
            {
                Assert.Equal(0.2 * living.Average(i => Norm(enc[i])), Norm(enc[j]), 1e-5);
                Assert.Equal(living.Average(i => Norm(dec[i])), Norm(dec[j]), 1e-5);
                Assert.Equal(1, Cosine(enc[j], dec[j]), 1e-5);
                // It is one of the rows of the last three batches, as the encoder saw them; b_dec has moved little since.
                Assert.True(batches.SelectMany(b => b.Chunk(Width)).Max(r => Cosine(r, dec[j])) > 0.999);
                Assert.Equal(0, sae.Parameters["b_enc"].ToArray<float>()[j]);
                foreach (var name in new[] { "W_enc", "W_dec", "b_enc" })
                {
                    var width = name == "b_enc" ? 1 : Width;
                    Assert.All(trainer.Optimizer.FirstMoment(name).ToArray<float>().AsSpan(j * width, width).ToArray(), v => Assert.Equal(0, v));
                    Assert.All(trainer.Optimizer.SecondMoment(name).ToArray<float>().AsSpan(j * width, width).ToArray(), v => Assert.Equal(0, v));
                    Assert.Contains(trainer.Optimizer.SecondMoment(name).ToArray<float>().AsSpan(10 * width, width).ToArray(), v => v > 0);
                }

                Assert.Equal(0, trainer.Activity.StepsSinceFired[j]);
            }
        }));
        for (var i = 0; i < 20; i++)
        {
            using var scope = new TensorScope(_device);
            using var slice = rows.Slice(i % 10 * Batch, Batch);
            var x = scope.New(slice.Shape);
            x.CopyFrom(slice);
            trainer.Step(scope, x);
        }

        Assert.Equal(19, last!.Step.Index);
    }

    [Fact]
    public void Rows_are_drawn_in_proportion_to_their_weights_and_only_once()
    {
        double[] weights = [0, 1, 2, 4, 1];
        var first = new int[5];
        for (var i = 0; i < 4000; i++)
        {
            var drawn = NeuronResampling.Draw(weights, 5, 9, (ulong)i);
            Assert.Equal([1, 2, 3, 4], drawn.Order());
            first[drawn[0]]++;
        }

        // Standard errors are below 32.
        Assert.Equal([0.0, 500, 1000, 2000, 500], first.Select(n => (double)n), (a, b) => Math.Abs(a - b) < 130);
        Assert.Equal(2, NeuronResampling.Draw(weights, 2, 9, 1).Length);
        Assert.Equal(NeuronResampling.Draw(weights, 2, 9, 1), NeuronResampling.Draw(weights, 2, 9, 1));
    }

    [Fact]
    public void A_unit_decoder_keeps_its_norms_and_gets_no_gradient_along_its_rows()
    {
        using var rows = Rows();
        using var sae = NewSae(new StandardTrainingConfig { DIn = Width, DSae = DSae, L1Coefficient = 0.05, NormalizeSaeDecoder = true });
        using var trainer = new SaeTrainer(sae, new RowSource(rows), Config with { TotalTrainingSamples = Batch * 30 });
        var seen = 0;
        trainer.Extensions.Add(new Spy(gradients: step =>
        {
            var w = sae.WDec.ToArray<float>().Chunk(Width).ToArray();
            var g = step.Gradients["W_dec"]!.ToArray<float>().Chunk(Width).ToArray();
            for (var j = 0; j < DSae; j++)
            {
                Assert.Equal(1, Norm(w[j]), 1e-5);
                Assert.True(Math.Abs(Dot(w[j], g[j])) <= 1e-5 * (1 + Norm(g[j])));
                seen += Norm(g[j]) > 1e-3 ? 1 : 0;
            }
        }));
        var first = trainer.Sae.WDec.ToArray<float>();
        trainer.Train(TestContext.Current.CancellationToken);
        Assert.True(seen > 100);
        Assert.All(sae.WDec.ToArray<float>().Chunk(Width), r => Assert.Equal(1, Norm(r), 1e-5));
        Assert.NotEqual(first, sae.WDec.ToArray<float>());
    }

    [Theory]
    [InlineData(BDecInitMethod.Mean)]
    [InlineData(BDecInitMethod.GeometricMedian)]
    public void B_dec_starts_from_the_first_rows_which_are_trained_on_all_the_same(BDecInitMethod method)
    {
        using var rows = Rows(offset: 3);
        using var sae = NewSae(new TopKTrainingConfig { DIn = Width, DSae = DSae, K = 4, NormalizeActivations = NormalizeActivations.ExpectedAverageOnlyIn });
        using var trainer = new SaeTrainer(sae, new RowSource(rows), Config with { TotalTrainingSamples = Batch * 5, BDecInitMethod = method, BDecInitSamples = 100 });
        float[]? start = null, batch = null;
        trainer.Extensions.Add(new Spy(before: step =>
        {
            start ??= sae.BDec.ToArray<float>();
            batch ??= step.X.ToArray<float>();
        }));
        double? scale = null;
        trainer.Progress = _ => scale = trainer.ActivationScale;
        trainer.Train(TestContext.Current.CancellationToken);
        // Whole batches: 128 rows.
        var points = rows.ToArray<float>().Take(2 * Batch * Width).Select(v => v * scale!.Value).Chunk(Width).ToArray();
        var expected = Enumerable.Range(0, Width).Select(i => points.Average(p => p[i])).ToArray();
        if (method == BDecInitMethod.GeometricMedian)
        {
            for (var n = 0; n < 200; n++)
            {
                var weights = points.Select(p => 1 / Math.Sqrt(p.Zip(expected, (a, b) => (a - b) * (a - b)).Sum())).ToArray();
                expected = [.. Enumerable.Range(0, Width).Select(i => points.Zip(weights, (p, w) => p[i] * w).Sum() / weights.Sum())];
            }
        }

        for (var i = 0; i < Width; i++) Assert.Equal(expected[i], start![i], 2e-4);
        Golden(rows.ToArray<float>().Take(Batch * Width).Select(v => (float)(v * scale!.Value)), batch!);
    }

    [Theory]
    [InlineData("topk")]
    [InlineData("matching_pursuit")]
    public void Features_start_at_the_first_rows_which_are_trained_on_all_the_same(string architecture)
    {
        using var rows = Rows(offset: 3);
        TrainingSaeConfig config = architecture == "topk"
            ? new TopKTrainingConfig { DIn = Width, DSae = DSae, K = 4, DecoderInitMethod = DecoderInitMethod.Data }
            : new MatchingPursuitTrainingConfig { DIn = Width, DSae = DSae, MaxIterations = 4, DecoderInitMethod = DecoderInitMethod.Data };
        using var sae = NewSae(config);
        Assert.True(sae.AwaitsData);
        using var trainer = new SaeTrainer(sae, new RowSource(rows), Config with { TotalTrainingSamples = Batch * 5 });
        float[]? decoder = null, encoder = null, batch = null;
        trainer.Extensions.Add(new Spy(before: step =>
        {
            (decoder, encoder) = (decoder ?? sae.WDec.ToArray<float>(), encoder ?? sae.WEnc.ToArray<float>());
            batch ??= step.X.ToArray<float>();
        }));
        trainer.Train(TestContext.Current.CancellationToken);
        // One batch holds more rows than there are features.
        var points = rows.ToArray<float>().Take(Batch * Width).Select(v => (double)v).Chunk(Width).ToArray();
        var mean = Enumerable.Range(0, Width).Select(i => points.Average(p => p[i])).ToArray();
        for (var j = 0; j < DSae; j++)
        {
            var direction = points[j].Zip(mean, (p, m) => p - m).ToArray();
            var length = Math.Sqrt(direction.Sum(v => v * v));
            for (var i = 0; i < Width; i++) Assert.Equal(config.DecoderInitNorm!.Value * direction[i] / length, decoder![(j * Width) + i], 1e-6);
        }

        Golden(decoder!, encoder!);
        Golden(rows.ToArray<float>().Take(Batch * Width), batch!);
        Assert.False(sae.AwaitsData);
    }

    [Fact]
    public void Weights_that_are_loaded_do_not_wait_for_data()
    {
        var config = new TopKTrainingConfig { DIn = Width, DSae = DSae, K = 4, DecoderInitMethod = DecoderInitMethod.Data };
        using var sae = NewSae(config);
        sae.ImportState(sae.ExportState(), "test");
        Assert.False(sae.AwaitsData);
        // Without a norm the raw draw stays.
        using var raw = NewSae(config with { DecoderInitNorm = null });
        Assert.False(raw.AwaitsData);
    }

    [Fact]
    public void A_geometric_median_is_not_moved_by_a_far_point()
    {
        using var rows = new Tensor(_device, [5, 2]);
        rows.CopyFrom<float>([1, 1, 1, -1, -1, 1, -1, -1, 1000, 0]);
        Assert.Equal(199.99, BDecInitialization.Mean(rows)[0], 1.0);
        var median = BDecInitialization.GeometricMedian(rows);
        Assert.InRange(median[0], 0.0f, 1.0f);
        Assert.Equal(0, median[1], 1e-5f);
    }

    [Theory]
    [InlineData(FinetuningMethod.Scale)]
    [InlineData(FinetuningMethod.UnrotatedDecoder)]
    [InlineData(FinetuningMethod.Decoder)]
    public void Finetuning_undoes_shrinkage_and_leaves_the_encoder(FinetuningMethod method)
    {
        using var rows = Rows();
        using var sae = NewSae(new StandardTrainingConfig { DIn = Width, DSae = DSae, L1Coefficient = 1.5, ScaleSparsityPenaltyByDecoderNorm = true });
        using var trainer = new SaeTrainer(sae, new RowSource(rows), Config with { FinetuningTokens = Batch * 200, FinetuningMethod = method, Lr = 1e-2 });
        Dictionary<string, float[]>? before = null;
        var errors = new List<double>();
        trainer.Extensions.Add(new Spy(before: step =>
        {
            if (trainer.Samples == Config.TotalTrainingSamples) before = sae.Parameters.ToDictionary(p => p.Key, p => p.Value.ToArray<float>());
        }));
        trainer.Progress = p => errors.Add(p.Metrics.Losses["mse_loss"]);
        var report = trainer.Train(TestContext.Current.CancellationToken);
        Assert.Equal((500L, 500L * Batch), (report.Steps, report.Samples));
        Assert.Equal(["mse_loss"], report.Last!.Losses.Keys);
        Assert.True(errors[^10..].Average() < 0.9 * errors[290..300].Average(), $"{errors[290..300].Average()} -> {errors[^10..].Average()}");
        Assert.Equal(before!["W_enc"], sae.WEnc.ToArray<float>());
        Assert.Equal(before["b_enc"], sae.Parameters["b_enc"].ToArray<float>());
        Assert.Equal(method == FinetuningMethod.Scale, before["b_dec"].AsSpan().SequenceEqual(sae.BDec.ToArray<float>()));
        var (old, now) = (before["W_dec"].Chunk(Width).ToArray(), sae.WDec.ToArray<float>().Chunk(Width).ToArray());
        var turned = Enumerable.Range(0, DSae).Count(j => Math.Abs(Cosine(old[j], now[j])) < 1 - 1e-5);
        Assert.True(method == FinetuningMethod.Decoder ? turned > 5 : turned == 0, $"{turned} rows turned");
        var grown = Enumerable.Range(0, DSae).Count(j => Norm(now[j]) > 1.02 * Norm(old[j]));
        Assert.True(grown > 5, $"{grown} rows grew");
    }

    [Fact]
    public void The_factors_gradient_is_that_of_finite_differences()
    {
        using var rows = Rows();
        using var sae = NewSae(new StandardTrainingConfig { DIn = Width, DSae = DSae, L1Coefficient = 0.1 });
        var config = Config with { TotalTrainingSamples = Batch, FinetuningTokens = Batch * 2, FinetuningMethod = FinetuningMethod.Scale };
        using var trainer = new SaeTrainer(sae, new RowSource(rows), config);
        Tensor? gradient = null;
        float[] w = [], f = [], b = [], x = [];
        trainer.Extensions.Add(new Spy(gradients: step =>
        {
            if (step.Step.Index != 1) return;
            gradient = step.FurtherGradients.Single();
            (w, b, x) = (sae.WDec.ToArray<float>(), sae.BDec.ToArray<float>(), step.X.ToArray<float>());
            f = DenseFeatures.Of(step.Scope, sae.Encode(step.Scope, step.X)).ToArray<float>();
            var actual = gradient.ToArray<float>();
            for (var j = 0; j < DSae; j += 5)
                Assert.Equal((Error(j, 1e-5) - Error(j, -1e-5)) / 2e-5, actual[j], 1e-3 * (0.1 + Math.Abs(actual[j])));
        }));
        trainer.Train(TestContext.Current.CancellationToken);
        Assert.NotNull(gradient);

        double Error(int feature, double more)
        {
            var sum = 0.0;
            for (var r = 0; r < Batch; r++)
            {
                for (var i = 0; i < Width; i++)
                {
                    double y = b[i];
                    for (var j = 0; j < DSae; j++) y += f[(r * DSae) + j] * w[(j * Width) + i] * (j == feature ? 1 + more : 1);
                    sum += Math.Pow(y - x[(r * Width) + i], 2) / Batch;
                }
            }

            return sum;
        }
    }

    [Fact]
    public void All_of_it_gives_the_same_bytes_on_any_number_of_threads()
    {
        var runs = new[] { 1, 2, 3 }.Select(threads =>
        {
            using var device = new CpuDevice(threads);
            using var rows = Rows(device: device);
            using var sae = SaeRegistry.Default.CreateForTraining(new StandardTrainingConfig
            {
                DIn = Width,
                DSae = DSae,
                L1Coefficient = 0.5,
                UseGhostGrads = true,
                NoiseScale = 0.1,
                NormalizeSaeDecoder = true,
                DecoderInitNorm = null,
                MseLossNormalization = MseLossNormalization.DenseBatch,
                DecoderInitMethod = DecoderInitMethod.Orthogonal,
                InitEncoderAsDecoderTranspose = false,
            }, device, seed: 5);
            using var trainer = new SaeTrainer(sae, new RowSource(rows), Config with
            {
                TotalTrainingSamples = Batch * 40,
                BDecInitMethod = BDecInitMethod.GeometricMedian,
                BDecInitSamples = 200,
                DeadFeatureWindow = 3,
                ResampleEverySteps = 10,
                ResampleBatches = 2,
                FinetuningTokens = Batch * 10,
                FinetuningMethod = FinetuningMethod.Decoder,
            });
            trainer.Train(TestContext.Current.CancellationToken);
            return sae.ExportState().SelectMany(p => p.Values).ToArray();
        }).ToArray();
        Assert.All(runs[0], v => Assert.True(float.IsFinite(v)));
        Assert.True(runs[0].AsSpan().SequenceEqual(runs[1]));
        Assert.True(runs[0].AsSpan().SequenceEqual(runs[2]));
    }

    [Fact]
    public void Settings_that_cannot_be_are_refused_by_name()
    {
        Refused("finetuning_method: missing, but finetuning_tokens = 64", c => c with { FinetuningTokens = 64 });
        Refused("finetuning_tokens: 0, but finetuning_method is set", c => c with { FinetuningMethod = FinetuningMethod.Scale });
        Refused("resample_batches: 9 batches do not lie between resamplings every 5 steps", c => c with { ResampleEverySteps = 5, ResampleBatches = 9 });
        Refused("resample_every_steps: 200 leaves no step to resample at in a run of 300 steps", c => c with { ResampleEverySteps = 200 });
        Refused("resample_encoder_scale: 0 is not a positive number", c => c with { ResampleEncoderScale = 0 });
        Refused("resample_loss_power: -1 is not a number of at least 0", c => c with { ResampleLossPower = -1 });
        Refused("b_dec_init_samples: 0 is less than 1", c => c with { BDecInitSamples = 0 });
    }

    private static void Refused(string message, Func<TrainerConfig, TrainerConfig> change) =>
        Assert.StartsWith(message, Assert.Throws<InvalidInputException>(change(Config).Validate).Message, StringComparison.Ordinal);

    private static void Golden(IEnumerable<float> expected, float[] actual) => Assert.Equal(expected.ToArray(), actual, (a, b) => Math.Abs(a - b) <= 1e-5f * (1 + Math.Abs(a)));

    private static double Dot(float[] a, float[] b) => a.Zip(b, (x, y) => (double)x * y).Sum();

    private static double Norm(float[] a) => Math.Sqrt(Dot(a, a));

    private static double Cosine(float[] a, float[] b) => Dot(a, b) / (Norm(a) * Norm(b));

    private TrainingSae NewSae(TrainingSaeConfig config) => SaeRegistry.Default.CreateForTraining(config, _device, seed: 7);

    /// <summary>640 rows, each the sum of three of 60 fixed directions: more than half of the features can hold.</summary>
    private Tensor Rows(float offset = 0, Device? device = null)
    {
        var random = new Random(5);
        var directions = Enumerable.Range(0, 60 * Width).Select(_ => random.NextSingle() - 0.5f).ToArray();
        var values = new float[640 * Width];
        for (var r = 0; r < 640; r++)
        {
            for (var i = 0; i < Width; i++) values[(r * Width) + i] = offset;
            for (var k = 0; k < 3; k++)
            {
                var (d, a) = (random.Next(60), 1 + random.NextSingle());
                for (var i = 0; i < Width; i++) values[(r * Width) + i] += a * directions[(d * Width) + i];
            }
        }

        var t = new Tensor(device ?? _device, [640, Width]);
        t.CopyFrom<float>(values);
        return t;
    }

    private sealed class Spy(Action<StepContext>? before = null, Action<StepContext>? gradients = null, Action<StepContext>? after = null) : IStepExtension
    {
        public void BeforeForward(StepContext step) => before?.Invoke(step);

        public void OnGradients(StepContext step) => gradients?.Invoke(step);

        public void AfterStep(StepContext step) => after?.Invoke(step);
    }
}
