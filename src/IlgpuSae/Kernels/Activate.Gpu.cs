using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>The ILGPU side.</summary>
public static partial class Activate
{
    private static void Gpu(GpuDevice device, Tensor x, Tensor y, ActivationKind kind)
    {
        if (y.Count == 0) return;
        device.Launch(GpuKernel, (device.GridFor(y.Count), device.GroupSize), x.View<float>(), y.View<float>(), (int)kind);
    }

    private static void GpuBackward(GpuDevice device, Tensor x, Tensor dy, Tensor dx, ActivationKind kind)
    {
        if (dx.Count == 0) return;
        device.Launch(GpuBackwardKernel, (device.GridFor(dx.Count), device.GroupSize), x.View<float>(), dy.View<float>(), dx.View<float>(), (int)kind);
    }

    [GpuKernel]
    private static void GpuKernel(ArrayView<float> x, ArrayView<float> y, int kind)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < y.Length; i += step) y[i] = Value(x[i], kind);
    }

    [GpuKernel]
    private static void GpuBackwardKernel(ArrayView<float> x, ArrayView<float> dy, ArrayView<float> dx, int kind)
    {
        var step = (long)Grid.DimX * Group.DimX;
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < dx.Length; i += step) dx[i] = dy[i] * Slope(x[i], kind);
    }

    /// <summary>f(x) of one number, for kernels that fuse it.</summary>
    internal static float Value(float x, int kind)
    {
        switch (kind)
        {
            case (int)ActivationKind.Relu: return x > 0 ? x : 0f;
            case (int)ActivationKind.Gelu: return 0.5f * x * (1f + GpuMath.Erf(x * InvSqrt2));
            case (int)ActivationKind.GeluNew: return 0.5f * x * (1f + GpuMath.Tanh(SqrtTwoOverPi * (x + (Cubic * x * x * x))));
            case (int)ActivationKind.GeluFast: return 0.5f * x * (1f + GpuMath.Tanh(x * 0.7978845608f * (1f + (Cubic * x * x))));
            case (int)ActivationKind.GeluQuick: return x * GpuMath.Sigmoid(Quick * x);
            case (int)ActivationKind.Silu: return x * GpuMath.Sigmoid(x);
            case (int)ActivationKind.Tanh: return GpuMath.Tanh(x);
            case (int)ActivationKind.Sigmoid: return GpuMath.Sigmoid(x);
            case (int)ActivationKind.ReluSquared: return x > 0 ? x * x : 0f;
            default: return x;
        }
    }

    /// <summary>f'(x) of one number.</summary>
    internal static float Slope(float x, int kind)
    {
        float s;
        switch (kind)
        {
            case (int)ActivationKind.Relu:
                return x > 0 ? 1f : 0f;
            case (int)ActivationKind.Gelu:
                return (0.5f * (1f + GpuMath.Erf(x * InvSqrt2))) + (x * GpuMath.Exp(-0.5f * x * x) * InvSqrtTwoPi);
            case (int)ActivationKind.GeluNew:
            case (int)ActivationKind.GeluFast:
                s = GpuMath.Tanh(SqrtTwoOverPi * (x + (Cubic * x * x * x)));
                return (0.5f * (1f + s)) + (0.5f * x * (1f - (s * s)) * SqrtTwoOverPi * (1f + (3 * Cubic * x * x)));
            case (int)ActivationKind.GeluQuick:
                s = GpuMath.Sigmoid(Quick * x);
                return s * (1f + (Quick * x * (1f - s)));
            case (int)ActivationKind.Silu:
                s = GpuMath.Sigmoid(x);
                return s * (1f + (x * (1f - s)));
            case (int)ActivationKind.Tanh:
                s = GpuMath.Tanh(x);
                return 1f - (s * s);
            case (int)ActivationKind.Sigmoid:
                s = GpuMath.Sigmoid(x);
                return s * (1f - s);
            case (int)ActivationKind.ReluSquared:
                return x > 0 ? 2f * x : 0f;
            default:
                return 1f;
        }
    }
}
