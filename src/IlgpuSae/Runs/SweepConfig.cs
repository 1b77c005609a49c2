using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;
using IlgpuSae.Files;
using IlgpuSae.Saes;

namespace IlgpuSae.Runs;

/// <summary>One run of a sweep.</summary>
/// <param name="Name">Its name: given, or made of what is its own. Also its folder's.</param>
/// <param name="Own">The fields that set it apart, in snake_case.</param>
/// <param name="Config">The whole run.</param>
public sealed record SweepItem(string Name, JsonObject Own, RunConfig Config);

/// <summary>
/// Several runs over one stream of activations. The file is JSON: <c>base</c>, a run's fields; <c>runs</c>, a list of
/// fields that differ; <c>grid</c>, lists of values by field, of which every combination is run, with each of the runs if
/// there are any; <c>output_path</c>.
/// </summary>
/// <param name="OutputPath">The folder for everything.</param>
/// <param name="Items">The runs, at least one.</param>
public sealed record SweepConfig(string OutputPath, IReadOnlyList<SweepItem> Items)
{
    private const int MostRuns = 1000;

    /// <summary>Settings that belong to a run even though they say where activations come from.</summary>
    private static readonly string[] OfEachRun = ["hook_name", "hook_head_index", "hook_name_out", "hook_head_index_out"];

    /// <summary>Fields that cannot differ within a sweep because of what they are.</summary>
    private static readonly string[] OfTheSweep = ["output_path", "data_seed"];

    /// <summary>Reads a sweep.</summary>
    /// <param name="path">The JSON file.</param>
    /// <param name="options">A run's fields that win over the file's <c>base</c>.</param>
    /// <exception cref="InvalidInputException">The file cannot be used, a field is wrong, or runs cannot share a stream.</exception>
    public static SweepConfig Load(string path, JsonObject options)
    {
        var json = (JsonObject)JsonNode.Parse(JsonConfig.Read(path).Element.GetRawText())!;
        foreach (var (name, _) in json)
        {
            if (name is not ("base" or "runs" or "grid" or "output_path"))
                throw new InvalidInputException($"{path}: field \"{name}\" is not known; a sweep has base, runs, grid and output_path");
        }

        var common = RunConfigReader.Merge(path, Object(json, "base", path), options);
        var output = (common["output_path"] ?? json["output_path"])?.ToString();
        common.Remove("output_path");
        // One order of rows for all, whatever their own seeds.
        if (common["data_seed"] is null) common["data_seed"] = common["seed"]?.DeepClone() ?? JsonValue.Create(new Training.TrainerConfig().Seed);
        var own = Combinations(json, path).ToList();
        if (own.Count == 0) throw new InvalidInputException($"{path}: nothing to run; give runs, a list of fields that differ, or grid, lists of values by field");
        var items = new List<SweepItem>();
        foreach (var (fields, number) in own.Select((f, i) => (f, i + 1)))
        {
            var where = string.Create(CultureInfo.InvariantCulture, $"{path}, run {number}");
            var given = (fields["name"] ?? null)?.ToString();
            fields.Remove("name");
            if (OfTheSweep.FirstOrDefault(fields.ContainsKey) is { } shared) throw new InvalidInputException($"{where}: {shared} is the sweep's, not a run's; put it into base");
            var config = RunConfigReader.Load(RunConfigReader.Merge(where, common, fields), [], where);
            if (config.EndToEnd.E2eLoss is not null) throw new InvalidInputException($"{where}: e2e_loss: end-to-end training takes whole contexts through the model for each SAE and has no stream to share; train it alone");
            Try(where, config.Data.Validate);
            Try(where, config.Trainer.Validate);
            items.Add(new SweepItem(given ?? "", fields, config));
        }

        items = [.. items.Select(i => i.Name.Length > 0 ? i : i with { Name = NameOf(i, items) })];

        output ??= RunConfigReader.FreeFolder(items[0].Config, "sweep");
        CheckNames(items, path);
        foreach (var item in items.Skip(1)) CheckShared(items[0], item, path);
        return new SweepConfig(output, [.. items.Select(i => i with { Config = i.Config with { OutputPath = Path.Combine(output, i.Name) } })]);
    }

    private static void Try(string where, Action check)
    {
        try
        {
            check();
        }
        catch (InvalidInputException e)
        {
            throw new InvalidInputException($"{where}: {e.Message}", e);
        }
    }

