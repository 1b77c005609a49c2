using System.Runtime.Intrinsics;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Layer normalisation in TransformerLens' two steps, so that a hook may read or replace the scale between them:
/// scale = sqrt(mean((x - mean x)^2) + eps), then y = (x - mean x) / scale * weight + bias. O(n).
/// </summary>
[Kernel]
public static partial class LayerNorm
{
    /// <summary>scale = sqrt(mean((x - mean x)^2) + eps) of each row.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [..., d], d at least 1.</param>
    /// <param name="eps">Added to the variance.</param>
    /// <returns>F32 [..., 1].</returns>
    /// <exception cref="ShapeException"><paramref name="x"/> has no axis or empty rows.</exception>
    public static Tensor Scale(TensorScope scope, Tensor x, float eps)
    {
        CheckRows("layer norm", x);
        var scale = scope.New(x.Shape.WithLast(1));
        if (scope.Device is CpuDevice cpu) CpuScale(cpu, x, scale, eps, true);
        else GpuScale((GpuDevice)scope.Device, x, scale, eps, true);
        scope.Recorder?.Record(scale, [x], ds => [ScaleGradient(scope, x, scale, ds, true)]);
        return scale;
    }

    /// <summary>y = (x - mean x) / scale * weight + bias.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [..., d].</param>
    /// <param name="scale">F32 [..., 1], from <see cref="Scale"/> or replaced; an input of its own for the gradient.</param>
    /// <param name="weight">F32 [d]; null: ones.</param>
    /// <param name="bias">F32 [d]; null: zeros.</param>
    /// <returns>F32, x's shape.</returns>
    /// <exception cref="ShapeException">The shapes do not fit.</exception>
    public static Tensor FromScale(TensorScope scope, Tensor x, Tensor scale, Tensor? weight = null, Tensor? bias = null)
    {
        CheckRows("layer norm", x);
        CheckScale("layer norm", x, scale);
        if (weight is not null && weight.Shape != [x.Shape.Last]) throw new ShapeException($"layer norm: weight {weight.Shape} for rows of {x.Shape}");
        if (bias is not null && bias.Shape != [x.Shape.Last]) throw new ShapeException($"layer norm: bias {bias.Shape} for rows of {x.Shape}");
        var y = scope.New(x.Shape);
        if (scope.Device is CpuDevice cpu) Cpu(cpu, x, scale, weight, bias, y);
        else Gpu((GpuDevice)scope.Device, x, scale, weight, bias, y);
        if (scope.Recorder is { } recorder)
        {
            // One list of inputs without the absent ones; gradients in the same order.
            List<Tensor> inputs = [x, scale];
            if (weight is not null) inputs.Add(weight);
            if (bias is not null) inputs.Add(bias);
            bool needX = recorder.Tracks(x), needScale = recorder.Tracks(scale);
            bool needWeight = weight is not null && recorder.Tracks(weight), needBias = bias is not null && recorder.Tracks(bias);
            recorder.Record(y, [.. inputs], dy =>
            {
                var (dx, ds) = needX || needScale ? Backward(scope, x, scale, weight, dy) : default;
                List<Tensor?> gradients = [needX ? dx : null, needScale ? ds : null];
                if (weight is not null) gradients.Add(needWeight ? SumRows.Of(scope, dy, weight.Shape, FromScale(scope, x, scale)) : null);
                if (bias is not null) gradients.Add(needBias ? SumRows.Of(scope, dy, bias.Shape) : null);
                return [.. gradients];
            });
        }

        return y;
    }

    internal static double[] ReferenceScale(double[] x, int d, double eps)
    {
        var s = new double[x.Length / d];
        for (var r = 0; r < s.Length; r++)
        {
            var row = x.AsSpan(r * d, d);
            double mean = 0, square = 0;
            foreach (var v in row) mean += v / d;
            foreach (var v in row) square += (v - mean) * (v - mean) / d;
            s[r] = Math.Sqrt(square + eps);
        }

        return s;
    }

