using System.Globalization;
using IlgpuSae.Evaluation;

namespace IlgpuSae.Cli;

/// <summary>How well features agree with the true ones, as text.</summary>
internal static class GroundTruthReport
{
    public static void Write(Session session, GroundTruthResult truth, int features)
    {
        var c = CultureInfo.InvariantCulture;
        new Report(session.Output)
            .Section(string.Create(c, $"against the true features, {truth.Rows} rows"))
            .Add("F1", truth.Classification.F1Score, "of features as detectors of the true feature nearest to them, mean over features")
            .Add("precision", truth.Classification.Precision)
            .Add("recall", truth.Classification.Recall)
            .Add("MCC", truth.Mcc, "mean |cosine|, decoder rows and true directions matched one to one")
            .Add("MMCS", truth.Mmcs, "mean |cosine| of true directions with the nearest decoder row")
            .Add("uniqueness", truth.Uniqueness, "different true features that are nearest to some feature, of all features")
            .Add("L0", truth.SaeL0, string.Create(c, $"of {Report.Number(truth.TrueL0)} true features a row"))
            .Add("shrinkage", truth.Shrinkage, "norm of the reconstruction over the row's")
            .Add("never active", string.Create(c, $"{truth.DeadLatents} of {features}"), "features, on these rows")
            .Write();
    }
}
