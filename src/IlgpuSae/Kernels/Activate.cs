using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// An elementwise nonlinearity, y = f(x), and its derivative dx = dy f'(x) from x. O(n); result and input are different
/// tensors. Errors of f are a few units in the last place of max(|x|, 1).
/// </summary>
[Kernel]
public static partial class Activate
{
    private const int Piece = 1 << 14;
    private const float InvSqrt2 = 0.707106781f;
    private const float InvSqrtTwoPi = 0.398942280f;
    private const float SqrtTwoOverPi = 0.797884561f;
    private const float Cubic = 0.044715f;
    private const float Quick = 1.702f;

    private interface IFunction
    {
        static abstract Vector256<float> Value(Vector256<float> x);

        static abstract Vector256<float> Slope(Vector256<float> x);
    }

    /// <summary>y = f(x).</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32, any shape.</param>
    /// <param name="kind">The function.</param>
    /// <returns>F32, the same shape; <paramref name="x"/> itself for <see cref="ActivationKind.Identity"/>.</returns>
    /// <exception cref="InvalidInputException">Unknown <paramref name="kind"/>.</exception>
    public static Tensor Forward(TensorScope scope, Tensor x, ActivationKind kind)
    {
        if (!Enum.IsDefined(kind)) throw new InvalidInputException($"activation {(int)kind} is not known");
        if (kind == ActivationKind.Identity) return x;
        var y = scope.New(x.Shape);
        if (scope.Device is CpuDevice cpu) Cpu(cpu, x, null, y, kind);
        else Gpu((GpuDevice)scope.Device, x, y, kind);
        scope.Recorder?.Record(y, [x], dy => [Backward(scope, x, dy, kind)]);
        return y;
    }

    internal static double[] Reference(double[] x, ActivationKind kind) => Array.ConvertAll(x, v => kind switch
    {
        ActivationKind.Identity => v,
        ActivationKind.Relu => Math.Max(v, 0),
        ActivationKind.Gelu => v / 2 * (1 + CpuMath.ErfReference(v / Math.Sqrt(2))),
        ActivationKind.GeluNew or ActivationKind.GeluFast => v / 2 * (1 + Math.Tanh(Math.Sqrt(2 / Math.PI) * (v + (0.044715 * v * v * v)))),
        ActivationKind.GeluQuick => v / (1 + Math.Exp(-1.702 * v)),
        ActivationKind.Silu => v / (1 + Math.Exp(-v)),
        ActivationKind.Tanh => Math.Tanh(v),
        ActivationKind.Sigmoid => 1 / (1 + Math.Exp(-v)),
        _ => v <= 0 ? 0 : v * v,
    });

    internal static IEnumerable<KernelCase> Cases()
    {
        foreach (var kind in Enum.GetValues<ActivationKind>())
        {
            if (kind == ActivationKind.Identity) continue;
            foreach (var shape in new Shape[] { [0], [1], [3, 13] })
            {
                yield return new KernelCase($"{kind} {shape}", [new(shape, Differentiable: true)],
                    (scope, t) => [Forward(scope, t[0], kind)], x => [Reference(x[0], kind)]);
            }

            // 0 is left out: ReLU has no derivative there.
            double[] extremes = [-1e4, -200, -90, -20, -6, -4, -0.93, -0.62, -1e-6, 1e-6, 0.1, 0.62, 0.63, 0.93, 1, 4, 6, 20, 90];
            yield return new KernelCase($"{kind}, extremes", [new([19], Fill.Given, Values: extremes)],
                (scope, t) => [Forward(scope, t[0], kind)], x => [Reference(x[0], kind)]);
            yield return new KernelCase($"{kind}, many", [new([40001])],
                (scope, t) => [Forward(scope, t[0], kind)], x => [Reference(x[0], kind)])
            { OnIlgpuCpu = false };
        }
    }

    private static Tensor Backward(TensorScope scope, Tensor x, Tensor dy, ActivationKind kind)
    {
        var dx = scope.New(x.Shape);
        if (scope.Device is CpuDevice cpu) Cpu(cpu, x, dy, dx, kind);
        else GpuBackward((GpuDevice)scope.Device, x, dy, dx, kind);
        return dx;
    }

    /// <summary>f(x), or dy f'(x) where <paramref name="dy"/> is given.</summary>
    private static void Cpu(CpuDevice device, Tensor x, Tensor? dy, Tensor y, ActivationKind kind)
    {
        switch (kind)
        {
            case ActivationKind.Relu: Map<Relu>(device, x, dy, y); break;
            case ActivationKind.Gelu: Map<Gelu>(device, x, dy, y); break;
            case ActivationKind.GeluNew: Map<GeluNew>(device, x, dy, y); break;
            case ActivationKind.GeluFast: Map<GeluFast>(device, x, dy, y); break;
            case ActivationKind.GeluQuick: Map<GeluQuick>(device, x, dy, y); break;
            case ActivationKind.Silu: Map<Silu>(device, x, dy, y); break;
            case ActivationKind.Tanh: Map<Tanh>(device, x, dy, y); break;
            case ActivationKind.Sigmoid: Map<Sigmoid>(device, x, dy, y); break;
            default: Map<ReluSquared>(device, x, dy, y); break;
        }
    }

