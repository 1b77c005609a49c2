using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using IlgpuSae.Training;
using Xunit;

namespace IlgpuSae.GpuTests;

/// <summary>Training options on an ILGPU device: the numbers of the CPU.</summary>
public sealed class TrainingOptionsTests
{
    [Fact]
    public void Options_of_training_give_the_CPUs_numbers()
    {
        using var cpu = new CpuDevice(1);
        using var gpu = TestDevice.Open();
        var expected = Train(cpu);
        var actual = Train(gpu);
        Assert.Equal(expected.Losses.Count, actual.Losses.Count);
        for (var i = 0; i < expected.Losses.Count; i++) Assert.Equal(expected.Losses[i], actual.Losses[i], 1e-3 * Math.Abs(expected.Losses[i]));
        for (var i = 0; i < expected.Weights.Length; i++) Assert.Equal(expected.Weights[i], actual.Weights[i], 2e-3f);
    }

    private static (List<double> Losses, float[] Weights) Train(Device device)
    {
        var random = new Random(5);
        using var rows = new Tensor(device, [24, 6]);
        rows.CopyFrom<float>([.. Enumerable.Range(0, 24 * 6).Select(_ => random.NextSingle() - 0.3f)]);
        using var sae = SaeRegistry.Default.CreateForTraining(new StandardTrainingConfig
        {
            DIn = 6,
            DSae = 10,
            L1Coefficient = 0.5,
            UseGhostGrads = true,
            NoiseScale = 0.1,
            NormalizeSaeDecoder = true,
            MseLossNormalization = MseLossNormalization.DenseBatch,
            DecoderInitMethod = DecoderInitMethod.Normal,
            InitEncoderAsDecoderTranspose = false,
        }, device, seed: 5);
        sae.Parameters["b_enc"].CopyFrom<float>([-9, -9, -9, 0, 0, 0, 0, 0, 0, 0]);
        using var trainer = new SaeTrainer(sae, new RowSource(rows), new TrainerConfig
        {
            TotalTrainingSamples = 8 * 4,
            TrainBatchSizeSamples = 8,
            Lr = 1e-3,
            BDecInitMethod = BDecInitMethod.GeometricMedian,
            BDecInitSamples = 16,
            DeadFeatureWindow = 0,
            ResampleEverySteps = 2,
            FinetuningTokens = 8,
            FinetuningMethod = FinetuningMethod.Decoder,
        });
        var losses = new List<double>();
        trainer.Progress = p => losses.AddRange(p.Metrics.Losses.Values);
        trainer.Train(TestContext.Current.CancellationToken);
        return (losses, sae.ExportState().SelectMany(p => p.Values).ToArray());
    }
}
