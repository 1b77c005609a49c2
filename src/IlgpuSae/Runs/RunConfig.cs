using System.Text.Json.Nodes;
using IlgpuSae.Activations;
using IlgpuSae.Saes;
using IlgpuSae.Training;

namespace IlgpuSae.Runs;

/// <summary>A whole training run: data, SAE and trainer, as one JSON file in SAELens' field names holds it.</summary>
public sealed record RunConfig
{
    /// <summary>Where activations come from.</summary>
    public required DataConfig Data { get; init; }

    /// <summary>The built-in source, used when <see cref="Data"/> names none.</summary>
    public required SyntheticConfig Synthetic { get; init; }

    /// <summary>How to train.</summary>
    public required TrainerConfig Trainer { get; init; }

    /// <summary>What is trained. <c>d_in</c> 0 follows the source, <c>d_sae</c> 0 is eight times that.</summary>
    public required TrainingSaeConfig Sae { get; init; }

    /// <summary>Whether and how it is trained through the model.</summary>
    public EndToEndConfig EndToEnd { get; init; } = new();

    /// <summary>File or SAELens folder of the weights to start from; null: drawn.</summary>
    public string? InitFrom { get; init; }

    /// <summary>Folder for the result.</summary>
    public string? OutputPath { get; init; }

    /// <summary>Seed of the order of rows.</summary>
    internal ulong RowSeed => Data.DataSeed ?? Trainer.Seed;

    /// <summary>Fields of the file that have no meaning here and were passed over.</summary>
    public IReadOnlyList<string> Ignored { get; init; } = [];

    /// <summary>What the user ought to know about how the file was read.</summary>
    public IReadOnlyList<string> Notes { get; init; } = [];

    /// <summary>As SAELens' runner writes it: the runner's fields with the SAE's under <c>sae</c>.</summary>
    public JsonObject ToJson()
    {
        var json = new JsonObject { ["sae"] = ConfigJson.ToJson(Sae) };
        foreach (var part in new object[] { Data, Trainer, EndToEnd })
        {
            foreach (var (name, value) in ConfigJson.ToJson(part)) json[RunConfigReader.RunnerName(name)] = value?.DeepClone();
        }

        if (Data is { ModelName: null, Activations: null }) json["synthetic"] = ConfigJson.ToJson(Synthetic);
        json["from_pretrained_path"] = InitFrom;
        json["output_path"] = OutputPath;
        return json;
    }
}
