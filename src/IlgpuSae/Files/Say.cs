using System.Text;

namespace IlgpuSae.Files;

/// <summary>Foreign text in messages: quoted, on one line, not longer than a line can bear.</summary>
internal static class Say
{
    private const int Longest = 120;

    /// <summary>The text in double quotes, control characters and lone surrogates shown as \uXXXX, cut when long.</summary>
    /// <param name="text">A name or value found in a file.</param>
    public static string Quote(string text)
    {
        var s = new StringBuilder("\"");
        for (var i = 0; i < text.Length; i++)
        {
            if (s.Length > Longest)
            {
                s.Append('…');
                break;
            }

            var c = text[i];
            if (char.IsHighSurrogate(c) && i + 1 < text.Length && char.IsLowSurrogate(text[i + 1])) s.Append(c).Append(text[++i]);
            else if (char.IsControl(c) || char.IsSurrogate(c) || c is '\u2028' or '\u2029') s.Append("\\u").Append(((int)c).ToString("x4", System.Globalization.CultureInfo.InvariantCulture));
            else s.Append(c);
        }

        return s.Append('"').ToString();
    }

    /// <summary>A few of many names, for "it has: ...".</summary>
    /// <param name="names">All names.</param>
    /// <param name="wanted">The name that was asked for; near ones come first.</param>
    /// <param name="count">How many to show.</param>
    public static string Some(IReadOnlyCollection<string> names, string wanted, int count = 5)
    {
        if (names.Count == 0) return "nothing";
        var near = names.Select(n => (Name: n, Far: Distance(n, wanted))).OrderBy(n => n.Far).ThenBy(n => n.Name, StringComparer.Ordinal).Take(count);
        return string.Join(", ", near.Select(n => Quote(n.Name))) + (names.Count > count ? $" and {names.Count - count} more" : "");
    }

    /// <summary>Levenshtein distance of the first 64 characters: enough to find a slip of the keyboard.</summary>
    private static int Distance(string a, string b)
    {
        a = a.Length > 64 ? a[..64] : a;
        b = b.Length > 64 ? b[..64] : b;
        var row = Enumerable.Range(0, b.Length + 1).ToArray();
        for (var i = 1; i <= a.Length; i++)
        {
            var diagonal = row[0];
            row[0] = i;
            for (var j = 1; j <= b.Length; j++)
            {
                var above = row[j];
                row[j] = Math.Min(Math.Min(above, row[j - 1]) + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1));
                diagonal = above;
            }
        }

        return row[^1];
    }
}
