using System.Text.Json;
using System.Text.Json.Nodes;
using IlgpuSae.Saes;

namespace IlgpuSae.Training;

/// <summary>Numbers of one training step. Losses are those of the step's batch before its update.</summary>
public sealed record StepMetrics
{
    /// <summary>Steps completed before, from 0.</summary>
    public required long Step { get; init; }

    /// <summary>Learning rate of the step.</summary>
    public required double Lr { get; init; }

    /// <summary>Loss coefficients of the step.</summary>
    public required IReadOnlyDictionary<string, double> Coefficients { get; init; }

    /// <summary>Features that counted as dead when the step began.</summary>
    public required int NDead { get; init; }

    /// <summary>Sum of the losses.</summary>
    public required double Loss { get; init; }

    /// <summary>Each loss, coefficient included.</summary>
    public required IReadOnlyDictionary<string, double> Losses { get; init; }

    /// <summary>Norm of all gradients together, before clipping.</summary>
    public required double GradNormBeforeClip { get; init; }

    /// <summary>Mean number of features a row that are not zero.</summary>
    public required double L0 { get; init; }

    /// <summary>1 - (mean squared error) / (variance of the batch), both summed over d_in; 0 for a batch of equal rows.</summary>
    public required double ExplainedVariance { get; init; }

    /// <summary>Rows trained on, this step's included.</summary>
    public required long NTrainingSamples { get; init; }

    /// <summary>What the architecture adds, such as <c>topk_threshold</c>.</summary>
    public IReadOnlyDictionary<string, double> Metrics { get; init; } = new Dictionary<string, double>();

    /// <summary>One JSON object: the fields in snake_case, the architecture's numbers beside them.</summary>
    public JsonObject ToJson()
    {
        var json = JsonSerializer.SerializeToNode(this, ConfigJson.Options)!.AsObject();
        json.Remove("metrics");
        foreach (var (name, value) in Metrics) json[name] = value;
        return json;
    }
}
