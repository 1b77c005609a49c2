namespace IlgpuSae.Activations;

/// <summary>How many known directions a decoder holds. Similarity is the absolute cosine.</summary>
/// <param name="TrueFeatures">Number of known directions.</param>
/// <param name="MeanMaxCosine">Mean over known directions of the similarity to the nearest decoder row.</param>
/// <param name="Found">
/// Known directions matched one to one with a decoder row of similarity at least <see cref="Threshold"/>. Pairs are
/// taken greedily, the most similar first.
/// </param>
/// <param name="Match">The decoder row of each known direction; -1 where none was found.</param>
public sealed record FeatureRecovery(int TrueFeatures, double MeanMaxCosine, int Found, IReadOnlyList<int> Match)
{
    /// <summary>Similarity from which a direction counts as found.</summary>
    public const double Threshold = 0.9;

    /// <summary>Compares directions.</summary>
    /// <param name="known">Unit vectors, row-major [n, width].</param>
    /// <param name="decoder">Any rows, [m, width].</param>
    /// <param name="width">Numbers a row.</param>
    internal static FeatureRecovery Of(ReadOnlySpan<float> known, ReadOnlySpan<float> decoder, int width)
    {
        int n = known.Length / width, m = decoder.Length / width;
        var pairs = new List<(double Cosine, int Known, int Row)>();
        double sum = 0;
        var norms = new double[m];
        for (var r = 0; r < m; r++) norms[r] = Math.Sqrt(Dot(decoder.Slice(r * width, width), decoder.Slice(r * width, width)));
        for (var k = 0; k < n; k++)
        {
            double best = 0;
            for (var r = 0; r < m; r++)
            {
                if (norms[r] == 0) continue;
                var cosine = Math.Abs(Dot(known.Slice(k * width, width), decoder.Slice(r * width, width))) / norms[r];
                best = Math.Max(best, cosine);
                if (cosine >= Threshold) pairs.Add((cosine, k, r));
            }

            sum += best;
        }

        var match = new int[n];
        Array.Fill(match, -1);
        var taken = new HashSet<int>();
        foreach (var (_, k, r) in pairs.OrderByDescending(p => p.Cosine).ThenBy(p => p.Known).ThenBy(p => p.Row))
        {
            if (match[k] >= 0 || !taken.Add(r)) continue;
            match[k] = r;
        }

        return new FeatureRecovery(n, n == 0 ? 0 : sum / n, taken.Count, match);
    }

    private static double Dot(ReadOnlySpan<float> a, ReadOnlySpan<float> b)
    {
        double sum = 0;
        for (var i = 0; i < a.Length; i++) sum += (double)a[i] * b[i];
        return sum;
    }
}
