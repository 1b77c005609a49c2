using System.Text.Json.Nodes;
using IlgpuSae.Activations;
using IlgpuSae.Saes;

namespace IlgpuSae.Runs;

/// <summary>Synthetic sources that have a name, and how to train on sources whose features are known.</summary>
public static class SyntheticPreset
{
    private const int BenchRowsAFeature = 200_000_000 / 16384;

    private static readonly Dictionary<string, SyntheticConfig> Known = new(StringComparer.Ordinal)
    {
        ["superposition"] = new SyntheticConfig(),
        ["synthsaebench-1k"] = SyntheticConfig.SynthSaeBench1k,
        ["synthsaebench-16k"] = SyntheticConfig.SynthSaeBench16k,
    };

    /// <summary>The names.</summary>
    public static IReadOnlyCollection<string> Names => Known.Keys;

    /// <summary>The settings under a name.</summary>
    /// <param name="name">One of <see cref="Names"/>.</param>
    /// <exception cref="InvalidInputException">There is none of that name.</exception>
    public static SyntheticConfig Find(string name) => Known.TryGetValue(name, out var config) ? config
        : throw new InvalidInputException($"synthetic: \"{name}\" is none of {string.Join(", ", Known.Keys)}");

    /// <summary>The settings under a name as fields, but for the seed, which is the run's.</summary>
    internal static JsonObject Fields(string name)
    {
        var fields = ConfigJson.ToJson(Find(name));
        fields.Remove("seed");
        return fields;
    }

    /// <summary>Training settings for a synthetic source where no one gives any.</summary>
    /// <param name="run">The run as far as it is known.</param>
    internal static JsonObject Training(RunConfig run) => run.Synthetic.Generator == FeatureGenerator.SynthSaeBench ? Bench(run) : Plain(run);

    /// <summary>
    /// Measured to find every true feature of the plain source within a minute: one feature more than are active on
    /// average, twice as many latents as true features.
    /// </summary>
    private static JsonObject Plain(RunConfig run)
    {
        var settings = new JsonObject
        {
            ["d_sae"] = 2 * run.Synthetic.NTrue,
            ["training_tokens"] = 2_000_000,
            ["train_batch_size_tokens"] = 1024,
            ["lr"] = 3e-3,
            ["lr_decay_steps"] = 600,
            ["dead_feature_window"] = 100,
        };
        switch (run.Sae)
        {
            case TopKTrainingConfig or AbsTopKTrainingConfig or BatchTopKTrainingConfig:
                settings["k"] = (int)Math.Ceiling(run.Synthetic.MeanActive) + 1;
                AddWidths(run.Sae, settings);
                break;
            case JumpReLUTrainingConfig:
                settings["l0_coefficient"] = 0.03;
                settings["l0_warm_up_steps"] = 200;
                settings["jumprelu_init_threshold"] = 0.1;
                break;
            case MatchingPursuitTrainingConfig:
                settings["max_iterations"] = (int)Math.Ceiling(run.Synthetic.MeanActive) + 1;
                break;
            case StandardTrainingConfig or GatedTrainingConfig or PAnnealTrainingConfig:
                settings["l1_coefficient"] = 0.3;
                settings["l1_warm_up_steps"] = 200;
                break;
        }

        return settings;
    }

    /// <summary>
    /// The benchmark's own: a quarter as many latents as true features, 200 million rows for 16,384 of them and as many a
    /// feature otherwise, k the mean number of the most frequent d_sae features in a row.
    /// </summary>
    private static JsonObject Bench(RunConfig run)
    {
        var world = run.Synthetic;
        var latents = run.Sae.DSae > 0 ? run.Sae.DSae : Math.Max(1, world.NTrue / 4);
        var settings = new JsonObject
        {
            ["d_sae"] = latents,
            ["training_tokens"] = Math.Max(1024, (long)BenchRowsAFeature * world.NTrue),
            ["train_batch_size_tokens"] = 1024,
            ["lr"] = 3e-4,
        };
        if (run.Sae is MatchingPursuitTrainingConfig) settings["residual_threshold"] = 0;
        var features = run.Sae is MatchingPursuitTrainingConfig ? "max_iterations" : "k";
        if (ConfigJson.ToJson(run.Sae).ContainsKey(features))
            settings[features] = Math.Max(1, (int)Math.Round(SynthSaeBench.MeanActive(world, latents)));
        AddWidths(run.Sae, settings);
        return settings;
    }

    /// <summary>Levels of a Matryoshka SAE: an eighth, half and all of its features.</summary>
    private static void AddWidths(TrainingSaeConfig sae, JsonObject settings)
    {
        if (sae is not MatryoshkaBatchTopKTrainingConfig) return;
        var all = sae.DSae > 0 ? sae.DSae : (int)settings["d_sae"]!;
        settings["matryoshka_widths"] = new JsonArray([.. new[] { all / 8, all / 2, all }.Distinct().Where(w => w > 0).Select(w => (JsonNode)w)]);
    }
}
