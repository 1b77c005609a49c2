namespace IlgpuSae.Models;

/// <summary>
/// Singular values and vectors of a product A B^T of two thin factors, in double: A = Q_a R_a and B = Q_b R_b by
/// Gram-Schmidt, then one-sided Jacobi rotations on the small R_a R_b^T. O((m + n) r^2 + r^3) for r columns.
/// </summary>
internal static class LowRankSvd
{
    private const int MaxSweeps = 60;

    /// <summary>Decomposes A B^T.</summary>
    /// <param name="a">Columns of A, r of them.</param>
    /// <param name="b">Columns of B, as many.</param>
    /// <returns>Singular values, descending, and the vectors to each; vectors to a value of 0 may be 0.</returns>
    internal static (double[] Values, double[][] Left, double[][] Right) Of(double[][] a, double[][] b)
    {
        var r = a.Length;
        var (qa, ra) = Orthogonal(a);
        var (qb, rb) = Orthogonal(b);
        // Column j of M = R_a R_b^T; rotations from the right make its columns orthogonal: M V = U S.
        double[][] m = new double[r][], v = new double[r][];
        for (var j = 0; j < r; j++)
        {
            m[j] = new double[r];
            v[j] = new double[r];
            v[j][j] = 1;
            for (var i = 0; i < r; i++)
                for (var k = 0; k < r; k++) m[j][i] += ra[k][i] * rb[k][j];
        }

        for (var sweep = 0; sweep < MaxSweeps && Sweep(m, v); sweep++)
        {
        }

        var values = m.Select(c => Math.Sqrt(Dot(c, c))).ToArray();
        var order = Enumerable.Range(0, r).OrderByDescending(i => values[i]).ToArray();
        double[][] left = new double[r][], right = new double[r][];
        for (var j = 0; j < r; j++)
        {
            var at = order[j];
            var unit = values[at] > 0 ? m[at].Select(x => x / values[at]).ToArray() : m[at];
            left[j] = Combine(qa, unit);
            right[j] = Combine(qb, v[at]);
        }

        return ([.. order.Select(i => values[i])], left, right);
    }

    /// <summary>One round of rotations over all pairs of columns; false when all were orthogonal.</summary>
    private static bool Sweep(double[][] m, double[][] v)
    {
        var turned = false;
        for (var p = 0; p < m.Length; p++)
        {
            for (var q = p + 1; q < m.Length; q++)
            {
                double alpha = Dot(m[p], m[p]), beta = Dot(m[q], m[q]), gamma = Dot(m[p], m[q]);
                if (Math.Abs(gamma) <= 1e-15 * Math.Sqrt(alpha * beta) || gamma == 0) continue;
                turned = true;
                var zeta = (beta - alpha) / (2 * gamma);
                var t = (zeta >= 0 ? 1 : -1) / (Math.Abs(zeta) + Math.Sqrt(1 + (zeta * zeta)));
                var c = 1 / Math.Sqrt(1 + (t * t));
                Rotate(m[p], m[q], c, c * t);
                Rotate(v[p], v[q], c, c * t);
            }
        }

        return turned;
    }

    private static void Rotate(double[] x, double[] y, double c, double s)
    {
        for (var i = 0; i < x.Length; i++) (x[i], y[i]) = ((c * x[i]) - (s * y[i]), (s * x[i]) + (c * y[i]));
    }

    /// <summary>Columns Q and, for each column j of the input, its coefficients R[k][i]: the input's column k is sum_i Q_i R[k][i].</summary>
    private static (double[][] Q, double[][] R) Orthogonal(double[][] columns)
    {
        var r = columns.Length;
        double[][] q = new double[r][], coefficients = new double[r][];
        for (var k = 0; k < r; k++)
        {
            q[k] = (double[])columns[k].Clone();
            coefficients[k] = new double[r];
            var before = Math.Sqrt(Dot(q[k], q[k]));
            // Twice: the second pass takes off what rounding left of the first.
            for (var pass = 0; pass < 2; pass++)
            {
                for (var i = 0; i < k; i++)
                {
                    var share = Dot(q[i], q[k]);
                    coefficients[k][i] += share;
                    for (var n = 0; n < q[k].Length; n++) q[k][n] -= share * q[i][n];
                }
            }

            var length = Math.Sqrt(Dot(q[k], q[k]));
            if (length <= 1e-13 * before)
            {
                // A column of the span of those before it.
                Array.Clear(q[k]);
                continue;
            }

            coefficients[k][k] = length;
            for (var n = 0; n < q[k].Length; n++) q[k][n] /= length;
        }

        return (q, coefficients);
    }

    private static double[] Combine(double[][] columns, double[] weights)
    {
        var y = new double[columns[0].Length];
        for (var k = 0; k < weights.Length; k++)
            for (var n = 0; n < y.Length; n++) y[n] += weights[k] * columns[k][n];
        return y;
    }

    private static double Dot(double[] x, double[] y)
    {
        double sum = 0;
        for (var i = 0; i < x.Length; i++) sum += x[i] * y[i];
        return sum;
    }
}
