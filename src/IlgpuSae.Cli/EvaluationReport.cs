using System.Globalization;
using IlgpuSae.Evaluation;

namespace IlgpuSae.Cli;

/// <summary>The quality report as text.</summary>
internal static class EvaluationReport
{
    public static void Write(Session session, EvaluationResult result, int features, string on)
    {
        var c = CultureInfo.InvariantCulture;
        var text = new Report(session.Output).Section(string.Create(c, $"quality on {on}, {result.TokenStats!.KeptTokens} tokens"));
        if (result.Sparsity is { } s)
        {
            text.Add("L0", s.L0, "active features a token");
            text.Add("L1", s.L1);
        }

        if (result.ReconstructionQuality is { } q)
        {
            text.Add("explained variance", q.ExplainedVariance);
            text.Add("MSE", q.Mse, "a token, summed over dimensions");
            text.Add("cosine", q.Cossim);
        }

        if (result.Shrinkage is { } l)
        {
            text.Add("L2 ratio", l.L2Ratio, string.Create(c, $"norm {Report.Number(l.L2NormOut)} of {Report.Number(l.L2NormIn)}"));
            text.Add("reconstruction bias", l.RelativeReconstructionBias, "below 1: reconstructions are too short");
        }

        if (result.ModelPerformancePreservation is { } p)
        {
            text.Add("CE loss score", p.CeLossScore, string.Create(c,
                $"CE {Report.Number(p.CeLossWithSae)} with the SAE, {Report.Number(p.CeLossWithoutSae)} clean, {Report.Number(p.CeLossWithAblation)} zero-ablated"));
        }

        if (result.ModelBehaviorPreservation is { } b)
            text.Add("KL score", b.KlDivScore, string.Create(c, $"KL {Report.Number(b.KlDivWithSae)} with the SAE, {Report.Number(b.KlDivWithAblation)} zero-ablated"));
        if (result.Sparsity is { } d)
        {
            text.Add("never active", string.Create(c, $"{d.DeadFeatures} of {features}"), "features, on these tokens");
            text.Add("dense", string.Create(c, $"{d.DenseFeatures} of {features}"), "features active on more than a tenth of them");
        }

        text.Write();
    }
}
