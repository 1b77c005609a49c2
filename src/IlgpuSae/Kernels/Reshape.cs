using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// The same memory under another shape, with its derivative: what <see cref="Tensor.Reshape"/> is when a gradient must
/// pass through. O(1).
/// </summary>
[Kernel]
public static class Reshape
{
    /// <summary>A view of <paramref name="x"/> under another shape.</summary>
    /// <param name="scope">Owns the view.</param>
    /// <param name="x">Any shape.</param>
    /// <param name="shape">A shape of the same count.</param>
    /// <returns>A tensor of <paramref name="shape"/> that shares <paramref name="x"/>'s memory.</returns>
    /// <exception cref="ShapeException">The counts differ.</exception>
    public static Tensor As(TensorScope scope, Tensor x, Shape shape)
    {
        var y = scope.Own(x.Reshape(shape));
        var original = x.Shape;
        scope.Recorder?.Record(y, [x], dy => [scope.Own(dy.Reshape(original))]);
        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        yield return new KernelCase("[2, 6] as [3, 4]", [new([2, 6], Differentiable: true)],
            (scope, t) => [As(scope, t[0], [3, 4])], x => [x[0]]);
    }
}
