using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// One step of Adam in place, as PyTorch's <c>torch.optim.Adam</c> on a single tensor without weight decay, with
/// g = gradScale * grad and t the number of the step from 1:
/// m += (1 - b1)(g - m); v = b2 v + (1 - b2) g^2; p -= lr/(1 - b1^t) * m / (sqrt(v)/sqrt(1 - b2^t) + eps).
/// Bias corrections are computed in double. A first moment below 1e-30 is set to zero: it could move no weight larger
/// than about 1e-18, and denormal numbers would slow the sweep down by half. One pass over memory, 28 bytes an element.
/// </summary>
[Kernel]
public static class AdamStep
{
    private const int Piece = 1 << 14;
    private const float Negligible = 1e-30f;

    /// <summary>Updates a parameter and its moments.</summary>
    /// <param name="device">Where all four tensors live.</param>
    /// <param name="param">F32, any shape; changed.</param>
    /// <param name="grad">F32, the same shape.</param>
    /// <param name="m">First moment, F32, the same shape, zeros before step 1; changed.</param>
    /// <param name="v">Second moment, F32, the same shape, zeros before step 1; changed.</param>
    /// <param name="lr">Learning rate of this step.</param>
    /// <param name="beta1">Decay of the first moment, 0 &lt;= beta1 &lt; 1.</param>
    /// <param name="beta2">Decay of the second moment, 0 &lt;= beta2 &lt; 1.</param>
    /// <param name="eps">Added to the root, outside it.</param>
    /// <param name="step">Number of this step, from 1.</param>
    /// <param name="gradScale">Factor on the gradient: that of the clipping by norm.</param>
    /// <exception cref="ShapeException">The shapes differ.</exception>
    /// <exception cref="InvalidInputException"><paramref name="step"/> is below 1.</exception>
    public static void Update(
        Device device, Tensor param, Tensor grad, Tensor m, Tensor v,
        double lr, double beta1, double beta2, double eps, long step, float gradScale = 1)
    {
        ArgumentNullException.ThrowIfNull(param);
        if (grad.Shape != param.Shape || m.Shape != param.Shape || v.Shape != param.Shape)
            throw new ShapeException($"adam: parameter {param.Shape}, gradient {grad.Shape}, moments {m.Shape} and {v.Shape} differ");
        if (step < 1) throw new InvalidInputException($"adam: step {step} is below 1");
        var factors = new Factors(lr, beta1, beta2, eps, step, gradScale);
        if (param.Count == 0) return;
        if (device is CpuDevice cpu) Cpu(cpu, param, grad, m, v, factors);
        else Gpu((GpuDevice)device, param, grad, m, v, factors);
    }

