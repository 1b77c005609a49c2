using System.Globalization;
using System.Text.Json.Nodes;
using IlgpuSae.Runs;
using Spectre.Console;

namespace IlgpuSae.Cli;

/// <summary>What is shown of a sweep: a row a run.</summary>
internal static class SweepTable
{
    /// <summary>Columns that files have and a screen has no room for.</summary>
    private static readonly string[] FilesOnly = ["mse", "ce_loss_with_sae", "precision", "recall", "mmcs", "true_l0", "shrinkage", "training_samples", "last_loss"];

    public static void Write(Session session, SweepReport report, IReadOnlyList<string> plots)
    {
        var c = CultureInfo.InvariantCulture;
        // The name says what is a run's own.
        var own = report.Runs.SelectMany(r => r.Item.Own.Select(p => p.Key)).ToHashSet(StringComparer.Ordinal);
        var columns = SweepResults.Columns(report).Where(n => n == "name" || (!own.Contains(n) && n != "architecture" && !FilesOnly.Contains(n))).ToList();
        var grid = new Grid { Expand = false };
        foreach (var name in columns)
            grid.AddColumn(new GridColumn { Alignment = name is "name" or "failure" ? Justify.Left : Justify.Right, NoWrap = true, Padding = new Padding(name == "name" ? 2 : 0, 0, 2, 0) });
        grid.AddRow([.. columns.Select(n => new Text(n.Replace('_', ' ')))]);
        foreach (var run in report.Runs)
        {
            var row = SweepResults.Row(run);
            grid.AddRow([.. columns.Select(n => new Text(Show(row[n])))]);
        }

        session.Output.WriteLine(string.Create(c, $"trained {report.Runs.Count(r => r.Report is not null)} of {report.Runs.Count} SAEs in {report.Seconds:0.0} s, ")
            + string.Create(c, $"{100 * report.ActivationSeconds / report.Seconds:0} % of it to make activations"));
        var text = new StringWriter(c);
        var console = AnsiConsole.Create(new AnsiConsoleSettings { Ansi = AnsiSupport.No, ColorSystem = ColorSystemSupport.NoColors, Out = new AnsiConsoleOutput(text) });
        console.Profile.Width = 400;
        console.Write(grid);
        foreach (var line in text.ToString().Split('\n')) if (line.Length > 0) session.Output.WriteLine(line.TrimEnd());
        session.Output.WriteLine($"saved {report.Config.OutputPath}: a folder each, {SweepResults.CsvFile}, {SweepResults.JsonFile}{string.Concat(plots.Select(p => ", " + Path.GetFileName(p)))}");
        session.Result(SweepResults.Json(report));
    }

    private static string Show(JsonNode? value) => value switch
    {
        null => "",
        JsonValue v when v.TryGetValue<double>(out var number) => Report.Number(number),
        _ => value.ToString(),
    };
}
