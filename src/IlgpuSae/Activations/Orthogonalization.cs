using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Activations;

/// <summary>
/// Pushes unit vectors apart: Adam on sum over i != j of (e_i . e_j)^2 + n sum over i of (e_i . e_i - 1)^2, then unit
/// length again. The gradient, 4 (E E^T E - diag(|e_i|^2) E) + 4 n diag(|e_i|^2 - 1) E, is computed as E (E^T E): 4 n d^2
/// operations a step instead of 4 n^2 d. Always on the CPU, so that the vectors are the same for every device.
/// </summary>
internal static class Orthogonalization
{
    private const double Beta1 = 0.9, Beta2 = 0.999, Epsilon = 1e-8;

    /// <summary>Makes the steps in place.</summary>
    /// <param name="vectors">Unit vectors, row-major [n, width].</param>
    /// <param name="width">Numbers a vector.</param>
    /// <param name="steps">Steps.</param>
    /// <param name="lr">Adam's learning rate.</param>
    public static void Run(float[] vectors, int width, int steps, double lr)
    {
        if (steps == 0) return;
        var n = vectors.Length / width;
        float[] mean = new float[vectors.Length], square = new float[vectors.Length];
        using var device = new CpuDevice();
        for (var step = 1; step <= steps; step++)
        {
            using var scope = new TensorScope(device);
            var e = scope.From<float>(vectors, [n, width]);
            var gradient = Gemm.Multiply(scope, e, Gemm.Multiply(scope, e, e, transposeA: true)).ToArray<float>();
            var rate = lr * Math.Sqrt(1 - Math.Pow(Beta2, step)) / (1 - Math.Pow(Beta1, step));
            var epsilon = Epsilon * Math.Sqrt(1 - Math.Pow(Beta2, step));
            device.Pool.ForRange(n, 256, (from, to) =>
            {
                for (var i = (int)from; i < to; i++)
                {
                    var range = i * width;
                    var row = vectors.AsSpan(range, width);
                    double squares = 0;
                    foreach (var v in row) squares += (double)v * v;
                    var own = (n * (squares - 1)) - squares;
                    for (var k = 0; k < width; k++)
                    {
                        var g = 4 * (gradient[range + k] + (own * row[k]));
                        var m = mean[range + k] = (float)((Beta1 * mean[range + k]) + ((1 - Beta1) * g));
                        var s = square[range + k] = (float)((Beta2 * square[range + k]) + ((1 - Beta2) * g * g));
                        row[k] = (float)(row[k] - (rate * m / (Math.Sqrt(s) + epsilon)));
                    }
                }
            });
        }

        for (var i = 0; i < n; i++) Normalize(vectors.AsSpan(i * width, width));
    }

    private static void Normalize(Span<float> row)
    {
        double squares = 0;
        foreach (var v in row) squares += (double)v * v;
        var factor = 1 / Math.Max(Math.Sqrt(squares), 1e-8);
        foreach (ref var v in row) v = (float)(v * factor);
    }
}
