using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>The ILGPU side: one group a row. <see cref="RmsNorm"/> shares it, without centring.</summary>
public static partial class LayerNorm
{
    internal static void GpuScale(GpuDevice device, Tensor x, Tensor scale, float eps, bool centre)
    {
        if (x.Count == 0) return;
        device.Launch(GpuScaleKernel, Config(device, x), x.View<float>(), scale.View<float>(), x.Shape.Rows, x.Shape.Last, eps, centre ? 1 : 0);
    }

    internal static void GpuScaleGradient(GpuDevice device, Tensor x, Tensor scale, Tensor ds, Tensor dx, bool centre)
    {
        if (x.Count == 0) return;
        device.Launch(GpuScaleGradientKernel, Config(device, x), x.View<float>(), scale.View<float>(), ds.View<float>(), dx.View<float>(),
            x.Shape.Rows, x.Shape.Last, centre ? 1 : 0);
    }

    internal static void GpuBackward(GpuDevice device, Tensor x, Tensor scale, Tensor g, Tensor dx, Tensor ds, bool centre)
    {
        if (x.Count == 0) return;
        device.Launch(GpuBackwardKernel, Config(device, x), x.View<float>(), scale.View<float>(), g.View<float>(), dx.View<float>(), ds.View<float>(),
            x.Shape.Rows, x.Shape.Last, centre ? 1 : 0);
    }

    private static KernelConfig Config(GpuDevice device, Tensor x) =>
        (device.GridFor((long)x.Shape.Rows * device.GroupSize), device.GroupSize);

    private static void Gpu(GpuDevice device, Tensor x, Tensor scale, Tensor? weight, Tensor? bias, Tensor y)
    {
        if (x.Count == 0) return;
        device.Launch(GpuKernel, Config(device, x), x.View<float>(), scale.View<float>(), (weight ?? x).View<float>(), (bias ?? x).View<float>(), y.View<float>(),
            x.Shape.Rows, x.Shape.Last, weight is null ? 0 : 1, bias is null ? 0 : 1);
    }

    /// <summary>Mean of a row; every thread of the group gets it.</summary>
    private static float Mean(ArrayView<float> x, long start, int d, ArrayView<float> scratch)
    {
        var sum = 0f;
        for (var i = Group.IdxX; i < d; i += Group.DimX) sum += x[start + i];
        return GpuMath.GroupSum(sum, scratch) / d;
    }

    [GpuKernel]
    private static void GpuScaleKernel(ArrayView<float> x, ArrayView<float> scale, int rows, int d, float eps, int centre)
    {
        var scratch = SharedMemory.Allocate<float>(256);
        for (var r = Grid.IdxX; r < rows; r += Grid.DimX)
        {
            var start = (long)r * d;
            var mean = 0f;
            if (centre != 0) mean = Mean(x, start, d, scratch);
            var sum = 0f;
            for (var i = Group.IdxX; i < d; i += Group.DimX)
            {
                var v = x[start + i] - mean;
                sum += v * v;
            }

            sum = GpuMath.GroupSum(sum, scratch);
            if (Group.IdxX == 0) scale[r] = MathF.Sqrt((sum / d) + eps);
        }
    }

    [GpuKernel]
    private static void GpuScaleGradientKernel(
        ArrayView<float> x, ArrayView<float> scale, ArrayView<float> ds, ArrayView<float> dx, int rows, int d, int centre)
    {
        var scratch = SharedMemory.Allocate<float>(256);
        for (var r = Grid.IdxX; r < rows; r += Grid.DimX)
        {
            var start = (long)r * d;
            var mean = 0f;
            if (centre != 0) mean = Mean(x, start, d, scratch);
            var factor = ds[r] / (d * scale[r]);
            for (var i = Group.IdxX; i < d; i += Group.DimX) dx[start + i] = (x[start + i] - mean) * factor;
        }
    }

    [GpuKernel]
    private static void GpuBackwardKernel(
        ArrayView<float> x, ArrayView<float> scale, ArrayView<float> g, ArrayView<float> dx, ArrayView<float> ds, int rows, int d, int centre)
    {
        var scratch = SharedMemory.Allocate<float>(256);
        for (var r = Grid.IdxX; r < rows; r += Grid.DimX)
        {
            var start = (long)r * d;
            var mean = 0f;
            var meanG = 0f;
            if (centre != 0)
            {
                mean = Mean(x, start, d, scratch);
                meanG = Mean(g, start, d, scratch);
            }

            var dot = 0f;
            var inverse = 1f / scale[r];
            for (var i = Group.IdxX; i < d; i += Group.DimX)
            {
                dot += g[start + i] * (x[start + i] - mean);
                dx[start + i] = (g[start + i] - meanG) * inverse;
            }

            dot = GpuMath.GroupSum(dot, scratch);
            if (Group.IdxX == 0) ds[r] = -dot * inverse * inverse;
        }
    }

    [GpuKernel]
    private static void GpuKernel(
        ArrayView<float> x, ArrayView<float> scale, ArrayView<float> weight, ArrayView<float> bias, ArrayView<float> y,
        int rows, int d, int hasWeight, int hasBias)
    {
        var scratch = SharedMemory.Allocate<float>(256);
        for (var r = Grid.IdxX; r < rows; r += Grid.DimX)
        {
            var start = (long)r * d;
            var mean = Mean(x, start, d, scratch);
            var s = scale[r];
            for (var i = Group.IdxX; i < d; i += Group.DimX)
            {
                var v = (x[start + i] - mean) / s;
                if (hasWeight != 0) v *= weight[i];
                if (hasBias != 0) v += bias[i];
                y[start + i] = v;
            }
        }
    }
}
