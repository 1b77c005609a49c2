using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Evaluation;

/// <summary>Judges an SAE on rows alone, without a model: reconstruction, sparsity, features.</summary>
public static class RowsEvaluator
{
    /// <summary>Measures on rows of a source.</summary>
    /// <param name="sae">The SAE.</param>
    /// <param name="source">Where rows come from, with targets for a transcoder; each counts as a prompt of its own.</param>
    /// <param name="rows">How many.</param>
    /// <param name="batchRows">Rows at once.</param>
    /// <param name="denseAbove">Share of rows above which a feature counts as dense.</param>
    /// <exception cref="InvalidInputException">The source has no rows, or they do not fit the SAE.</exception>
    public static EvaluationResult Run(Sae sae, IActivationSource source, long rows, int batchRows = 4096, double denseAbove = 0.1)
    {
        if (sae.Config.ReadsContext) throw new InvalidInputException($"eval: architecture {sae.Config.Architecture} reads whole contexts, not rows; judge it on a model and a corpus");
        var reconstruction = new ReconstructionStatistics(sae.Config.OutputWidth);
        var features = new FeatureStatistics(sae.Config.DSae);
        for (long done = 0; done < rows;)
        {
            using var scope = new TensorScope(sae.Device);
            if (source.Next(scope, (int)Math.Min(batchRows, rows - done)) is not { } given) break;
            var (x, target) = sae.Split(scope, given);
            var f = sae.Encode(scope, x, out var frame);
            var y = sae.Decode(scope, f, frame);
            var prompts = new int[x.Shape[0]];
            for (var r = 0; r < prompts.Length; r++) prompts[r] = (int)(done + r);
            features.Add(f.RowOffsets.ToArray<int>(), f.Indices.ToArray<int>(), f.Values.ToArray<float>(), prompts);
            reconstruction.Add(target.ToArray<float>(), y.ToArray<float>());
            done += x.Shape[0];
        }

        if (reconstruction.Rows == 0) throw new InvalidInputException("eval: there are no activations to judge on");
        var (quality, shrinkage) = reconstruction.Results();
        return new EvaluationResult
        {
            ReconstructionQuality = quality,
            Shrinkage = shrinkage,
            Sparsity = features.Results(denseAbove),
            TokenStats = new TokenStats { TotalTokensEvalSparsityVariance = reconstruction.Rows, KeptTokens = reconstruction.Rows },
            FeatureMetrics = FeatureMetricsOf.Sae(sae, features.Density(), features.ConsistentActivation()),
        };
    }
}
