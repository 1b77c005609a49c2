using BenchmarkDotNet.Attributes;
using IlgpuSae.Autograd;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Benchmarks;

/// <summary>
/// A whole training step (encode, decode, losses, gradients, clipping, Adam) beside the encoder's product alone, which
/// is the part that no sparsity takes away.
/// </summary>
public class SparseStepBenchmarks
{
    private SparseWorkload? _work;
    private Tensor[] _m = [];
    private Tensor[] _v = [];
    private long _step;

    [Params(6144, 24576)]
    public int DSae { get; set; }

    [GlobalSetup]
    public void Setup()
    {
        _work = new SparseWorkload(4096, 768, DSae, 1);
        _m = [.. _work.Parameters.Select(p => _work.Scope.Zeros(p.Shape))];
        _v = [.. _work.Parameters.Select(p => _work.Scope.Zeros(p.Shape))];
    }

    [GlobalCleanup]
    public void Cleanup() => _work!.Dispose();

    [Benchmark(Baseline = true)]
    public void EncoderProduct()
    {
        using var scope = new TensorScope(_work!.Device);
        Gemm.Multiply(scope, _work.X, _work.WEnc, _work.BEnc, transposeB: true);
    }

    [Benchmark]
    public void TopK32()
    {
        using var scope = new TensorScope(_work!.Device);
        using var tape = Watch(scope);
        var f = EncodeSelect.TopK(scope, _work.X, _work.WEnc, _work.BEnc, 32, center: _work.BDec);
        Finish(scope, tape, SquaredError.MeanOfRowSums(scope, SparseDecode.Forward(scope, f, _work.WDec, _work.BDec), _work.X));
    }

    /// <summary>About 60 of 24576 features fire (15 of 6144).</summary>
    [Benchmark]
    public void ReluL1()
    {
        using var scope = new TensorScope(_work!.Device);
        var bias = scope.From<float>([.. Enumerable.Repeat(-2.8f, DSae)], [DSae]);
        using var tape = Watch(scope);
        tape.Watch(bias);
        var f = EncodeSelect.Relu(scope, _work.X, _work.WEnc, bias, _work.BDec);
        var error = SquaredError.MeanOfRowSums(scope, SparseDecode.Forward(scope, f, _work.WDec, _work.BDec), _work.X);
        Finish(scope, tape, Add.Sum(scope, error, SparsePenalty.Lp(scope, f, RowNorm.L2(scope, _work.WDec), 1)));
    }

    private Tape Watch(TensorScope scope)
    {
        var tape = new Tape(scope);
        foreach (var p in _work!.Parameters) tape.Watch(p);
        return tape;
    }

    /// <summary>Everything after the loss; with a learning rate of 0, so that every repeat does the same work.</summary>
    private void Finish(TensorScope scope, Tape tape, Tensor loss)
    {
        tape.Backward(loss);
        var parameters = _work!.Parameters;
        Tensor[] gradients = [.. parameters.Select(tape.Gradient)];
        var clip = Math.Min(1, 1 / (GradientNorm.L2(scope, gradients) + 1e-6f));
        _step++;
        for (var i = 0; i < parameters.Length; i++)
            AdamStep.Update(_work.Device, parameters[i], gradients[i], _m[i], _v[i], 0, 0.9, 0.999, 1e-8, _step, clip);
    }
}
