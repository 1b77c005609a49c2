namespace IlgpuSae.Runs;

/// <summary>"Did you mean": known names near to one that is not known.</summary>
public static class NearNames
{
    /// <summary>The nearest known name by edit distance, if it is near enough to be meant.</summary>
    /// <param name="name">The name that is not known.</param>
    /// <param name="known">Those that are.</param>
    /// <returns>null if none is near.</returns>
    public static string? Find(string name, IEnumerable<string> known)
    {
        var best = known
            .Select(k => (Name: k, Distance: Distance(name, k)))
            .OrderBy(k => k.Distance)
            .ThenBy(k => k.Name, StringComparer.Ordinal)
            .FirstOrDefault();
        return best.Name is not null && best.Distance <= Math.Max(2, name.TrimStart('-').Length / 3) ? best.Name : null;
    }

    /// <summary><c>; did you mean NAME?</c>, or nothing.</summary>
    /// <param name="name">The name that is not known.</param>
    /// <param name="known">Those that are.</param>
    public static string Advice(string name, IEnumerable<string> known) => Find(name, known) is { } near ? $"; did you mean {near}?" : "";

    /// <summary>Edits (insert, delete, replace, swap of neighbours) that turn one word into the other.</summary>
    internal static int Distance(string a, string b)
    {
        var d = new int[a.Length + 1, b.Length + 1];
        for (var i = 0; i <= a.Length; i++) d[i, 0] = i;
        for (var j = 0; j <= b.Length; j++) d[0, j] = j;
        for (var i = 1; i <= a.Length; i++)
        {
            for (var j = 1; j <= b.Length; j++)
            {
                var replace = d[i - 1, j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
                d[i, j] = Math.Min(replace, Math.Min(d[i - 1, j], d[i, j - 1]) + 1);
                if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) d[i, j] = Math.Min(d[i, j], d[i - 2, j - 2] + 1);
            }
        }

        return d[a.Length, b.Length];
    }
}
