using BenchmarkDotNet.Attributes;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Benchmarks;

/// <summary>Adam and the gradients' norm over one weight matrix: both bound by memory (28 and 4 bytes an element).</summary>
public class AdamStepBenchmarks
{
    private SparseWorkload? _work;
    private Tensor? _m;
    private Tensor? _v;
    private long _step;

    [Params(6144, 24576)]
    public int DSae { get; set; }

    [GlobalSetup]
    public void Setup()
    {
        _work = new SparseWorkload(1, 768, DSae, 1);
        _m = _work.Scope.Zeros(_work.WEnc.Shape);
        _v = _work.Scope.Zeros(_work.WEnc.Shape);
    }

    [GlobalCleanup]
    public void Cleanup() => _work!.Dispose();

    [Benchmark]
    public void Update() => AdamStep.Update(_work!.Device, _work.WEnc, _work.WDec, _m!, _v!, 3e-4, 0.9, 0.999, 1e-8, ++_step, 0.5f);

    [Benchmark]
    public float Norm()
    {
        using var scope = new TensorScope(_work!.Device);
        return GradientNorm.L2(scope, [_work.WDec]);
    }
}