    /// <summary>Every run of the list with every combination of the grid.</summary>
    private static IEnumerable<JsonObject> Combinations(JsonObject json, string path)
    {
        IEnumerable<JsonObject> all = json["runs"] switch
        {
            null => json["grid"] is null ? [] : [[]],
            JsonArray list => [.. list.Select((r, i) => r as JsonObject ?? throw new InvalidInputException($"{path}: runs[{i}] is not an object"))],
            _ => throw new InvalidInputException($"{path}: \"runs\" is not a list"),
        };
        all = all.Select(r => RunConfigReader.Merge(path, r));
        foreach (var (field, values) in Object(json, "grid", path))
        {
            if (values is not JsonArray { Count: > 0 } list) throw new InvalidInputException($"{path}: grid: \"{field}\" is not a list of values");
            all = [.. all.SelectMany(r => list.Select(v => RunConfigReader.Merge(path, r, new JsonObject { [field] = v?.DeepClone() })))];
            if (all.Count() > MostRuns) throw new InvalidInputException($"{path}: more than {MostRuns} runs");
        }

        return all;
    }

    private static JsonObject Object(JsonObject json, string name, string path) => json[name] switch
    {
        null => [],
        JsonObject o => o,
        _ => throw new InvalidInputException($"{path}: \"{name}\" is not an object"),
    };

    /// <summary>The architecture and the fields that set a run apart from others of it, as a name of a folder.</summary>
    private static string NameOf(SweepItem item, IReadOnlyList<SweepItem> items)
    {
        var name = new StringBuilder(item.Config.Sae.Architecture);
        var others = items.Where(o => o != item && o.Config.Sae.Architecture == item.Config.Sae.Architecture).ToList();
        foreach (var (field, value) in item.Own)
        {
            if (field == "architecture" || others.All(o => JsonNode.DeepEquals(o.Own[field], value))) continue;
            var text = value is JsonArray list ? string.Join('.', list) : value?.ToString() ?? "none";
            name.Append('-').Append(field is "hook_name" ? "" : RunConfigReader.RunnerName(field).Replace('_', '-')).Append(text);
        }

        return string.Concat(name.ToString().Select(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '.' or '_' ? c : '_'));
    }

    private static void CheckNames(List<SweepItem> items, string path)
    {
        foreach (var (item, i) in items.Select((item, i) => (item, i)))
        {
            if (item.Name is "" or "." or ".." || item.Name.AsSpan().IndexOfAny(Path.GetInvalidFileNameChars()) >= 0 || SweepResults.Files.Contains(item.Name))
                throw new InvalidInputException($"{path}: a run cannot be called \"{item.Name}\": its folder would be");
            if (items.FindIndex(o => string.Equals(o.Name, item.Name, StringComparison.OrdinalIgnoreCase)) is var first && first < i)
                throw new InvalidInputException($"{path}: runs {first + 1} and {i + 1} are both called {item.Name}; give them a \"name\"");
        }
    }

    /// <summary>What runs have to have in common to see the same rows.</summary>
    private static void CheckShared(SweepItem first, SweepItem item, string path)
    {
        foreach (var (a, b) in new[] { (Shared(first.Config), Shared(item.Config)) })
        {
            foreach (var (field, value) in a)
            {
                if (JsonNode.DeepEquals(value, b[field])) continue;
                throw new InvalidInputException($"{path}: {RunConfigReader.RunnerName(field)} is {Show(value)} in {first.Name} but {Show(b[field])} in {item.Name}; "
                    + "runs of a sweep share every batch of activations, so only hooks, SAE and trainer settings but the batch size may differ");
            }
        }
    }

    private static JsonObject Shared(RunConfig config)
    {
        var fields = ConfigJson.ToJson(config.Data);
        foreach (var own in OfEachRun) fields.Remove(own);
        if (config.Data is { ModelName: null, Activations: null })
            foreach (var (name, value) in ConfigJson.ToJson(config.Synthetic)) fields["synthetic." + name] = value?.DeepClone();
        fields["train_batch_size_samples"] = config.Trainer.TrainBatchSizeSamples;
        return fields;
    }

    private static string Show(JsonNode? value) => value?.ToJsonString() ?? "not given";
}
