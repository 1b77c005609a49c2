using BenchmarkDotNet.Attributes;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Benchmarks;

/// <summary>Losses and choices over rows of a vocabulary: 128 tokens of GPT-2's 50257 logits.</summary>
public class VocabularyBenchmarks : IDisposable
{
    private const int Tokens = 128;
    private const int Vocabulary = 50257;

    private readonly CpuDevice _device = new();
    private readonly Tensor _p;
    private readonly Tensor _q;
    private readonly Tensor _ids;

    public VocabularyBenchmarks()
    {
        _p = new Tensor(_device, [1, Tokens, Vocabulary]);
        _q = new Tensor(_device, [1, Tokens, Vocabulary]);
        _ids = new Tensor(_device, [1, Tokens], DType.I32);
        RandomFill.Normal(_p, 1, 1);
        RandomFill.Normal(_q, 1, 2);
        _ids.CopyFrom<int>(Philox.Permutation(Tokens, 1, 3));
    }

    [GlobalCleanup]
    public void Dispose()
    {
        foreach (var t in new[] { _p, _q, _ids }) t.Dispose();
        _device.Dispose();
        GC.SuppressFinalize(this);
    }

    [Benchmark]
    public void Loss()
    {
        using var scope = new TensorScope(_device);
        CrossEntropy.PerToken(scope, _p, _ids);
    }

    [Benchmark]
    public void Divergence()
    {
        using var scope = new TensorScope(_device);
        KlDivergence.PerToken(scope, _p, _q);
    }

    [Benchmark]
    public void Greedy()
    {
        using var scope = new TensorScope(_device);
        ArgMax.Rows(scope, _p);
    }
}
