using System.Text.Json.Nodes;
using IlgpuSae.Activations;
using IlgpuSae.Autograd;
using IlgpuSae.Kernels;
using IlgpuSae.Runs;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using IlgpuSae.Tests.Cli;
using IlgpuSae.Training;
using Xunit;

namespace IlgpuSae.Tests.Runs;

/// <summary>End-to-end training: the gradient comes back through the model, and following it brings the predictions nearer.</summary>
public sealed class EndToEndTests : IDisposable
{
    private readonly TempFolder _temp = new();
    private readonly string _model = Golden.FolderOf("lm", "gpt2_tiny", "model");

    public void Dispose() => _temp.Dispose();

    /// <summary>All of a context; some positions and tokens left out; one head; an activation scale.</summary>
    [Theory]
    [InlineData(EndToEndLoss.Kl, "blocks.1.hook_resid_pre", null, false, null)]
    [InlineData(EndToEndLoss.Ce, "blocks.1.hook_mlp_out", null, true, 0.7)]
    [InlineData(EndToEndLoss.Kl, "blocks.0.attn.hook_z", 2, true, null)]
    public void The_gradient_is_that_of_finite_differences(EndToEndLoss loss, string hook, int? head, bool leaveOut, double? scale)
    {
        using var device = new CpuDevice(2);
        using var language = LanguageModel.Load(_model, device, cancellation: TestContext.Current.CancellationToken);
        var data = Data(hook) with
        {
            HookHeadIndex = head,
            SeqposSlice = leaveOut ? new PositionSlice(1, null, 1) : PositionSlice.All,
            ExcludeSpecialTokens = leaveOut ? TokenExclusion.Of([7]) : TokenExclusion.None,
        };
        using var tokens = language.OpenTokens(data, null);
        var endToEnd = new EndToEnd(language, tokens, data, new EndToEndConfig { E2eLoss = loss, E2eCoefficient = 3, E2eMseCoefficient = 0.05 });
        using var sae = SaeRegistry.Default.CreateForTraining(new StandardTrainingConfig { DIn = endToEnd.Width, DSae = 24, L1Coefficient = 0.01 }, device, seed: 3);
        var random = new Random(2);
        foreach (var p in sae.Parameters.Values) p.CopyFrom<float>([.. p.ToArray<float>().Select(v => v + (0.3f * (random.NextSingle() - 0.5f)))]);
        using var trainer = new SaeTrainer(sae, endToEnd, new TrainerConfig { TotalTrainingSamples = 64, TrainBatchSizeSamples = 32 }) { ActivationScale = scale };

        var (total, losses, gradients) = Pass(gradient: true);
        Assert.Equal([.. new[] { "mse_loss", "l1_loss" }, loss == EndToEndLoss.Kl ? "kl_loss" : "ce_loss"], losses.Keys);
        Assert.Equal(losses.Values.Sum(), total, 1e-4 * Math.Abs(total));
        foreach (var (name, p) in sae.Parameters)
        {
            // Along a random direction mixed with the gradient's own, so that the slope stands out from float's noise.
            var g = gradients![name];
            var norm = Math.Sqrt(g.Sum(v => (double)v * v));
            Assert.True(norm > 0, name);
            var direction = g.Select(v => (v / norm) + ((random.NextDouble() - 0.5) / Math.Sqrt(g.Length))).ToArray();
            var slope = g.Zip(direction, (a, b) => a * b).Sum();
            var at = p.ToArray<float>();
            const double h = 4e-3;
            p.CopyFrom<float>([.. at.Zip(direction, (a, d) => (float)(a + (h * d)))]);
            var above = Pass(gradient: false).Total;
            p.CopyFrom<float>([.. at.Zip(direction, (a, d) => (float)(a - (h * d)))]);
            var below = Pass(gradient: false).Total;
            p.CopyFrom<float>(at);
            Assert.Equal((above - below) / (2 * h), slope, (0.03 * Math.Abs(slope)) + 2e-4);
        }

        (double Total, Dictionary<string, double> Losses, Dictionary<string, float[]>? Gradients) Pass(bool gradient)
        {
            tokens.Rewind();
            using var scope = new TensorScope(device);
            var x = endToEnd.Next(scope, 32)!;
            var scaled = scale is { } s ? Scale.By(scope, x, (float)s) : x;
            var step = new TrainingStep(0, new Dictionary<string, double> { ["l1"] = 0.01 }, default);
            using var tape = new Tape(scope);
            foreach (var p in sae.Parameters.Values) tape.Watch(p);
            var pass = endToEnd.Extend(new StepContext(trainer, scope, x, scaled, scaled, step, 1), sae.Forward(scope, scaled, step));
            if (gradient) tape.Backward(pass.Total);
            return (pass.Total.Scalar(), pass.Losses.ToDictionary(l => l.Name, l => (double)l.Value.Scalar()),
                gradient ? sae.Parameters.ToDictionary(p => p.Key, p => tape.Gradient(p.Value).ToArray<float>()) : null);
        }
    }