    internal static double[][] Reference(
        double[] p, double[] g, double[] m, double[] v, double lr, double beta1, double beta2, double eps, long step, double gradScale)
    {
        double[] p2 = new double[p.Length], m2 = new double[p.Length], v2 = new double[p.Length];
        for (var i = 0; i < p.Length; i++)
        {
            var gi = g[i] * gradScale;
            m2[i] = (beta1 * m[i]) + ((1 - beta1) * gi);
            v2[i] = (beta2 * v[i]) + ((1 - beta2) * gi * gi);
            var denominator = (Math.Sqrt(v2[i]) / Math.Sqrt(1 - Math.Pow(beta2, step))) + eps;
            p2[i] = p[i] - (lr / (1 - Math.Pow(beta1, step)) * m2[i] / denominator);
        }

        return [p2, m2, v2];
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var (shape, beta1, step, scale) in new (Shape, double, long, float)[]
            { ([0], 0.9, 1, 1), ([1], 0.9, 1, 1), ([7, 5], 0.9, 3, 0.25f), ([33], 0, 1000, 1), ([20000], 0.9, 2, 1) })
        {
            yield return new KernelCase($"{shape}, beta1 {beta1}, step {step}", [new(shape), new(shape), new(shape), new(shape, Fill.Positive)],
                (scope, t) =>
                {
                    Update(scope.Device, t[0], t[1], t[2], t[3], 3e-2, beta1, 0.999, 1e-8, step, scale);
                    return [t[0], t[2], t[3]];
                },
                x => Reference(x[0], x[1], x[2], x[3], 3e-2, beta1, 0.999, 1e-8, step, scale))
            { OnIlgpuCpu = shape.Count < 1000 };
        }
    }

    /// <summary>The step's constants as the sweep uses them.</summary>
    private readonly struct Factors(double lr, double beta1, double beta2, double eps, long step, float gradScale)
    {
        public readonly float Scale = gradScale;
        public readonly float Weight1 = (float)(1 - beta1);
        public readonly float Beta2 = (float)beta2;
        public readonly float Weight2 = (float)(1 - beta2);
        public readonly float Root2 = (float)Math.Sqrt(1 - Math.Pow(beta2, step));
        public readonly float Eps = (float)eps;
        public readonly float StepSize = (float)-(lr / (1 - Math.Pow(beta1, step)));
    }

    private static unsafe void Cpu(CpuDevice device, Tensor param, Tensor grad, Tensor m, Tensor v, Factors f)
    {
        float* pp = param.F32, pg = grad.F32, pm = m.F32, pv = v.F32;
        device.Pool.ForRange(param.Count, Piece, (from, to) => Sweep(pp + from, pg + from, pm + from, pv + from, (int)(to - from), f));
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static unsafe void Sweep(float* p, float* g, float* m, float* v, int n, Factors f)
    {
        Vector256<float> scale = Vector256.Create(f.Scale), weight1 = Vector256.Create(f.Weight1), beta2 = Vector256.Create(f.Beta2),
            weight2 = Vector256.Create(f.Weight2), root2 = Vector256.Create(f.Root2), eps = Vector256.Create(f.Eps),
            stepSize = Vector256.Create(f.StepSize), negligible = Vector256.Create(Negligible);
        var i = 0;
        for (; i + 8 <= n; i += 8)
        {
            var gi = Vector256.Load(g + i) * scale;
            var mi = Vector256.Load(m + i);
            mi = Vector256.MultiplyAddEstimate(weight1, gi - mi, mi);
            mi = Vector256.AndNot(mi, Vector256.LessThan(Vector256.Abs(mi), negligible));
            var vi = Vector256.MultiplyAddEstimate(weight2 * gi, gi, Vector256.Load(v + i) * beta2);
            mi.Store(m + i);
            vi.Store(v + i);
            (Vector256.Load(p + i) + (stepSize * mi / ((Vector256.Sqrt(vi) / root2) + eps))).Store(p + i);
        }

        for (; i < n; i++)
        {
            var gi = g[i] * f.Scale;
            var mi = MathF.FusedMultiplyAdd(f.Weight1, gi - m[i], m[i]);
            if (MathF.Abs(mi) < Negligible) mi = 0;
            var vi = MathF.FusedMultiplyAdd(f.Weight2 * gi, gi, v[i] * f.Beta2);
            m[i] = mi;
            v[i] = vi;
            p[i] += f.StepSize * mi / ((MathF.Sqrt(vi) / f.Root2) + f.Eps);
        }
    }

    private static void Gpu(GpuDevice device, Tensor param, Tensor grad, Tensor m, Tensor v, Factors f) =>
        device.Launch(GpuKernel, (device.GridFor(param.Count), device.GroupSize),
            param.View<float>(), grad.View<float>(), m.View<float>(), v.View<float>(),
            f.Scale, f.Weight1, f.Beta2, f.Weight2, f.Root2, f.Eps, f.StepSize);

    [GpuKernel]
    private static void GpuKernel(
        ArrayView<float> p, ArrayView<float> g, ArrayView<float> m, ArrayView<float> v,
        float scale, float weight1, float beta2, float weight2, float root2, float eps, float stepSize)
    {
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < p.Length; i += (long)Grid.DimX * Group.DimX)
        {
            var gi = g[i] * scale;
            var mi = m[i] + (weight1 * (gi - m[i]));
            if (MathF.Abs(mi) < Negligible) mi = 0f;
            var vi = (v[i] * beta2) + (weight2 * gi * gi);
            m[i] = mi;
            v[i] = vi;
            p[i] += stepSize * mi / ((MathF.Sqrt(vi) / root2) + eps);
        }
    }
}
