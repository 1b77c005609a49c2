using System.Text.Json.Nodes;
using IlgpuSae.Hub;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Saes.Pretrained;
using IlgpuSae.Tensors;

namespace IlgpuSae.Runs;

/// <summary>One parameter of an SAE, summed up.</summary>
/// <param name="Name">SAELens' name.</param>
/// <param name="Shape">Shape in memory: linear maps are rows.</param>
/// <param name="MeanRowNorm">Mean Euclidean norm of its rows; of a vector, its norm.</param>
/// <param name="Least">Least value.</param>
/// <param name="Greatest">Greatest value.</param>
public sealed record WeightSummary(string Name, Shape Shape, double MeanRowNorm, double Least, double Greatest);

/// <summary>How often features fired, from <c>sparsity.safetensors</c>.</summary>
/// <param name="Dead">Features that never fired.</param>
/// <param name="BelowOneIn100000">Features that fired on less than 1e-5 of the tokens.</param>
/// <param name="Dense">Features that fired on more than a tenth.</param>
/// <param name="MedianFrequency">Median share of tokens.</param>
public sealed record SparsitySummary(int Dead, int BelowOneIn100000, int Dense, double MedianFrequency);

/// <summary>What a file or folder of an SAE holds.</summary>
public sealed record SaeInspection
{
    /// <summary>The file or folder.</summary>
    public required string Folder { get; init; }

    /// <summary>Its format.</summary>
    public required string Format { get; init; }

    /// <summary>Mean number of active features that the publisher states; null: not stated.</summary>
    public double? PublishedL0 { get; init; }

    /// <summary>What the user ought to know about it.</summary>
    public IReadOnlyList<string> Notes { get; init; } = [];

    /// <summary>Its settings.</summary>
    public required SaeConfig Config { get; init; }

    /// <summary>Its parameters.</summary>
    public required IReadOnlyList<WeightSummary> Weights { get; init; }

    /// <summary>Number of parameters.</summary>
    public required long ParameterCount { get; init; }

    /// <summary>How often features fired; null if the folder does not say.</summary>
    public SparsitySummary? Sparsity { get; init; }

    /// <summary>Reads a file or folder of any known format.</summary>
    /// <param name="reference">The file or folder, or what <see cref="SaeReference"/> understands.</param>
    /// <param name="device">Where the parameters are loaded.</param>
    /// <param name="hub">Opens the hub, should it be needed; null: as the environment says.</param>
    /// <param name="cancellation">Stops a transfer.</param>
    /// <exception cref="IlgpuSaeException">It cannot be fetched.</exception>
    /// <exception cref="InvalidInputException">It is no SAE's, or a file is damaged.</exception>
    public static SaeInspection Of(string reference, Device device, Func<HubClient>? hub = null, CancellationToken cancellation = default)
    {
        var published = SaeReference.Parse(reference).Describe(hub, cancellation);
        using var sae = SaeFormats.Load(published, device);
        return new SaeInspection
        {
            Folder = reference,
            Format = published.Format,
            PublishedL0 = published.PublishedL0,
            Notes = published.Notes,
            Config = sae.Config,
            Weights = [.. sae.Parameters.Select(p => Summarise(p.Key, p.Value))],
            ParameterCount = sae.Parameters.Values.Sum(t => t.Count),
            Sparsity = published.ReadLogSparsity?.Invoke() is { Length: > 0 } s ? Summarise(s) : null,
        };
    }

    /// <summary>As JSON.</summary>
    public JsonObject ToJson()
    {
        var json = new JsonObject { ["folder"] = Folder, ["format"] = Format, ["published_l0"] = PublishedL0, ["notes"] = new JsonArray([.. Notes.Select(n => (JsonNode)n)]), ["cfg"] = ConfigJson.ToJson(Config), ["parameters"] = ParameterCount };
        json["weights"] = new JsonObject(Weights.Select(w => KeyValuePair.Create(w.Name, (JsonNode?)new JsonObject
        {
            ["shape"] = new JsonArray([.. w.Shape.Dims.ToArray().Select(d => (JsonNode)d)]),
            ["mean_row_norm"] = w.MeanRowNorm,
            ["min"] = w.Least,
            ["max"] = w.Greatest,
        })));
        if (Sparsity is { } s) json["sparsity"] = System.Text.Json.JsonSerializer.SerializeToNode(s, ConfigJson.Options);
        return json;
    }

    private static WeightSummary Summarise(string name, Tensor tensor)
    {
        var values = tensor.ToArray<float>();
        var width = tensor.Shape.Rank == 2 ? tensor.Shape[1] : values.Length;
        double norms = 0;
        for (var at = 0; at < values.Length; at += width)
        {
            double squares = 0;
            foreach (var v in values.AsSpan(at, width)) squares += (double)v * v;
            norms += Math.Sqrt(squares);
        }

        return new WeightSummary(name, tensor.Shape, norms / Math.Max(1, values.Length / width), values.Min(), values.Max());
    }

    private static SparsitySummary Summarise(float[] log10)
    {
        var frequency = log10.Select(l => Math.Pow(10, l)).Order().ToList();
        return new SparsitySummary(frequency.Count(f => f < 2e-10), frequency.Count(f => f < 1e-5), frequency.Count(f => f > 0.1), frequency[frequency.Count / 2]);
    }
}
