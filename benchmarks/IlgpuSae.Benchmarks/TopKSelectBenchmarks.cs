using BenchmarkDotNet.Attributes;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Benchmarks;

/// <summary>The k largest of each row of stored pre-activations.</summary>
public class TopKSelectBenchmarks
{
    private SparseWorkload? _work;
    private Tensor? _dense;

    [Params(32, 256)]
    public int K { get; set; }

    [GlobalSetup]
    public void Setup()
    {
        _work = new SparseWorkload(1, 1, 1, 1);
        _dense = _work.Normal([2048, 6144], 1, 1);
    }

    [GlobalCleanup]
    public void Cleanup() => _work!.Dispose();

    [Benchmark]
    public void Rows()
    {
        using var scope = new TensorScope(_work!.Device);
        TopKSelect.Rows(scope, _dense!, K, relu: true);
    }
}
