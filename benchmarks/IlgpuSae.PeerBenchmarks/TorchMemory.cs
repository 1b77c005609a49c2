using IlgpuSae.Tensors;
using static TorchSharp.torch;
using TorchTensor = TorchSharp.torch.Tensor;

namespace IlgpuSae.PeerBenchmarks;

/// <summary>Moves numbers between TorchSharp's tensors and ours.</summary>
internal static class TorchMemory
{
    /// <summary>A copy in memory of torch, of the same shape.</summary>
    public static TorchTensor Copy(IlgpuSae.Tensors.Tensor source)
    {
        var t = zeros(Array.ConvertAll(source.Shape.Dims.ToArray(), d => (long)d));
        source.CopyTo(Floats(t));
        return t;
    }

    /// <summary>A copy in our memory, of the same shape.</summary>
    public static IlgpuSae.Tensors.Tensor Copy(TensorScope scope, TorchTensor source)
    {
        using var dense = source.detach().contiguous();
        return scope.From<float>(Floats(dense), Shape.Create(Array.ConvertAll(source.shape, d => (int)d)));
    }

    /// <summary>Largest |ours - torch|.</summary>
    public static double Difference(IlgpuSae.Tensors.Tensor ours, TorchTensor theirs)
    {
        using var dense = theirs.detach().contiguous();
        var x = Floats(dense);
        var y = ours.ToArray<float>();
        var largest = 0.0;
        for (var i = 0; i < y.Length; i++) largest = Math.Max(largest, Math.Abs(x[i] - y[i]));
        return largest;
    }

    private static Span<float> Floats(TorchTensor t) => System.Runtime.InteropServices.MemoryMarshal.Cast<byte, float>(t.bytes);
}
