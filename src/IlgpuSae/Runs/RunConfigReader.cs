using System.Globalization;
using System.Text.Json.Nodes;
using IlgpuSae.Activations;
using IlgpuSae.Files;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Training;

namespace IlgpuSae.Runs;

/// <summary>
/// Reads a run from JSON. Every field is found by its name, whether it stands at the top or in the objects
/// <c>sae</c>, <c>trainer</c>, <c>synthetic</c> and <c>logger</c>, as SAELens' runner and trainer files have them. A
/// flat file from before SAELens 6 keeps its meaning, its defaults included (<see cref="OldRunConfig"/>).
/// </summary>
public static class RunConfigReader
{
    /// <summary>What is trained where nothing names an architecture.</summary>
    public const string DefaultArchitecture = "topk";

    /// <summary>Other names of fields: the trainer's and the runner's differ.</summary>
    private static readonly Dictionary<string, string> OtherNames = new(StringComparer.Ordinal)
    {
        ["training_tokens"] = "total_training_samples",
        ["train_batch_size_tokens"] = "train_batch_size_samples",
        ["from_pretrained_path"] = "init_from",
        ["model"] = "model_name",
    };

    /// <summary>Reads a run from a file and from fields given besides.</summary>
    /// <param name="path">A JSON file; null: the other fields alone.</param>
    /// <param name="overrides">Fields that win over the file's.</param>
    /// <returns>
    /// The run. Where nothing says otherwise it is a TopK SAE; with neither file nor source, the demonstration that
    /// takes about a minute.
    /// </returns>
    /// <exception cref="InvalidInputException">The file cannot be used, or a field is unknown or of the wrong kind.</exception>
    public static RunConfig Load(string? path, JsonObject overrides)
    {
        var json = path is null ? [] : (JsonObject)JsonNode.Parse(JsonConfig.Read(path).Element.GetRawText())!;
        var run = Load(json, overrides, path ?? "options");
        return run with { OutputPath = run.OutputPath ?? FreeFolder(run, run.Sae.Architecture) };
    }

    /// <summary>Reads a run; a synthetic source's own settings stand for what no one gave.</summary>
    /// <param name="json">The file's content.</param>
    /// <param name="overrides">Fields that win over the file's.</param>
    /// <param name="where">The file, for messages.</param>
    internal static RunConfig Load(JsonObject json, JsonObject overrides, string where)
    {
        var run = Read(json, overrides, where, DefaultArchitecture);
        return run.Data is { ModelName: null, Text: null, Tokens: null, Activations: null } && !OldRunConfig.Is(json)
            ? Read(Under(SyntheticPreset.Training(run), json, where), overrides, where, DefaultArchitecture)
            : run;
    }

    /// <summary>Fields all at the top, under their own names; later objects win.</summary>
    /// <param name="where">The file, for messages.</param>
    /// <param name="objects">As in files.</param>
    internal static JsonObject Merge(string where, params IEnumerable<JsonObject> objects)
    {
        var all = new JsonObject();
        foreach (var (name, value) in objects.SelectMany(o => Flatten(o, where))) all[name] = value?.DeepClone();
        return all;
    }

    /// <summary>Reads a run.</summary>
    /// <param name="json">The file's content; empty for all defaults.</param>
    /// <param name="overrides">Fields that win over the file's, all at the top.</param>
    /// <param name="where">The file, for messages.</param>
    /// <param name="architecture">The architecture if no field names one.</param>
    /// <exception cref="InvalidInputException">A field is unknown or its value has the wrong kind.</exception>
    public static RunConfig Read(JsonObject json, JsonObject overrides, string where, string architecture)
    {
        var ignored = new List<string>();
        var notes = new List<string>();
        if (OldRunConfig.Is(json))
        {
            json = OldRunConfig.Migrate(json, where, out var idle);
            ignored.AddRange(idle);
            notes.Add($"{where}: read as a configuration of SAELens before version 6: what it does not name has that time's default, such as adam_beta1 = 0 and normalize_sae_decoder = true");
        }

        var fields = Flatten(json, where);
        foreach (var (name, value) in Flatten(overrides, where)) fields[name] = value;
        if (fields.Remove("preset", out var preset) && Text(preset, "synthetic", where) is { } named)
        {
            foreach (var (name, value) in SyntheticPreset.Fields(named)) fields.TryAdd(name, value);
        }

        var start = StartingPoint(fields, where);
        var chosen = Text(fields.GetValueOrDefault("architecture") ?? start["architecture"], "architecture", where) ?? architecture;
        fields.Remove("architecture");
        var saeType = SaeRegistry.Default.ConfigType(chosen, training: true);
        var parts = new Part[] { new(saeType), new(typeof(TrainerConfig)), new(typeof(DataConfig)), new(typeof(SyntheticConfig)), new(typeof(EndToEndConfig)) };
        // What the weights were trained with holds unless the run says otherwise.
        foreach (var (name, value) in start)
            if (parts[0].Names.Contains(name)) parts[0].Given[name] = value?.DeepClone();
        string? initFrom = null, outputPath = null;
        foreach (var (name, value) in fields)
        {
            if (name == "init_from") initFrom = Text(value, name, where);
            else if (name == "output_path") outputPath = Text(value, name, where);
            else if (name == "dataset_path") AddDataset(parts[2], Text(value, name, where));
            else if (Place(parts, name, value)) continue;
            else if (PassedOver.Has(name, value, where)) ignored.Add(name);
            else throw Unknown(name, parts, where);
        }

        var sae = (TrainingSaeConfig)parts[0].Read(where);
        var data = (DataConfig)parts[2].Read(where);
        var synthetic = (SyntheticConfig)parts[3].Read(where);
        // Widths that are not given follow from the source; given ones are checked as they are.
        if (sae.DIn < 1 && fields.ContainsKey("d_in")) throw new InvalidInputException($"d_in: {sae.DIn} is not a width; it must be at least 1");
        if (sae.DSae < 1 && fields.ContainsKey("d_sae")) throw new InvalidInputException($"d_sae: {sae.DSae} features; it must be at least 1");
        return new RunConfig
        {
            Sae = sae,
            Trainer = (TrainerConfig)parts[1].Read(where),
            Data = data,
            Synthetic = data.DataSeed is { } rows ? synthetic with { Seed = rows } : synthetic,
            EndToEnd = (EndToEndConfig)parts[4].Read(where),
            InitFrom = initFrom,
            OutputPath = outputPath,
            Ignored = ignored,
            Notes = notes,
        };
    }

