using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Multiplies or divides every activation by a number of its feature: y[e] = v[e] * s[feature of e], or / s. TopK with
/// <c>rescale_acts_by_decoder_norm</c> multiplies before the selection and divides before decoding. O(nnz).
/// </summary>
[Kernel]
public static class SparseScale
{
    private const int Piece = 1 << 14;

    /// <summary>Scales each feature's activations.</summary>
    /// <param name="scope">Owns the new values.</param>
    /// <param name="f">Sparse features [n, d_sae].</param>
    /// <param name="perColumn">F32 [d_sae]; a constant for the gradient.</param>
    /// <param name="divide">Divide instead of multiply.</param>
    /// <returns>The same pattern with scaled values; differentiable in the values.</returns>
    /// <exception cref="ShapeException"><paramref name="perColumn"/> does not have d_sae numbers.</exception>
    public static SparseFeatures Columns(TensorScope scope, SparseFeatures f, Tensor perColumn, bool divide = false)
    {
        ArgumentNullException.ThrowIfNull(f);
        if (perColumn.Count != f.Columns)
            throw new ShapeException($"sparse scale: {perColumn.Shape} factors for {f.Columns} features");
        var y = Apply(scope, f, f.Values, perColumn, divide);
        scope.Recorder?.Record(y, [f.Values], dy => [Apply(scope, f, dy, perColumn, divide)]);
        return f.With(y);
    }

    internal static double[] Reference(double[] indices, double[] values, double[] perColumn, bool divide)
    {
        var y = new double[values.Length];
        for (var e = 0; e < y.Length; e++)
        {
            var s = perColumn[(int)indices[e]];
            y[e] = divide ? values[e] / s : values[e] * s;
        }

        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var divide in new[] { false, true })
        {
            foreach (var p in new[] { SparseCase.Random(3, 4, 0), SparseCase.Random(17, 23, 0.3) })
            {
                yield return new KernelCase($"[{p.Rows}, {p.Columns}], divide {divide}",
                    [p.OffsetsInput, p.IndicesInput, new([p.Count], Differentiable: true), new([p.Columns], Fill.Positive)],
                    (scope, t) => [Columns(scope, p.Of(t[0], t[1], t[2]), t[3], divide).Values],
                    x => [Reference(x[1], x[2], x[3], divide)]);
            }
        }
    }

    private static Tensor Apply(TensorScope scope, SparseFeatures f, Tensor values, Tensor perColumn, bool divide)
    {
        var y = scope.New([f.EntryCount]);
        if (f.EntryCount == 0) return y;
        if (scope.Device is CpuDevice cpu) Cpu(cpu, f, values, perColumn, y, divide);
        else Gpu((GpuDevice)scope.Device, f, values, perColumn, y, divide);
        return y;
    }

    private static unsafe void Cpu(CpuDevice device, SparseFeatures f, Tensor values, Tensor perColumn, Tensor y, bool divide)
    {
        var indices = f.Indices.I32;
        float* v = values.F32, s = perColumn.F32, py = y.F32;
        device.Pool.ForRange(f.EntryCount, Piece, (from, to) =>
        {
            if (divide) for (var e = from; e < to; e++) py[e] = v[e] / s[indices[e]];
            else for (var e = from; e < to; e++) py[e] = v[e] * s[indices[e]];
        });
    }

    private static void Gpu(GpuDevice device, SparseFeatures f, Tensor values, Tensor perColumn, Tensor y, bool divide) =>
        device.Launch(GpuKernel, (device.GridFor(f.EntryCount), device.GroupSize),
            f.Indices.View<int>(), values.View<float>(), perColumn.View<float>(), y.View<float>(), divide ? 1 : 0);

    [GpuKernel]
    private static void GpuKernel(ArrayView<int> indices, ArrayView<float> values, ArrayView<float> perColumn, ArrayView<float> y, int divide)
    {
        for (var e = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; e < y.Length; e += (long)Grid.DimX * Group.DimX)
        {
            var s = perColumn[indices[e]];
            y[e] = divide != 0 ? values[e] / s : values[e] * s;
        }
    }
}
