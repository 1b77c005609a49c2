using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;

namespace IlgpuSae.Evaluation;

/// <summary>How far the model's predictions move: KL divergences in nats, means over kept tokens.</summary>
public sealed record ModelBehaviorPreservation
{
    /// <summary>1 - KL with the SAE / KL with the hook set to zero: 1 is perfect.</summary>
    public double KlDivScore { get; init; }

    /// <summary>KL divergence from the clean model with the hook set to zero.</summary>
    public double KlDivWithAblation { get; init; }

    /// <summary>KL divergence from the clean model with the reconstruction in place of the activations.</summary>
    public double KlDivWithSae { get; init; }
}

/// <summary>How much worse the model predicts the text: cross-entropies in nats, means over kept tokens.</summary>
public sealed record ModelPerformancePreservation
{
    /// <summary>(zero-ablated - with SAE) / (zero-ablated - clean): 1 is perfect, 0 as bad as ablation.</summary>
    public double CeLossScore { get; init; }

    /// <summary>Cross-entropy with the hook set to zero.</summary>
    public double CeLossWithAblation { get; init; }

    /// <summary>Cross-entropy with the reconstruction in place of the activations.</summary>
    public double CeLossWithSae { get; init; }

    /// <summary>Cross-entropy of the clean model.</summary>
    public double CeLossWithoutSae { get; init; }
}

/// <summary>How well activations are reconstructed.</summary>
public sealed record ReconstructionQuality
{
    /// <summary>1 - sum of squared errors / sum of squared distances from the mean, over all kept tokens.</summary>
    public double ExplainedVariance { get; init; }

    /// <summary>Mean over tokens of 1 - squared error / squared distance from the batch's mean (SAELens' older measure).</summary>
    public double ExplainedVarianceLegacy { get; init; }

    /// <summary>Mean over tokens of the squared error, summed over dimensions.</summary>
    public double Mse { get; init; }

    /// <summary>Mean cosine similarity.</summary>
    public double Cossim { get; init; }
}

/// <summary>Whether reconstructions are too short.</summary>
public sealed record Shrinkage
{
    /// <summary>Mean norm of the activations.</summary>
    public double L2NormIn { get; init; }

    /// <summary>Mean norm of the reconstructions.</summary>
    public double L2NormOut { get; init; }

    /// <summary>Mean ratio of the norms.</summary>
    public double L2Ratio { get; init; }

    /// <summary>Mean over batches of mean ||y||^2 / mean (a . y): below 1 where reconstructions are too short.</summary>
    public double RelativeReconstructionBias { get; init; }
}

/// <summary>How many features are active.</summary>
public sealed record Sparsity
{
    /// <summary>Mean number of active features a token.</summary>
    public double L0 { get; init; }

    /// <summary>Mean sum of activations a token.</summary>
    public double L1 { get; init; }

    /// <summary>Features that never fired.</summary>
    public int DeadFeatures { get; init; }

    /// <summary>Features that fired on more than <see cref="EvaluationOptions.DenseAbove"/> of the tokens.</summary>
    public int DenseFeatures { get; init; }
}

/// <summary>What the results rest on.</summary>
public sealed record TokenStats
{
    /// <summary>Tokens run through the model, masked ones included.</summary>
    public long TotalTokensEvalReconstruction { get; init; }

    /// <summary>Tokens whose activations were reconstructed for the statistics, masked ones included.</summary>
    public long TotalTokensEvalSparsityVariance { get; init; }

    /// <summary>Tokens that counted.</summary>
    public long KeptTokens { get; init; }
}

/// <summary>One number for every feature, [d_sae] each.</summary>
public sealed record FeatureMetrics
{
    /// <summary>Share of kept tokens on which the feature fires.</summary>
    public required double[] FeatureDensity { get; init; }

    /// <summary>Firing tokens a prompt with any; NaN for a feature that never fired.</summary>
    public required double[] ConsistentActivationHeuristic { get; init; }

    /// <summary>Norm of the feature's encoder weights.</summary>
    public required double[] EncoderNorm { get; init; }

    /// <summary>The encoder's bias; null where the architecture has none.</summary>
    public double[]? EncoderBias { get; init; }

    /// <summary>Cosine of the feature's encoder and decoder weights.</summary>
    public required double[] EncoderDecoderCosineSim { get; init; }
}

/// <summary>The quality report of an SAE, in SAELens' groups and names. A group that was not asked for is null.</summary>
public sealed record EvaluationResult
{
    private static readonly JsonSerializerOptions Json = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    };

    /// <summary>Divergence of predictions.</summary>
    public ModelBehaviorPreservation? ModelBehaviorPreservation { get; init; }

    /// <summary>Loss of the model.</summary>
    public ModelPerformancePreservation? ModelPerformancePreservation { get; init; }

    /// <summary>Error of the reconstruction.</summary>
    public ReconstructionQuality? ReconstructionQuality { get; init; }

    /// <summary>Length of the reconstruction.</summary>
    public Shrinkage? Shrinkage { get; init; }

    /// <summary>Active features.</summary>
    public Sparsity? Sparsity { get; init; }

    /// <summary>Tokens behind the numbers.</summary>
    public TokenStats? TokenStats { get; init; }

    /// <summary>Numbers a feature.</summary>
    [JsonIgnore]
    public FeatureMetrics? FeatureMetrics { get; init; }

    /// <summary>As JSON: <c>metrics</c> with the groups, and <c>feature_metrics</c>, in SAELens' names. NaN is written as null.</summary>
    public JsonObject ToJson()
    {
        var json = new JsonObject { ["metrics"] = JsonSerializer.SerializeToNode(this, Json) };
        if (FeatureMetrics is not null) json["feature_metrics"] = JsonSerializer.SerializeToNode(FeatureMetrics, Json);
        return (JsonObject)WithoutNaN(json)!;
    }

    /// <summary>JSON has no NaN; every reader understands null.</summary>
    private static JsonNode? WithoutNaN(JsonNode? node) => node switch
    {
        JsonObject o => new JsonObject(o.Select(p => KeyValuePair.Create(p.Key, WithoutNaN(p.Value)))),
        JsonArray a => new JsonArray([.. a.Select(WithoutNaN)]),
        JsonValue v when v.GetValueKind() == JsonValueKind.String && v.ToString() is "NaN" or "Infinity" or "-Infinity" => null,
        null => null,
        _ => node.DeepClone(),
    };
}