    internal static double[] Reference(double[] x, double[] scale, double[]? weight, double[]? bias, int d)
    {
        var y = new double[x.Length];
        for (var r = 0; r < scale.Length; r++)
        {
            double mean = 0;
            for (var i = 0; i < d; i++) mean += x[(r * d) + i] / d;
            for (var i = 0; i < d; i++) y[(r * d) + i] = ((x[(r * d) + i] - mean) / scale[r] * (weight?[i] ?? 1)) + (bias?[i] ?? 0);
        }

        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        const float Eps = 1e-5f;
        foreach (var shape in new Shape[] { [0, 3], [1, 1], [3, 5], [2, 3, 17], [2, 40], [5, 3000] })
        {
            var d = shape.Last;
            var small = shape.Count < 1000;
            var one = shape.WithLast(1);
            yield return new KernelCase($"scale {shape}", [new(shape, Differentiable: small && d > 1)],
                (scope, t) => [Scale(scope, t[0], Eps)], x => [ReferenceScale(x[0], d, Eps)])
            { OnIlgpuCpu = small };
            yield return new KernelCase($"from scale {shape}", [new(shape, Differentiable: small), new(one, Fill.Positive, small)],
                (scope, t) => [FromScale(scope, t[0], t[1])], x => [Reference(x[0], x[1], null, null, d)])
            { OnIlgpuCpu = small, Tolerance = 4e-6 };
            yield return new KernelCase($"from scale, weight, bias {shape}",
                [new(shape, Differentiable: small), new(one, Fill.Positive, small), new([d], Differentiable: small), new([d], Differentiable: small)],
                (scope, t) => [FromScale(scope, t[0], t[1], t[2], t[3])], x => [Reference(x[0], x[1], x[2], x[3], d)])
            { OnIlgpuCpu = small, Tolerance = 4e-6 };
            yield return new KernelCase($"both steps {shape}", [new(shape, Differentiable: small && d > 1), new([d], Differentiable: small)],
                (scope, t) => [FromScale(scope, t[0], Scale(scope, t[0], Eps), t[1])],
                x => [Reference(x[0], ReferenceScale(x[0], d, Eps), x[1], null, d)])
            { OnIlgpuCpu = small, Tolerance = 4e-6 };
        }
    }

    internal static void CheckRows(string what, Tensor x)
    {
        if (x.Shape.Rank == 0 || x.Shape.Last == 0) throw new ShapeException($"{what}: {x.Shape} has no rows to normalise");
    }

    internal static void CheckScale(string what, Tensor x, Tensor scale)
    {
        if (scale.Shape != x.Shape.WithLast(1)) throw new ShapeException($"{what}: scale is {scale.Shape}, x is {x.Shape}");
    }

    /// <summary>d(scale)/dx = (x - mean) / (d scale); without centring x / (d scale).</summary>
    internal static Tensor ScaleGradient(TensorScope scope, Tensor x, Tensor scale, Tensor ds, bool centre)
    {
        var dx = scope.New(x.Shape);
        if (scope.Device is CpuDevice cpu) CpuScaleGradient(cpu, x, scale, ds, dx, centre);
        else GpuScaleGradient((GpuDevice)scope.Device, x, scale, ds, dx, centre);
        return dx;
    }

    /// <summary>With g = dy weight: dx = (g - mean g) / scale, dscale = -sum(g (x - mean x)) / scale^2.</summary>
    private static (Tensor Dx, Tensor Ds) Backward(TensorScope scope, Tensor x, Tensor scale, Tensor? weight, Tensor dy)
    {
        var g = weight is null ? dy : MultiplyRow.Forward(scope, dy, weight);
        var dx = scope.New(x.Shape);
        var ds = scope.New(scale.Shape);
        if (scope.Device is CpuDevice cpu) CpuBackward(cpu, x, scale, g, dx, ds, true);
        else GpuBackward((GpuDevice)scope.Device, x, scale, g, dx, ds, true);
        return (dx, ds);
    }