    [Fact]
    public void An_SAE_that_changes_nothing_has_no_divergence()
    {
        using var device = new CpuDevice(1);
        using var language = LanguageModel.Load(_model, device, cancellation: TestContext.Current.CancellationToken);
        var data = Data("blocks.1.hook_resid_pre");
        using var tokens = language.OpenTokens(data, null);
        var endToEnd = new EndToEnd(language, tokens, data, new EndToEndConfig { E2eLoss = EndToEndLoss.Kl });
        var d = endToEnd.Width;
        using var sae = SaeRegistry.Default.CreateForTraining(new StandardTrainingConfig { DIn = d, DSae = 2 * d, L1Coefficient = 0 }, device);
        var identity = Enumerable.Range(0, 2 * d * d).Select(i => i % d == i / d % d ? (i < d * d ? 1f : -1f) : 0).ToArray();
        sae.WEnc.CopyFrom<float>(identity);
        sae.WDec.CopyFrom<float>(identity);
        using var trainer = new SaeTrainer(sae, endToEnd, new TrainerConfig { TotalTrainingSamples = 32, TrainBatchSizeSamples = 32 });
        trainer.Extensions.Add(endToEnd);
        var report = trainer.Train(TestContext.Current.CancellationToken);
        Assert.Equal(0, report.Last!.Losses["kl_loss"], 1e-6);
        Assert.Equal(1, report.Last.ExplainedVariance, 1e-5);
    }

    [Fact]
    public void Training_through_the_model_brings_its_predictions_nearer_on_any_number_of_threads()
    {
        var runs = new[] { 1, 3 }.Select(threads =>
        {
            using var device = new CpuDevice(threads);
            var tokens = Ilgpusae.Tokens(_temp, $"t{threads}.safetensors", 40, 16, i => i * i % 97);
            var config = RunConfigReader.Read(
                [],
                new()
                {
                    ["model_name"] = _model,
                    ["tokens"] = tokens,
                    ["hook_name"] = "blocks.1.hook_resid_pre",
                    ["d_sae"] = 64,
                    ["k"] = 6,
                    ["lr"] = 0.01,
                    ["training_tokens"] = 64 * 60,
                    ["train_batch_size_tokens"] = 70,
                    ["e2e_loss"] = "kl",
                    ["n_eval_batches"] = 0,
                    ["b_dec_init_method"] = "mean",
                    ["b_dec_init_samples"] = 100,
                    ["output_path"] = _temp[$"sae{threads}"],
                },
                "test",
                "topk");
            List<double> kl = [];
            var report = new TrainingRun(config, device) { Progress = p => kl.Add(p.Metrics.Losses["kl_loss"]) }.Execute(TestContext.Current.CancellationToken);
            // Four whole contexts of 16 tokens are the most that fit into 70 rows.
            Assert.Equal((60L, 64L * 60), (report.Training.Steps, report.Training.Samples));
            Assert.True(kl[^5..].Average() < 0.5 * kl[..5].Average(), $"{kl[..5].Average()} -> {kl[^5..].Average()}");
            Assert.Equal(0, report.Training.Last!.Losses["mse_loss"]);
            return kl;
        }).ToArray();
        Assert.Equal(runs[0], runs[1]);
    }

    [Theory]
    [InlineData("e2e_loss: there is no model to train through", "--e2e-loss", "kl")]
    [InlineData("--e2e-loss: \"mse\" is none of kl, ce", "--e2e-loss", "mse")]
    [InlineData("e2e_coefficient: -1 is not a number of at least 0", "--e2e-coefficient", "-1")]
    public void What_cannot_be_is_named(string message, params string[] options) =>
        Assert.Contains(message, Ilgpusae.Fail(2, ["train", .. options, "--output-path", _temp["sae"]]), StringComparison.Ordinal);

    [Fact]
    public void It_is_for_SAEs_alone_and_not_for_fine_tuning_of_scales()
    {
        var run = RunConfigReader.Read([], JsonNode.Parse("""{"model_name": "m", "text": "t", "hook_name": "h", "e2e_loss": "ce"}""")!.AsObject(), "test", "topk");
        run.EndToEnd.Validate(run);
        Refused("e2e_loss: architecture transcoder cannot stand in for one hook; use none", run with { Sae = new TranscoderTrainingConfig() });
        Refused("finetuning_tokens: fine-tuning of scales or decoder follows mse_loss alone", run with { Trainer = run.Trainer with { FinetuningTokens = 9, FinetuningMethod = FinetuningMethod.Scale } });
        Refused("e2e_coefficient: 0, and so is e2e_mse_coefficient", run with { EndToEnd = run.EndToEnd with { E2eCoefficient = 0 } });
    }

    private static void Refused(string message, RunConfig run) =>
        Assert.StartsWith(message, Assert.Throws<InvalidInputException>(() => run.EndToEnd.Validate(run)).Message, StringComparison.Ordinal);

    private DataConfig Data(string hook) => new()
    {
        ModelName = _model,
        HookName = hook,
        Tokens = Ilgpusae.Tokens(_temp, "t.safetensors", 8, 12, i => i * i % 97),
    };
}
