using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using Xunit;

namespace IlgpuSae.Tests.Saes;

/// <summary>Small weights, and the arithmetic that peers' code does with them, in double.</summary>
internal static class PeerFormulas
{
    public const int D = 6;
    public const int M = 10;
    public const int N = 7;

    /// <summary>Numbers in -scale..scale that differ by salt.</summary>
    public static float[] Values(int count, int salt, double scale = 1)
    {
        var v = new float[count];
        for (var i = 0; i < count; i++) v[i] = (float)(scale * Math.Sin((i * 1.37) + (salt * 2.11) + (0.013 * i * salt)));
        return v;
    }

    /// <summary>x of every test, [N, D].</summary>
    public static float[] X => Values(N * D, 99, 2);

    /// <summary>a [n, k] times b [k, m].</summary>
    public static double[] Times(double[] a, double[] b, int k, int m)
    {
        var n = a.Length / k;
        var y = new double[n * m];
        for (var i = 0; i < n; i++)
            for (var j = 0; j < m; j++)
                for (var l = 0; l < k; l++) y[(i * m) + j] += a[(i * k) + l] * b[(l * m) + j];
        return y;
    }

    public static double[] Transposed(float[] a, int rows, int columns)
    {
        var t = new double[a.Length];
        for (var r = 0; r < rows; r++)
            for (var c = 0; c < columns; c++) t[(c * rows) + r] = a[(r * columns) + c];
        return t;
    }

    public static double[] Wide(float[] a) => Array.ConvertAll(a, v => (double)v);

    /// <summary>Adds a row to every row.</summary>
    public static double[] Plus(double[] a, float[] row, double sign = 1) => [.. a.Select((v, i) => v + (sign * row[i % row.Length]))];

    public static double[] Relu(double[] a) => Array.ConvertAll(a, v => Math.Max(0, v));

    /// <summary>Of each row of m numbers the k largest by a key, the rest 0.</summary>
    public static double[] Largest(double[] a, int m, int k, Func<double, double>? key = null)
    {
        var y = new double[a.Length];
        for (var r = 0; r < a.Length; r += m)
            foreach (var i in Enumerable.Range(r, m).OrderByDescending(i => key is null ? a[i] : key(a[i])).Take(k)) y[i] = a[i];
        return y;
    }

    /// <summary>The SAE gives these features and this reconstruction.</summary>
    public static void Check(Sae sae, double[] features, double[] reconstruction, float[]? input = null)
    {
        using var scope = new TensorScope(sae.Device);
        var x = scope.From<float>(input ?? X, sae.Config.ReshapeActivations == ReshapeActivations.HookZ ? Shape.Create([N, 2, sae.Config.DIn / 2]) : Shape.Create([N, sae.Config.DIn]));
        var f = sae.Encode(scope, x, out var frame);
        Close("features", DenseFeatures.Of(scope, f).ToArray<float>(), features);
        Close("reconstruction", sae.Decode(scope, f, frame).ToArray<float>(), reconstruction);
        Assert.Contains(features, v => v != 0);
        Assert.Contains(features, v => v == 0);
    }

    public static void Close(string what, float[] actual, double[] expected)
    {
        Assert.Equal(expected.Length, actual.Length);
        for (var i = 0; i < actual.Length; i++)
            Assert.True(Math.Abs(actual[i] - expected[i]) <= 2e-5 + (1e-5 * Math.Abs(expected[i])), $"{what}[{i}] is {actual[i]}, expected {expected[i]}");
    }
}
