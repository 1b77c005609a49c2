using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Training;

/// <summary>
/// b_dec from data, as SAELens did before version 6. The geometric median is Weiszfeld's: from the mean, at most
/// 100 times, the mean weighted by 1 / max(distance, 1e-6), until the sum of distances changes by no more than 1e-20 of
/// itself. Weiszfeld 1937.
/// </summary>
internal static class BDecInitialization
{
    private const int Iterations = 100;
    private const double LeastDistance = 1e-6;
    private const double Tolerance = 1e-20;

    /// <summary>The start of b_dec.</summary>
    /// <param name="method">How.</param>
    /// <param name="points">F32 [n, d_out], n at least 1, scaled and normalised as they are trained on.</param>
    /// <returns>[d_out].</returns>
    public static float[] Of(BDecInitMethod method, Tensor points) => method switch
    {
        BDecInitMethod.Mean => Mean(points),
        BDecInitMethod.GeometricMedian => GeometricMedian(points),
        _ => new float[points.Shape[1]],
    };

    internal static float[] Mean(Tensor rows) => Weighted(rows, Enumerable.Repeat(1f, rows.Shape[0]).ToArray());

    internal static float[] GeometricMedian(Tensor rows)
    {
        var median = Mean(rows);
        var distances = Distances(rows, median);
        for (var i = 0; i < Iterations; i++)
        {
            var before = distances.Sum(d => (double)d);
            median = Weighted(rows, Array.ConvertAll(distances, d => (float)(1 / Math.Max(d, LeastDistance))));
            distances = Distances(rows, median);
            var after = distances.Sum(d => (double)d);
            if (Math.Abs(before - after) <= Tolerance * after) break;
        }

        return median;
    }

    private static float[] Distances(Tensor rows, float[] from)
    {
        using var scope = new TensorScope(rows.Device);
        return RowNorm.L2(scope, AddRow.Forward(scope, rows, scope.From<float>(from, [from.Length]), -1)).ToArray<float>();
    }

    /// <summary>Sum of the weighted rows over the sum of the weights.</summary>
    private static float[] Weighted(Tensor rows, float[] weights)
    {
        using var scope = new TensorScope(rows.Device);
        var factor = 1 / weights.Sum(w => (double)w);
        var shares = scope.From<float>(Array.ConvertAll(weights, w => (float)(w * factor)), [weights.Length]);
        return SumRows.Of(scope, RowAffine.Apply(scope, rows, shares, null), [rows.Shape[1]]).ToArray<float>();
    }
}
