using System.Text.Json;
using System.Text.Json.Nodes;

namespace IlgpuSae.Evaluation;

/// <summary>Features as detectors, each of the true feature nearest to its decoder row: means over all features.</summary>
/// <param name="Precision">Of the rows a feature fires on, the share that hold its true feature; 0 if it never fires.</param>
/// <param name="Recall">Of the rows that hold its true feature, the share it fires on; 0 if there are none.</param>
/// <param name="F1Score">Mean of each feature's harmonic mean of precision and recall.</param>
/// <param name="Accuracy">Share of rows on which a feature fires exactly if its true feature is there.</param>
public sealed record LatentClassification(double Precision, double Recall, double F1Score, double Accuracy);

/// <summary>
/// How well an SAE has found features that are known. Definitions and names are those of SAELens' synthetic evaluation;
/// <see cref="Mmcs"/> is added. Similarity is the absolute cosine of a decoder row with a true direction.
/// </summary>
public sealed record GroundTruthResult
{
    private static readonly JsonSerializerOptions Json = new() { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };

    /// <summary>Rows behind the numbers.</summary>
    public required long Rows { get; init; }

    /// <summary>Mean number of true features in a row.</summary>
    public required double TrueL0 { get; init; }

    /// <summary>Mean number of the SAE's features that fire on a row.</summary>
    public required double SaeL0 { get; init; }

    /// <summary>The SAE's features that never fired on these rows.</summary>
    public required int DeadLatents { get; init; }

    /// <summary>Mean ratio of the reconstruction's norm to the row's: below 1, reconstructions are too short.</summary>
    public required double Shrinkage { get; init; }

    /// <summary>1 - sum of squared errors / sum of squared distances from the mean.</summary>
    public required double ExplainedVariance { get; init; }

    /// <summary>
    /// Mean correlation coefficient: decoder rows and true directions are matched one to one so that the similarities'
    /// sum is largest; their mean over the min(d_sae, n_true) pairs.
    /// </summary>
    public required double Mcc { get; init; }

    /// <summary>Mean over true directions of the similarity to the nearest decoder row. Duplicates cost nothing.</summary>
    public required double Mmcs { get; init; }

    /// <summary>Number of different true directions that are nearest to some decoder row, divided by d_sae.</summary>
    public required double Uniqueness { get; init; }

    /// <summary>Features as detectors of their true features.</summary>
    public required LatentClassification Classification { get; init; }

    /// <summary>One JSON object, names in snake_case.</summary>
    public JsonObject ToJson() => JsonSerializer.SerializeToNode(this, Json)!.AsObject();
}
