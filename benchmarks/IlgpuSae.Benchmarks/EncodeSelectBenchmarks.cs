using BenchmarkDotNet.Attributes;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Benchmarks;

/// <summary>The selecting encoder beside the plain product, which stores [n, d_sae]: selection should cost next to nothing.</summary>
public class EncodeSelectBenchmarks
{
    private SparseWorkload? _work;

    [Params(6144, 24576)]
    public int DSae { get; set; }

    /// <summary>Encoder bias: -2.8 leaves about 60 of 24576 features active, 0 half of them.</summary>
    [Params(-2.8f, 0f)]
    public float Bias { get; set; }

    [GlobalSetup]
    public void Setup()
    {
        _work = new SparseWorkload(1024, 768, DSae, 1);
        _work.BEnc.CopyFrom<float>([.. Enumerable.Repeat(Bias, DSae)]);
    }

    [GlobalCleanup]
    public void Cleanup() => _work!.Dispose();

    [Benchmark(Baseline = true)]
    public void Product()
    {
        using var scope = new TensorScope(_work!.Device);
        Gemm.Multiply(scope, _work.X, _work.WEnc, _work.BEnc, transposeB: true);
    }

    [Benchmark]
    public void TopK32()
    {
        using var scope = new TensorScope(_work!.Device);
        EncodeSelect.TopK(scope, _work.X, _work.WEnc, _work.BEnc, 32);
    }

    [Benchmark]
    public void Relu()
    {
        using var scope = new TensorScope(_work!.Device);
        EncodeSelect.Relu(scope, _work.X, _work.WEnc, _work.BEnc);
    }
}
