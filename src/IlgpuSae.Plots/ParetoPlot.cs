using IlgpuSae.Files;
using IlgpuSae.Runs;
using ScottPlot;
using SkiaSharp;

namespace IlgpuSae.Plots;

/// <summary>
/// What a sweep's SAEs pay and get: mean number of active features against explained variance, CE loss score and, where
/// true features are known, F1; one panel each. A line joins the SAEs that no other beats in both.
/// </summary>
public static class ParetoPlot
{
    private const int PanelWidth = 640;
    private const int Height = 520;
    private const int MostLabels = 24;

    private static readonly (string Column, string Title)[] Panels =
        [("explained_variance", "explained variance"), ("ce_loss_score", "CE loss score"), ("f1_score", "F1 with the true features")];

    private static readonly MarkerShape[] Shapes =
        [MarkerShape.FilledCircle, MarkerShape.FilledSquare, MarkerShape.FilledTriangleUp, MarkerShape.FilledDiamond, MarkerShape.FilledTriangleDown, MarkerShape.Cross, MarkerShape.Eks, MarkerShape.OpenCircle];

    /// <summary>One SAE.</summary>
    /// <param name="Label">What sets it apart from the others of its series.</param>
    /// <param name="Series">Its architecture.</param>
    /// <param name="L0">Mean number of active features.</param>
    /// <param name="Quality">What is gained; more is better.</param>
    private sealed record Point(string Label, string Series, double L0, double Quality);

    /// <summary>Writes <c>pareto.svg</c> and <c>pareto.png</c> into the sweep's folder.</summary>
    /// <param name="report">The sweep.</param>
    /// <returns>The files; none where fewer than two SAEs were judged.</returns>
    /// <exception cref="InvalidFileException">A file cannot be written.</exception>
    public static IReadOnlyList<string> Save(SweepReport report)
    {
        var panels = Panels.Select(p => (p.Title, Points: Points(report, p.Column))).Where(p => p.Points.Count > 1).ToList();
        if (panels.Count == 0) return [];
        EmbeddedFont.Use();
        var series = panels.SelectMany(p => p.Points).Select(p => p.Series).Distinct().Order(StringComparer.Ordinal).ToList();
        var plots = panels.Select(p => Panel(p.Title, p.Points, series)).ToList();
        string svg = Path.Combine(report.Config.OutputPath, "pareto.svg"), png = Path.Combine(report.Config.OutputPath, "pareto.png");
        AtomicFile.Write(svg, file => file.Write(Svg(plots)));
        AtomicFile.Write(png, file => file.Write(Png(plots)));
        return [svg, png];
    }

    private static List<Point> Points(SweepReport report, string column)
    {
        var points = new List<Point>();
        foreach (var run in report.Runs)
        {
            var row = SweepResults.Row(run);
            if (row["l0"] is not { } l0 || row[column] is not { } quality) continue;
            var architecture = run.Item.Config.Sae.Architecture;
            var label = run.Item.Name.StartsWith(architecture + "-", StringComparison.Ordinal) ? run.Item.Name[(architecture.Length + 1)..] : run.Item.Name;
            points.Add(new Point(label == architecture ? "" : label, architecture, l0.GetValue<double>(), quality.GetValue<double>()));
        }

        return points;
    }

    private static Plot Panel(string title, List<Point> points, List<string> series)
    {
        var plot = new Plot();
        plot.Font.Set(EmbeddedFont.Family);
        plot.XLabel("L0, active features a token");
        plot.YLabel(title);
        var front = Front(points);
        if (front.Count > 1)
        {
            // Not dashed: Skia's SVG has no dashes and says so on the error stream.
            plot.Add.ScatterLine(front.Select(p => p.L0).ToArray(), front.Select(p => p.Quality).ToArray(), Colors.LightGray);
        }

        var palette = new ScottPlot.Palettes.ColorblindFriendly();
        foreach (var (name, i) in series.Select((s, i) => (s, i)))
        {
            var own = points.Where(p => p.Series == name).ToList();
            if (own.Count == 0) continue;
            var dots = plot.Add.ScatterPoints(own.Select(p => p.L0).ToArray(), own.Select(p => p.Quality).ToArray(), palette.GetColor(i + 1));
            dots.MarkerShape = Shapes[i % Shapes.Length];
            dots.MarkerSize = 10;
            dots.LegendText = name;
            foreach (var p in points.Count > MostLabels ? [] : own)
            {
                var text = plot.Add.Text(p.Label, p.L0, p.Quality);
                (text.LabelFontName, text.LabelFontSize, text.LabelFontColor) = (EmbeddedFont.Family, 11, Colors.DarkSlateGray);
                (text.OffsetX, text.OffsetY) = (8, 2);
            }
        }

        plot.Axes.Margins(left: 0.06, right: 0.25, bottom: 0.08, top: 0.08);
        plot.Legend.FontName = EmbeddedFont.Family;
        plot.Legend.Orientation = Orientation.Horizontal;
        (plot.Legend.OutlineWidth, plot.Legend.ShadowColor) = (0, Colors.Transparent);
        plot.ShowLegend(Edge.Top);
        return plot;
    }

    /// <summary>The points with no other of at most their L0 and at least their quality, by L0.</summary>
    private static List<Point> Front(List<Point> points)
    {
        var front = new List<Point>();
        foreach (var p in points.OrderBy(p => p.L0).ThenByDescending(p => p.Quality))
            if (front.Count == 0 || p.Quality > front[^1].Quality) front.Add(p);
        return front;
    }

    private static byte[] Svg(List<Plot> plots)
    {
        using var stream = new MemoryStream();
        using (var canvas = SKSvgCanvas.Create(new SKRect(0, 0, PanelWidth * plots.Count, Height), stream)) Draw(canvas, plots);
        return stream.ToArray();
    }

    private static byte[] Png(List<Plot> plots)
    {
        using var surface = SKSurface.Create(new SKImageInfo(PanelWidth * plots.Count, Height));
        Draw(surface.Canvas, plots);
        using var image = surface.Snapshot();
        using var data = image.Encode(SKEncodedImageFormat.Png, 100);
        return data.ToArray();
    }

    private static void Draw(SKCanvas canvas, List<Plot> plots)
    {
        canvas.Clear(SKColors.White);
        foreach (var (plot, i) in plots.Select((p, i) => (p, i)))
        {
            // Drawing a plot clears what it may draw on.
            canvas.Save();
            canvas.ClipRect(new SKRect(i * PanelWidth, 0, (i + 1) * PanelWidth, Height));
            plot.Render(canvas, new PixelRect(i * PanelWidth, (i + 1) * PanelWidth, Height, 0));
            canvas.Restore();
        }
    }
}
