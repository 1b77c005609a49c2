using IlgpuSae.Activations;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using IlgpuSae.Training;

// Activations whose features are known: 64 directions packed into 32 dimensions, about 3 active at once.
using var device = Device.Open("cpu");
var source = new SyntheticSuperposition(new SyntheticConfig { DIn = 32, NTrue = 64, MeanActive = 3 });

// A TopK SAE with more features than there are directions.
using var sae = SaeRegistry.Default.CreateForTraining(new TopKTrainingConfig { DIn = 32, DSae = 128, K = 4 }, device);
using var trainer = new SaeTrainer(sae, source, new TrainerConfig
{
    TotalTrainingSamples = 200_000,
    TrainBatchSizeSamples = 512,
    Lr = 5e-3,
    LrDecaySteps = 150,
    DeadFeatureWindow = 50,
});
var report = trainer.Train();

// Did it find what is there?
var found = source.Recovery(sae.WDec);
Console.WriteLine($"{report.Steps} steps, explained variance {report.Last!.ExplainedVariance:0.000}, L0 {report.Last.L0:0.0}");
Console.WriteLine($"{found.Found} of {found.TrueFeatures} true features found, mean best cosine {found.MeanMaxCosine:0.000}");
