using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using IlgpuSae.Training;
using Xunit;

namespace IlgpuSae.Tests.Saes;

/// <summary>An architecture is one file, also outside the library: that of docs/adding-an-architecture.md.</summary>
public sealed class OutsideArchitectureTests
{
    [Fact]
    public void It_is_registered_trained_saved_and_loaded()
    {
        var registry = SaeRegistry.With(typeof(TanhTrainingSae).Assembly);
        Assert.Contains("tanh", registry.TrainingNames);
        Assert.DoesNotContain("tanh", SaeRegistry.Default.TrainingNames);
        using var device = new CpuDevice(2);
        var config = new TanhTrainingConfig { DIn = 6, DSae = 20, L1Coefficient = 0.5 };
        using var sae = registry.CreateForTraining(config, device);
        using var rows = new Tensor(device, [64, 6]);
        RandomFill.Normal(rows, seed: 3, stream: 1);

        using (var scope = new TensorScope(device))
        {
            var pass = sae.Forward(scope, rows, new TrainingStep(0, new Dictionary<string, double> { ["l1"] = 0.5 }, default));
            var (f, norms) = (DenseFeatures.Of(scope, pass.Features).ToArray<float>(), RowNorm.L2(scope, sae.WDec).ToArray<float>());
            var penalty = f.Select((v, i) => Math.Tanh(4 * v * norms[i % 20])).Sum() / 64;
            Assert.Equal(0.5 * penalty, pass.Losses[1].Value.Scalar(), 1e-5);
        }

        using var trainer = new SaeTrainer(sae, new RowSource(rows), new TrainerConfig { TotalTrainingSamples = 64 * 50, TrainBatchSizeSamples = 64, Lr = 1e-2 });
        List<double> losses = [];
        trainer.Progress = p => losses.Add(p.Metrics.Loss);
        trainer.Train(TestContext.Current.CancellationToken);
        Assert.True(losses[^1] < 0.7 * losses[0], $"{losses[0]} -> {losses[^1]}");

        using var temp = new TempFolder();
        using var inference = sae.ToInference();
        SaeLensFolder.Save(temp["sae"], inference, training: sae);
        using var used = SaeLensFolder.Load(temp["sae"], device);
        Assert.Equal("standard", used.Config.Architecture);
        using var again = SaeLensFolder.LoadForTraining(Path.Combine(temp["sae"], SaeLensFolder.TrainingFolder), device, registry);
        Assert.Equal(config with { Metadata = again.Config.Metadata }, again.Config);
        Assert.Equal(sae.WDec.ToArray<float>(), again.WDec.ToArray<float>());
    }

    [Fact]
    public void The_page_shows_the_file_as_it_is()
    {
        var root = Directory.GetParent(Golden.FolderOf())!.Parent!.FullName;
        var source = File.ReadAllLines(Path.Combine(root, "tests", "IlgpuSae.Tests", "Saes", "TanhPenalty.cs"));
        var page = File.ReadAllLines(Path.Combine(root, "docs", "adding-an-architecture.md"));
        Assert.Equal(source, page.SkipWhile(l => l != "```diff").Skip(2).TakeWhile(l => l != "```").Select(l => l[1..]));
    }
}