    internal static unsafe void CpuScale(CpuDevice device, Tensor x, Tensor scale, float eps, bool centre)
    {
        float* px = x.F32, ps = scale.F32;
        var d = (long)x.Shape.Last;
        Lanes.ForRows(device, x.Shape.Rows, d, r =>
        {
            var a = px + (r * d);
            var mean = centre ? (float)(Lanes.Sum(a, d) / d) : 0;
            ps[r] = (float)Math.Sqrt((SumOfSquares(a, d, mean) / d) + eps);
        });
    }

    internal static unsafe void CpuScaleGradient(CpuDevice device, Tensor x, Tensor scale, Tensor ds, Tensor dx, bool centre)
    {
        float* px = x.F32, ps = scale.F32, pd = ds.F32, po = dx.F32;
        var d = (long)x.Shape.Last;
        Lanes.ForRows(device, x.Shape.Rows, d, r =>
        {
            float* a = px + (r * d), o = po + (r * d);
            var mean = Vector256.Create(centre ? (float)(Lanes.Sum(a, d) / d) : 0);
            var factor = Vector256.Create(pd[r] / (d * ps[r]));
            for (long i = 0; i < d; i += 8) Lanes.Store((Lanes.Load(a + i, d - i) - mean) * factor, o + i, d - i);
        });
    }

    internal static unsafe void CpuBackward(CpuDevice device, Tensor x, Tensor scale, Tensor g, Tensor dx, Tensor ds, bool centre)
    {
        float* px = x.F32, ps = scale.F32, pg = g.F32, po = dx.F32, pds = ds.F32;
        var d = (long)x.Shape.Last;
        Lanes.ForRows(device, x.Shape.Rows, d, r =>
        {
            float* a = px + (r * d), b = pg + (r * d), o = po + (r * d);
            var sumG = centre ? Lanes.Sum(b, d) : 0;
            var dot = Lanes.Dot(a, b, d);
            if (centre) dot -= sumG * (Lanes.Sum(a, d) / d);
            pds[r] = (float)(-dot / ((double)ps[r] * ps[r]));
            var mean = Vector256.Create((float)(sumG / d));
            var inverse = Vector256.Create(1 / ps[r]);
            for (long i = 0; i < d; i += 8) Lanes.Store((Lanes.Load(b + i, d - i) - mean) * inverse, o + i, d - i);
        });
    }

    private static unsafe double SumOfSquares(float* x, long n, float mean)
    {
        var m = Vector256.Create(mean);
        double total = 0;
        for (long start = 0; start < n; start += Lanes.Block)
        {
            var end = Math.Min(n, start + Lanes.Block);
            var a = Vector256<float>.Zero;
            var b = Vector256<float>.Zero;
            var i = start;
            for (; i + 16 <= end; i += 16)
            {
                Vector256<float> u = Vector256.Load(x + i) - m, v = Vector256.Load(x + i + 8) - m;
                a = Vector256.MultiplyAddEstimate(u, u, a);
                b = Vector256.MultiplyAddEstimate(v, v, b);
            }

            total += Lanes.Sum(a, b);
            for (; i < end; i++) total += (double)(x[i] - mean) * (x[i] - mean);
        }

        return total;
    }

    private static unsafe void Cpu(CpuDevice device, Tensor x, Tensor scale, Tensor? weight, Tensor? bias, Tensor y)
    {
        float* px = x.F32, ps = scale.F32, py = y.F32, pw = weight is null ? null : weight.F32, pb = bias is null ? null : bias.F32;
        var d = (long)x.Shape.Last;
        Lanes.ForRows(device, x.Shape.Rows, d, r =>
        {
            float* a = px + (r * d), o = py + (r * d);
            var mean = Vector256.Create((float)(Lanes.Sum(a, d) / d));
            var s = Vector256.Create(ps[r]);
            for (long i = 0; i < d; i += 8)
            {
                // Divided, not multiplied by the inverse: as TransformerLens.
                var v = (Lanes.Load(a + i, d - i) - mean) / s;
                if (pw != null) v *= Lanes.Load(pw + i, d - i);
                if (pb != null) v += Lanes.Load(pb + i, d - i);
                Lanes.Store(v, o + i, d - i);
            }
        });
    }
}