    /// <summary>A trainer's field as SAELens' runner calls it.</summary>
    /// <param name="name">The field's name in snake_case.</param>
    public static string RunnerName(string name) => name switch
    {
        "total_training_samples" => "training_tokens",
        "train_batch_size_samples" => "train_batch_size_tokens",
        _ => name,
    };

    /// <summary>The fields of one object, and below them those of another that it does not have.</summary>
    private static JsonObject Under(JsonObject below, JsonObject json, string where)
    {
        var all = (JsonObject)below.DeepClone();
        foreach (var (name, value) in Flatten(json, where))
        {
            all.Remove(RunnerName(name));
            all[name] = value?.DeepClone();
        }

        return all;
    }

    /// <summary>A folder under <c>output/</c> that does not exist yet.</summary>
    internal static string FreeFolder(RunConfig run, string what)
    {
        var source = run.Data.ModelName is { } model ? Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(model))) + "-" + run.Data.HookName
            : run.Data.Activations is { } file ? Path.GetFileNameWithoutExtension(file)
            : "synthetic";
        var name = Path.Combine("output", $"{what}-{source}");
        var free = name;
        for (var i = 2; Directory.Exists(free) || File.Exists(free); i++) free = string.Create(CultureInfo.InvariantCulture, $"{name}-{i}");
        return free;
    }

    /// <summary>Where a result folder holds the form that can be trained further.</summary>
    /// <param name="folder">A folder of an SAE.</param>
    internal static string TrainingFolder(string folder)
    {
        var inner = Path.Combine(folder, SaeLensFolder.TrainingFolder);
        return Directory.Exists(inner) ? inner : folder;
    }

    /// <summary>Settings beside the weights to start from, if those lie in a folder.</summary>
    private static JsonObject StartingPoint(Dictionary<string, JsonNode?> fields, string where)
    {
        if (Text(fields.GetValueOrDefault("init_from"), "init_from", where) is not { } path || !Directory.Exists(path)) return [];
        var folder = TrainingFolder(path);
        return File.Exists(Path.Combine(folder, SaeLensFolder.ConfigFile)) ? ConfigJson.ToJson(SaeLensFolder.ReadConfig(folder, training: true)) : [];
    }

    /// <summary>A field given to every record that has it: the seed is the trainer's and the synthetic source's.</summary>
    private static bool Place(Part[] parts, string name, JsonNode? value)
    {
        var placed = false;
        foreach (var part in parts)
        {
            if (!part.Names.Contains(name)) continue;
            part.Given[name] = value?.DeepClone();
            placed = true;
        }

        return placed;
    }

    private static Dictionary<string, JsonNode?> Flatten(JsonObject json, string where)
    {
        var fields = new Dictionary<string, JsonNode?>(StringComparer.Ordinal);
        foreach (var (name, value) in json)
        {
            if (name == "synthetic" && value is JsonValue preset)
            {
                fields["preset"] = preset;
            }
            else if (name is "sae" or "sae_cfg" or "trainer" or "trainer_cfg" or "synthetic")
            {
                if (value is not JsonObject nested) throw new InvalidInputException($"{where}: field \"{name}\" is not an object");
                // The world's own seed; the run's stands beside it.
                foreach (var (inner, v) in Flatten(nested, where)) fields[name == "synthetic" && inner == "seed" ? "data_seed" : inner] = v;
            }
            else
            {
                fields[OtherNames.GetValueOrDefault(name, name)] = value;
            }
        }

        return fields;
    }

    /// <summary>SAELens' data set: a safetensors file holds tokens, anything else is text.</summary>
    private static void AddDataset(Part data, string? path)
    {
        if (string.IsNullOrEmpty(path)) return;
        data.Given[path.EndsWith(".safetensors", StringComparison.Ordinal) ? "tokens" : "text"] = path;
    }

    private static string? Text(JsonNode? value, string name, string where) => value switch
    {
        null => null,
        JsonValue v when v.TryGetValue<string>(out var text) => text,
        _ => throw new InvalidInputException($"{where}: field \"{name}\" cannot be {value.ToJsonString()}; it is a text"),
    };

    private static InvalidInputException Unknown(string name, Part[] parts, string where)
    {
        var known = parts.SelectMany(p => p.Names).Concat(["init_from", "output_path"]).Distinct();
        return new InvalidInputException($"{where}: field \"{name}\" is not known{NearNames.Advice(name, known)}");
    }

    /// <summary>One record and the fields given for it.</summary>
    private sealed class Part
    {
        private readonly Type _type;

        public Part(Type type)
        {
            _type = type;
            Names = [.. ConfigJson.Fields(type)];
        }

        public HashSet<string> Names { get; }

        public JsonObject Given { get; } = [];

        public object Read(string where) => ConfigJson.FromJson(Given, _type, where);
    }
}
