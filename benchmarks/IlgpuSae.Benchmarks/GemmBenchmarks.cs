using BenchmarkDotNet.Attributes;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Benchmarks;

/// <summary><see cref="Gemm.Multiply"/> with weights as rows [n, k]; the memory of the result comes from the pool.</summary>
public class GemmBenchmarks
{
    private CpuDevice? _device;
    private TensorScope? _weights;
    private Tensor? _a;
    private Tensor? _b;
    private Tensor? _bias;

    /// <summary>Rows, inner size, columns.</summary>
    [Params("4096x768x6144", "1024x768x2304", "1024x64x512", "8x768x3072", "1x768x3072", "1x768x50257")]
    public string Shape { get; set; } = "";

    [Params(DType.F32, DType.BF16)]
    public DType Weights { get; set; }

    [GlobalSetup]
    public void Setup()
    {
        var sizes = Array.ConvertAll(Shape.Split('x'), int.Parse);
        var (m, k, n) = (sizes[0], sizes[1], sizes[2]);
        _device = new CpuDevice();
        _weights = new TensorScope(_device);
        _a = Random([m, k], 1);
        _bias = Random([n], 3);
        _b = Random([n, k], 2);
        if (Weights == DType.F32) return;
        var half = _weights.New([n, k], DType.BF16);
        Narrow(_b, half);
        _b = half;
    }

    [GlobalCleanup]
    public void Cleanup()
    {
        _weights!.Dispose();
        _device!.Dispose();
    }

    [Benchmark]
    public void Multiply()
    {
        using var scope = new TensorScope(_device!);
        Gemm.Multiply(scope, _a!, _b!, _bias, transposeB: true);
    }

    private static unsafe void Narrow(Tensor source, Tensor target)
    {
        for (long i = 0; i < source.Count; i++)
            ((ushort*)target.HostAddress)[i] = (ushort)(BitConverter.SingleToUInt32Bits(source.F32[i]) >> 16);
    }

    private Tensor Random(Shape shape, int seed)
    {
        var random = new Random(seed);
        var values = new float[shape.Count];
        for (var i = 0; i < values.Length; i++) values[i] = random.NextSingle() - 0.5f;
        return _weights!.From<float>(values, shape);
    }
}
