using System.Text;

namespace IlgpuSae.Datasets;

/// <summary>
/// Documents of a text file: the whole file, or what stands between separators; empty ones do not count. A document of
/// more than four million characters comes in parts that end with a line, so that memory stays flat.
/// </summary>
/// <param name="separator">Ends a document; empty: nothing does.</param>
internal sealed class TextFileReader(string separator) : RowReader
{
    private const int MostChars = 4_000_000;

    /// <inheritdoc/>
    public override IReadOnlyList<string> Columns(string file) => ["text"];

    /// <inheritdoc/>
    public override DataColumnKind KindOf(string file, string column) => DataColumnKind.Text;

    /// <inheritdoc/>
    public override IEnumerable<DataRow?> Rows(string file, string column, DataColumnKind kind, long from, Action<long, string> malformed)
    {
        var row = 0L;
        foreach (var text in Documents(file))
            if (row++ >= from) yield return new DataRow { Text = text };
    }

    private IEnumerable<string> Documents(string file)
    {
        // As File.ReadAllText decodes: a byte-order mark is heeded, bytes that are no UTF-8 are U+FFFD.
        using var reader = new StreamReader(DatasetFiles.Open(file), Encoding.UTF8, detectEncodingFromByteOrderMarks: true, 1 << 16);
        var held = new StringBuilder();
        var buffer = new char[1 << 16];
        var searched = 0; // how far no separator begins
        for (int n; (n = reader.ReadBlock(buffer)) > 0;)
        {
            held.Append(buffer, 0, n);
            if (separator.Length > 0)
            {
                var text = held.ToString(searched, held.Length - searched);
                var done = 0;
                for (int at; (at = text.IndexOf(separator, done, StringComparison.Ordinal)) >= 0; done = at + separator.Length)
                {
                    var document = done == 0 ? held.ToString(0, searched) + text[..at] : text[done..at];
                    if (document.Length > 0) yield return document;
                }

                if (done > 0)
                {
                    held.Clear().Append(text, done, text.Length - done);
                    searched = 0;
                }

                searched = Math.Max(searched, held.Length - separator.Length + 1);
            }

            if (held.Length < MostChars) continue;
            var whole = held.ToString();
            var end = whole.Length - Math.Max(1, separator.Length); // a separator may have begun
            var cut = whole.LastIndexOf('\n', end) + 1;
            if (cut < MostChars / 2) cut = char.IsLowSurrogate(whole[end]) ? end - 1 : end; // no lines
            yield return whole[..cut];
            held.Clear().Append(whole, cut, whole.Length - cut);
            searched = Math.Max(0, held.Length - Math.Max(0, separator.Length - 1));
        }

        if (held.Length > 0) yield return held.ToString();
    }
}
