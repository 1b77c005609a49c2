using BenchmarkDotNet.Attributes;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Benchmarks;

/// <summary>What a transformer does to rows between its matrix products, at GPT-2's sizes: 1024 tokens of 768.</summary>
public class RowBenchmarks : IDisposable
{
    private readonly CpuDevice _device = new();
    private readonly Tensor _x;
    private readonly Tensor _hidden;
    private readonly Tensor _scale;
    private readonly Tensor _weight;
    private readonly Tensor _bias;

    public RowBenchmarks()
    {
        _x = Random([1024, 768], 1);
        _hidden = Random([1024, 3072], 2);
        _weight = Random([768], 3);
        _bias = Random([768], 4);
        using var scope = new TensorScope(_device);
        _scale = scope.Keep(LayerNorm.Scale(scope, _x, 1e-5f));
    }

    [GlobalCleanup]
    public void Dispose()
    {
        foreach (var t in new[] { _x, _hidden, _scale, _weight, _bias }) t.Dispose();
        _device.Dispose();
        GC.SuppressFinalize(this);
    }

    [Benchmark(Baseline = true)]
    public void Sum() => Run(s => Add.Sum(s, _x, _x));

    [Benchmark]
    public void NormScale() => Run(s => LayerNorm.Scale(s, _x, 1e-5f));

    [Benchmark]
    public void NormFromScale() => Run(s => LayerNorm.FromScale(s, _x, _scale, _weight, _bias));

    [Benchmark]
    public void GeluErf() => Run(s => Activate.Forward(s, _hidden, ActivationKind.Gelu));

    [Benchmark]
    public void GeluTanh() => Run(s => Activate.Forward(s, _hidden, ActivationKind.GeluNew));

    [Benchmark]
    public void Silu() => Run(s => Activate.Forward(s, _hidden, ActivationKind.Silu));

    [Benchmark]
    public void SoftmaxRows() => Run(s => Softmax.Rows(s, _x));

    [Benchmark]
    public void Normal() => RandomFill.Normal(_x, 1, 1);

    private void Run(Action<TensorScope> body)
    {
        using var scope = new TensorScope(_device);
        body(scope);
    }

    private Tensor Random(Shape shape, ulong stream)
    {
        var t = new Tensor(_device, shape);
        RandomFill.Normal(t, 1, stream);
        return t;
    }
}
