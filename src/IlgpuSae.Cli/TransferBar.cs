using System.Globalization;
using IlgpuSae.Hub;

namespace IlgpuSae.Cli;

/// <summary>One file's transfer as a line: name, bar, share, bytes, rate, time left.</summary>
internal static class TransferBar
{
    private const int Cells = 24;

    public static string Line(HubProgress p)
    {
        var c = CultureInfo.InvariantCulture;
        var rate = p.BytesPerSecond > 0 ? $"  {Size(p.BytesPerSecond)}/s" : "";
        if (p.TotalBytes is not { } total) return $"{p.Path}  {Size(p.Bytes)}{rate}";
        var share = total == 0 ? 1 : Math.Clamp((double)p.Bytes / total, 0, 1);
        var full = (int)(share * Cells);
        var left = p.Done || p.TimeLeft is not { } time ? "" : time.TotalHours >= 1 ? $"  {time.ToString(@"h\:mm\:ss", c)} left" : $"  {time.ToString(@"m\:ss", c)} left";
        return string.Create(c, $"{p.Path}  [{new string('#', full)}{new string('.', Cells - full)}] {share * 100:0}%  {Size(p.Bytes)} of {Size(total)}{rate}{left}");
    }

    /// <summary>Bytes as people read them, thousands of thousands.</summary>
    public static string Size(double bytes) => bytes switch
    {
        >= 1e9 => (bytes / 1e9).ToString("0.00 GB", CultureInfo.InvariantCulture),
        >= 1e6 => (bytes / 1e6).ToString("0.0 MB", CultureInfo.InvariantCulture),
        >= 1e3 => (bytes / 1e3).ToString("0.0 kB", CultureInfo.InvariantCulture),
        _ => bytes.ToString("0 B", CultureInfo.InvariantCulture),
    };
}
