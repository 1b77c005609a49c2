using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using IlgpuSae.Files;

namespace IlgpuSae.Runs;

/// <summary>A sweep's results as a table: a row a run, columns for what sets runs apart and for what was measured.</summary>
public static class SweepResults
{
    /// <summary>The table as comma-separated values.</summary>
    public const string CsvFile = "results.csv";

    /// <summary>The table as JSON.</summary>
    public const string JsonFile = "results.json";

    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true };

    /// <summary>Names a run cannot have.</summary>
    internal static readonly string[] Files = [CsvFile, JsonFile, "pareto.svg", "pareto.png"];

    private static readonly (string Name, Func<SweepRun, JsonNode?> Value)[] Measured =
    [
        ("l0", r => r.Report?.Evaluation?.Sparsity?.L0),
        ("explained_variance", r => r.Report?.Evaluation?.ReconstructionQuality?.ExplainedVariance),
        ("mse", r => r.Report?.Evaluation?.ReconstructionQuality?.Mse),
        ("ce_loss_score", r => r.Report?.Evaluation?.ModelPerformancePreservation?.CeLossScore),
        ("ce_loss_with_sae", r => r.Report?.Evaluation?.ModelPerformancePreservation?.CeLossWithSae),
        ("kl_div_score", r => r.Report?.Evaluation?.ModelBehaviorPreservation?.KlDivScore),
        ("f1_score", r => r.Report?.GroundTruth?.Classification.F1Score),
        ("precision", r => r.Report?.GroundTruth?.Classification.Precision),
        ("recall", r => r.Report?.GroundTruth?.Classification.Recall),
        ("mcc", r => r.Report?.GroundTruth?.Mcc),
        ("mmcs", r => r.Report?.GroundTruth?.Mmcs),
        ("uniqueness", r => r.Report?.GroundTruth?.Uniqueness),
        ("true_l0", r => r.Report?.GroundTruth?.TrueL0),
        ("shrinkage", r => r.Report?.GroundTruth?.Shrinkage ?? r.Report?.Evaluation?.Shrinkage?.L2Ratio),
        ("dead_features", r => r.Report?.Evaluation?.Sparsity?.DeadFeatures ?? r.Report?.Training.DeadFeatures),
        ("d_sae", r => r.Report?.Config.Sae.DSae),
        ("last_loss", r => r.Report?.Training.Last?.Loss),
        ("training_samples", r => r.Report?.Training.Samples),
        ("seconds", r => r.Seconds),
        ("failure", r => r.Failure),
    ];

    /// <summary>Names of the columns: those in which no run has anything are left out.</summary>
    /// <param name="report">The sweep.</param>
    public static IReadOnlyList<string> Columns(SweepReport report)
    {
        var own = report.Runs.SelectMany(r => r.Item.Own.Select(p => p.Key)).Where(n => n != "architecture").Distinct();
        var measured = Measured.Where(m => report.Runs.Any(r => Finite(m.Value(r)) is not null)).Select(m => m.Name);
        return [.. new[] { "name", "architecture" }.Concat(own).Concat(measured).Distinct()];
    }

    /// <summary>One run's row: column names and values; NaN counts as nothing.</summary>
    /// <param name="run">The run.</param>
    public static JsonObject Row(SweepRun run)
    {
        var row = new JsonObject { ["name"] = run.Item.Name, ["architecture"] = run.Item.Config.Sae.Architecture };
        foreach (var (name, value) in run.Item.Own) row[name] = value?.DeepClone();
        foreach (var (name, value) in Measured)
            if (Finite(value(run)) is { } found) row[name] = found;
        return row;
    }

    /// <summary>Everything as one JSON object.</summary>
    /// <param name="report">The sweep.</param>
    public static JsonObject Json(SweepReport report) => new()
    {
        ["output_path"] = report.Config.OutputPath,
        ["cancelled"] = report.Cancelled,
        ["seconds"] = report.Seconds,
        ["activation_seconds"] = report.ActivationSeconds,
        ["runs"] = new JsonArray([.. report.Runs.Select(Row)]),
    };

    /// <summary>The table as comma-separated values (RFC 4180, but with line feeds), numbers as programs read them.</summary>
    /// <param name="report">The sweep.</param>
    public static string Csv(SweepReport report)
    {
        var columns = Columns(report);
        var text = new StringBuilder().AppendJoin(',', columns.Select(Quoted)).Append('\n');
        foreach (var run in report.Runs)
        {
            var row = Row(run);
            text.AppendJoin(',', columns.Select(c => Quoted(Text(row[c])))).Append('\n');
        }

        return text.ToString();
    }

    /// <summary>Whether a folder can take a sweep: it must not exist or be empty.</summary>
    internal static void CheckFolder(string path)
    {
        if (File.Exists(path)) throw new InvalidInputException($"{path}: is a file; the sweep needs a folder of its own");
        if (Directory.Exists(path) && Directory.EnumerateFileSystemEntries(path).Any())
            throw new InvalidInputException($"{path}: is not empty; give the sweep a new folder with output_path");
    }

    internal static void Write(SweepReport report)
    {
        Directory.CreateDirectory(report.Config.OutputPath);
        AtomicFile.WriteText(Path.Combine(report.Config.OutputPath, CsvFile), Csv(report));
        AtomicFile.WriteText(Path.Combine(report.Config.OutputPath, JsonFile), Json(report).ToJsonString(Indented) + "\n");
    }

    private static JsonNode? Finite(JsonNode? value) =>
        value is JsonValue v && v.TryGetValue<double>(out var number) && !double.IsFinite(number) ? null : value;

    private static string Text(JsonNode? value) => value switch
    {
        null => "",
        JsonValue v when v.TryGetValue<double>(out var number) => number.ToString("R", CultureInfo.InvariantCulture),
        JsonValue v when v.TryGetValue<string>(out var text) => text,
        _ => value.ToJsonString(),
    };

    private static string Quoted(string text) =>
        text.AsSpan().IndexOfAny(",\"\n\r") < 0 ? text : "\"" + text.Replace("\"", "\"\"", StringComparison.Ordinal) + "\"";
}