    private static unsafe void Map<TF>(CpuDevice device, Tensor x, Tensor? dy, Tensor y) where TF : struct, IFunction
    {
        float* px = x.F32, pd = dy is null ? null : dy.F32, py = y.F32;
        device.Pool.ForRange(y.Count, Piece, (from, to) =>
        {
            if (pd == null)
            {
                for (var i = from; i < to; i += 8) Lanes.Store(TF.Value(Lanes.Load(px + i, to - i)), py + i, to - i);
            }
            else
            {
                for (var i = from; i < to; i += 8)
                    Lanes.Store(TF.Slope(Lanes.Load(px + i, to - i)) * Lanes.Load(pd + i, to - i), py + i, to - i);
            }
        });
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<float> C(float value) => Vector256.Create(value);

    /// <summary>d/dx of x/2 (1 + tanh u).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<float> TanhGeluSlope(Vector256<float> x)
    {
        var t = CpuMath.Tanh(C(SqrtTwoOverPi) * (x + (C(Cubic) * x * x * x)));
        var du = C(SqrtTwoOverPi) * (C(1) + (C(3 * Cubic) * x * x));
        // Far out 1 - t^2 is 0 and du large but finite.
        return (C(0.5f) * (C(1) + t)) + (C(0.5f) * x * (C(1) - (t * t)) * du);
    }

    private readonly struct Relu : IFunction
    {
        public static Vector256<float> Value(Vector256<float> x) => Vector256.Max(x, Vector256<float>.Zero);

        public static Vector256<float> Slope(Vector256<float> x) => Vector256.GreaterThan(x, Vector256<float>.Zero) & C(1);
    }

    private readonly struct Gelu : IFunction
    {
        public static Vector256<float> Value(Vector256<float> x) => C(0.5f) * x * (C(1) + CpuMath.Erf(x * C(InvSqrt2)));

        public static Vector256<float> Slope(Vector256<float> x) =>
            (C(0.5f) * (C(1) + CpuMath.Erf(x * C(InvSqrt2)))) + (x * CpuMath.Exp(C(-0.5f) * x * x) * C(InvSqrtTwoPi));
    }

    private readonly struct GeluNew : IFunction
    {
        public static Vector256<float> Value(Vector256<float> x) =>
            C(0.5f) * x * (C(1) + CpuMath.Tanh(C(SqrtTwoOverPi) * (x + (C(Cubic) * x * x * x))));

        public static Vector256<float> Slope(Vector256<float> x) => TanhGeluSlope(x);
    }

    private readonly struct GeluFast : IFunction
    {
        public static Vector256<float> Value(Vector256<float> x) =>
            C(0.5f) * x * (C(1) + CpuMath.Tanh(x * C(0.7978845608f) * (C(1) + (C(Cubic) * x * x))));

        public static Vector256<float> Slope(Vector256<float> x) => TanhGeluSlope(x);
    }

    private readonly struct GeluQuick : IFunction
    {
        public static Vector256<float> Value(Vector256<float> x) => x * CpuMath.Sigmoid(C(Quick) * x);

        public static Vector256<float> Slope(Vector256<float> x)
        {
            var s = CpuMath.Sigmoid(C(Quick) * x);
            return s * (C(1) + (C(Quick) * x * (C(1) - s)));
        }
    }

    private readonly struct Silu : IFunction
    {
        public static Vector256<float> Value(Vector256<float> x) => x * CpuMath.Sigmoid(x);

        public static Vector256<float> Slope(Vector256<float> x)
        {
            var s = CpuMath.Sigmoid(x);
            return s * (C(1) + (x * (C(1) - s)));
        }
    }

    private readonly struct Tanh : IFunction
    {
        public static Vector256<float> Value(Vector256<float> x) => CpuMath.Tanh(x);

        public static Vector256<float> Slope(Vector256<float> x)
        {
            var t = CpuMath.Tanh(x);
            return C(1) - (t * t);
        }
    }

    private readonly struct Sigmoid : IFunction
    {
        public static Vector256<float> Value(Vector256<float> x) => CpuMath.Sigmoid(x);

        public static Vector256<float> Slope(Vector256<float> x)
        {
            var s = CpuMath.Sigmoid(x);
            return s * (C(1) - s);
        }
    }

    private readonly struct ReluSquared : IFunction
    {
        public static Vector256<float> Value(Vector256<float> x)
        {
            var r = Vector256.Max(x, Vector256<float>.Zero);
            return r * r;
        }

        public static Vector256<float> Slope(Vector256<float> x) => C(2) * Vector256.Max(x, Vector256<float>.Zero);
    }
}
