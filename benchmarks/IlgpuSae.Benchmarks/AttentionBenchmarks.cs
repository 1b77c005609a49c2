using BenchmarkDotNet.Attributes;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Benchmarks;

/// <summary>Attention over a whole text and of one token with a cache: fused, and in the steps that hooks need.</summary>
public class AttentionBenchmarks : IDisposable
{
    private readonly CpuDevice _device = new();
    private Tensor? _q;
    private Tensor? _k;
    private Tensor? _v;
    private int _firstQuery;

    /// <summary>Batch, queries, keys, heads, key heads, d_head.</summary>
    [Params("8x128x128x12x12x64", "1x1024x1024x12x12x64", "1x1024x1024x8x2x128", "1x1x1024x12x12x64", "1x1x4096x32x8x64")]
    public string Sizes { get; set; } = "";

    [GlobalSetup]
    public void Setup()
    {
        var s = Array.ConvertAll(Sizes.Split('x'), int.Parse);
        _firstQuery = s[2] - s[1];
        _q = Random([s[0], s[1], s[3], s[5]], 1);
        _k = Random([s[0], s[2], s[4], s[5]], 2);
        _v = Random([s[0], s[2], s[4], s[5]], 3);
    }

    [GlobalCleanup]
    public void Dispose()
    {
        _q?.Dispose();
        _k?.Dispose();
        _v?.Dispose();
        _device.Dispose();
        GC.SuppressFinalize(this);
    }

    [Benchmark(Baseline = true)]
    public void Fused()
    {
        using var scope = new TensorScope(_device);
        Attention.Forward(scope, _q!, _k!, _v!, 0.125f, _firstQuery);
    }

    [Benchmark]
    public void Steps()
    {
        using var scope = new TensorScope(_device);
        Attention.Mix(scope, Softmax.Rows(scope, Attention.Scores(scope, _q!, _k!, 0.125f, _firstQuery)), _v!);
    }

    private Tensor Random(Shape shape, ulong stream)
    {
        var t = new Tensor(_device, shape);
        RandomFill.Normal(t, 1, stream);
        return t;
    }
}
