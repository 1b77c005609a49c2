using System.Diagnostics;

namespace IlgpuSae.Cli;

/// <summary>
/// Progress on the error stream: on a terminal one line that is rewritten a few times a second, in a file or pipe a
/// new line every few seconds.
/// </summary>
internal sealed class ProgressLine(TextWriter error, bool silent)
{
    private readonly bool _rewrite = ReferenceEquals(error, Console.Error) && !Console.IsErrorRedirected;
    private long _last;
    private bool _open;

    public void Show(string line, bool force)
    {
        if (silent) return;
        var wait = _rewrite ? 0.2 : 5;
        if (!force && _last != 0 && Stopwatch.GetElapsedTime(_last).TotalSeconds < wait) return;
        _last = Stopwatch.GetTimestamp();
        if (_rewrite)
        {
            var width = Math.Max(20, Console.WindowWidth - 1);
            error.Write("\r" + (line.Length > width ? line[..width] : line.PadRight(width)));
            _open = true;
        }
        else
        {
            error.WriteLine(line);
        }
    }

    public void End()
    {
        if (_open) error.WriteLine();
        _open = false;
    }
}
