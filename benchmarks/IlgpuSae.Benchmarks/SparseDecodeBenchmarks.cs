using BenchmarkDotNet.Attributes;
using IlgpuSae.Autograd;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Benchmarks;

/// <summary>Decoding and its gradients, sparse and by way of dense blocks: where they cross decides the fallback's density.</summary>
public class SparseDecodeBenchmarks
{
    private SparseWorkload? _work;

    /// <summary>Active features of 6144 a row.</summary>
    [Params(32, 120, 480, 1228, 2400)]
    public int Active { get; set; }

    [Params(false, true)]
    public bool Dense { get; set; }

    [GlobalSetup]
    public void Setup() => _work = new SparseWorkload(2048, 768, 6144, Active);

    [GlobalCleanup]
    public void Cleanup() => _work!.Dispose();

    [Benchmark]
    public void Forward()
    {
        using var scope = new TensorScope(_work!.Device);
        SparseDecode.Forward(scope, _work.Features, _work.WDec, _work.BDec, Dense ? 0 : 2);
    }

    [Benchmark]
    public void ForwardAndBackward()
    {
        using var scope = new TensorScope(_work!.Device);
        using var tape = new Tape(scope);
        // A fresh pattern, so that ordering it by feature is part of the time.
        var f = new SparseFeatures(_work.Features.Columns, _work.Features.RowOffsets, _work.Features.Indices, _work.Features.Values);
        tape.Watch(f.Values);
        tape.Watch(_work.WDec);
        tape.Backward((SparseDecode.Forward(scope, f, _work.WDec, _work.BDec, Dense ? 0 : 2), _work.X));
    }
}
