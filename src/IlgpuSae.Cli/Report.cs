using System.Globalization;
using Spectre.Console;

namespace IlgpuSae.Cli;

/// <summary>Two-column reports: a heading, then names and values.</summary>
internal sealed class Report(TextWriter output)
{
    private readonly List<(string Name, string Value, string Note)> _rows = [];

    /// <summary>Begins a section; what was added before is written.</summary>
    public Report Section(string title)
    {
        Write();
        output.WriteLine(title);
        return this;
    }

    /// <summary>One line of the section.</summary>
    public Report Add(string name, string value, string note = "")
    {
        _rows.Add((name, value, note));
        return this;
    }

    /// <summary>One line with a number in four significant digits.</summary>
    public Report Add(string name, double value, string note = "") => Add(name, Number(value), note);

    /// <summary>Writes what has been added.</summary>
    public void Write()
    {
        if (_rows.Count == 0) return;
        var grid = new Grid { Expand = false };
        grid.AddColumn(new GridColumn().PadLeft(2).PadRight(2).NoWrap());
        grid.AddColumn(new GridColumn().PadLeft(0).PadRight(2).NoWrap());
        grid.AddColumn(new GridColumn().PadLeft(0).PadRight(0).NoWrap());
        foreach (var (name, value, note) in _rows) grid.AddRow(new Text(name), new Text(value), new Text(note));
        var text = new StringWriter(CultureInfo.InvariantCulture);
        var console = AnsiConsole.Create(new AnsiConsoleSettings { Ansi = AnsiSupport.No, ColorSystem = ColorSystemSupport.NoColors, Out = new AnsiConsoleOutput(text) });
        console.Profile.Width = 200;
        console.Write(grid);
        foreach (var line in text.ToString().Split('\n')) if (line.Length > 0) output.WriteLine(line.TrimEnd());
        _rows.Clear();
    }

    /// <summary>A number as people read it.</summary>
    public static string Number(double value) => value switch
    {
        double.NaN => "not defined",
        0 => "0",
        _ when Math.Abs(value) is >= 1e-3 and < 1e6 => value.ToString(Math.Abs(value) >= 100 ? "0.##" : "0.####", CultureInfo.InvariantCulture),
        _ => value.ToString("0.###e+0", CultureInfo.InvariantCulture),
    };
}
