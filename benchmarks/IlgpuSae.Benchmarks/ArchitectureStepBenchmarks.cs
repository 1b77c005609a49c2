using BenchmarkDotNet.Attributes;
using IlgpuSae.Autograd;
using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Benchmarks;

/// <summary>
/// A whole training step of each architecture (forward, losses, gradients, clipping, Adam with a learning rate of 0) at an
/// L0 of about 32 of 6144 or 24576 features; TopK's is what the others are compared with. No feature is dead.
/// </summary>
public class ArchitectureStepBenchmarks
{
    private readonly Dictionary<string, (TrainingSae Sae, Adam Optimizer)> _saes = new(StringComparer.Ordinal);
    private SparseWorkload? _work;

    [Params(6144, 24576)]
    public int DSae { get; set; }

    [Params("topk", "standard", "p_anneal", "gated", "jumprelu", "batchtopk", "matryoshka_batchtopk", "abstopk")]
    public string Architecture { get; set; } = "topk";

    [GlobalSetup]
    public void Setup()
    {
        _work = new SparseWorkload(4096, 768, DSae, 1);
        _saes[Architecture] = Make(_work, Architecture);
    }

    [GlobalCleanup]
    public void Cleanup()
    {
        foreach (var (sae, optimizer) in _saes.Values)
        {
            optimizer.Dispose();
            sae.Dispose();
        }

        _saes.Clear();
        _work!.Dispose();
    }

    [Benchmark]
    public void Step()
    {
        var (sae, optimizer) = _saes[Architecture];
        Step(_work!, sae, optimizer);
    }

    /// <summary>An SAE whose pre-activations are standard normal, cut so that 32 features a row fire.</summary>
    internal static (TrainingSae Sae, Adam Optimizer) Make(SparseWorkload work, string architecture)
    {
        int dIn = work.X.Shape[1], dSae = work.WEnc.Shape[0];
        // Where a standard normal is exceeded by 32 in d_sae.
        var cut = dSae > 10000 ? 3.008f : 2.561f;
        TrainingSaeConfig config = architecture switch
        {
            "topk" => new TopKTrainingConfig { K = 32 },
            "abstopk" => new AbsTopKTrainingConfig { K = 32 },
            "batchtopk" => new BatchTopKTrainingConfig { K = 32 },
            "matryoshka_batchtopk" => new MatryoshkaBatchTopKTrainingConfig { K = 32, MatryoshkaWidths = new(dSae / 16, dSae / 4, dSae) },
            "jumprelu" => new JumpReLUTrainingConfig { JumpreluInitThreshold = cut, JumpreluBandwidth = 0.1, L0Coefficient = 0.01 },
            "gated" => new GatedTrainingConfig { L1Coefficient = 0.01 },
            "p_anneal" => new PAnnealTrainingConfig { L1Coefficient = 0.01, PStart = 0.6, AnnealStart = 0, AnnealEnd = 1_000_000 },
            _ => new StandardTrainingConfig { L1Coefficient = 0.01 },
        };
        var sae = SaeRegistry.Default.CreateForTraining(config with { DIn = dIn, DSae = dSae, DecoderInitNorm = null }, work.Device);
        sae.WEnc.CopyFrom(work.WEnc);
        sae.WDec.CopyFrom(work.WDec);
        var low = new float[dSae];
        Array.Fill(low, -cut);
        if (architecture is "standard" or "p_anneal") sae.Parameters["b_enc"].CopyFrom<float>(low);
        if (architecture == "gated")
        {
            sae.Parameters["b_gate"].CopyFrom<float>(low);
            sae.Parameters["b_mag"].CopyFrom<float>([.. low.Select(v => v / 2)]);
        }

        return (sae, new Adam(sae.Parameters, 0.9, 0.999, 1e-8));
    }

    /// <summary>What the trainer does in a step; a learning rate of 0 keeps every repeat the same.</summary>
    internal static double Step(SparseWorkload work, TrainingSae sae, Adam optimizer)
    {
        using var scope = new TensorScope(work.Device);
        using var tape = new Tape(scope);
        foreach (var p in sae.Parameters.Values) tape.Watch(p);
        var step = new TrainingStep(0, sae.Coefficients.ToDictionary(c => c.Key, c => c.Value.Final), default);
        var pass = sae.Forward(scope, work.X, step);
        tape.Backward(pass.Total);
        Tensor[] gradients = [.. sae.Parameters.Values.Select(tape.Gradient)];
        var clip = Math.Min(1, 1 / (GradientNorm.L2(scope, gradients) + 1e-6f));
        optimizer.Step(gradients, 0, clip);
        sae.AfterStep(scope, pass);
        return pass.Features.EntryCount / (double)pass.Features.Rows;
    }
}
