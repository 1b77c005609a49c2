using System.Globalization;

namespace IlgpuSae.PeerBenchmarks;

/// <summary>Options of the form --name value.</summary>
internal sealed class Options(string[] args)
{
    public int Int(string name, int fallback) =>
        Text(name, "") is { Length: > 0 } text ? int.Parse(text, CultureInfo.InvariantCulture) : fallback;

    public string Text(string name, string fallback)
    {
        var at = Array.IndexOf(args, "--" + name);
        return at >= 0 && at + 1 < args.Length ? args[at + 1] : fallback;
    }
}
