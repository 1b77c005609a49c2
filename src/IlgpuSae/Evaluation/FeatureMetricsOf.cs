using IlgpuSae.Saes;

namespace IlgpuSae.Evaluation;

/// <summary>Numbers a feature that follow from the weights alone, joined with those that were counted.</summary>
internal static class FeatureMetricsOf
{
    public static FeatureMetrics Sae(Sae sae, double[] density, double[] consistent)
    {
        float[] enc = sae.WEnc.ToArray<float>(), dec = sae.WDec.ToArray<float>();
        int n = sae.Config.DSae, dIn = sae.Config.DIn, dOut = sae.Config.OutputWidth;
        double[] norm = new double[n], cosine = new double[n];
        for (var j = 0; j < n; j++)
        {
            double ee = 0, dd = 0, ed = 0;
            for (var i = 0; i < dIn; i++) ee += (double)enc[(j * dIn) + i] * enc[(j * dIn) + i];
            for (var i = 0; i < dOut; i++)
            {
                dd += (double)dec[(j * dOut) + i] * dec[(j * dOut) + i];
                if (dIn == dOut) ed += (double)enc[(j * dIn) + i] * dec[(j * dOut) + i];
            }

            norm[j] = Math.Sqrt(ee);
            cosine[j] = ed / (Math.Sqrt(ee) * Math.Sqrt(dd));
        }

        return new FeatureMetrics
        {
            FeatureDensity = density,
            ConsistentActivationHeuristic = consistent,
            EncoderNorm = norm,
            EncoderBias = sae.Parameters.TryGetValue("b_enc", out var bias) ? [.. bias.ToArray<float>().Select(b => (double)b)] : null,
            EncoderDecoderCosineSim = cosine,
        };
    }
}
