using System.Globalization;
using IlgpuSae.Files;

namespace IlgpuSae.Datasets;

/// <summary>
/// A data set on disk: a file, or a folder of them in the order of their names: .txt, .jsonl, .parquet, .arrow, the
/// first two also as .gz and .zst. A folder that Hugging Face's save_to_disk wrote is read in its own order; of
/// several splits the one called train is. Rows come one after another; memory does not grow with the files.
/// </summary>
public sealed class Dataset
{
    private static readonly string[] Known = ["tokens", "input_ids", "text", "problem", "messages"];
    private readonly DatasetOptions _options;
    private readonly MalformedRows _malformed;

    private Dataset(string path, List<string> files, DatasetOptions options)
    {
        Path = path;
        Files = files;
        _options = options;
        _malformed = new MalformedRows(path, options.MaxMalformedFraction);
        (Column, Kind) = Detect();
    }

    /// <summary>The path it was opened by.</summary>
    public string Path { get; }

    /// <summary>Its files, in order.</summary>
    public IReadOnlyList<string> Files { get; }

    /// <summary>The column that is read.</summary>
    public string Column { get; }

    /// <summary>What the column holds.</summary>
    public DataColumnKind Kind { get; }

    /// <summary>Malformed rows passed over so far.</summary>
    public long Malformed => _malformed.Count;

    /// <summary>What was malformed, in a sentence with file and line of the first few; null: nothing was.</summary>
    public string? MalformedNote => _malformed.Note;

    /// <summary>Opens a data set and looks at its first row.</summary>
    /// <param name="path">A file or a folder.</param>
    /// <param name="options">How to read it; null: defaults.</param>
    /// <exception cref="InvalidFileException">Nothing there that can be read, no known column, or a damaged file.</exception>
    public static Dataset Open(string path, DatasetOptions? options = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        options ??= new DatasetOptions();
        options.Validate();
        return new Dataset(path, DatasetFiles.Find(path), options);
    }

    /// <summary>The rows from a place to the end.</summary>
    /// <param name="from">Where to begin; null: at the first row.</param>
    /// <returns>Rows that are well-formed, each with the place before it and behind it.</returns>
    /// <exception cref="InvalidFileException">A file is damaged, or too many rows are malformed.</exception>
    public IEnumerable<(DataRow Row, DatasetCursor Before, DatasetCursor After)> Rows(DatasetCursor? from = null)
    {
        from ??= DatasetCursor.Start;
        for (var file = from.File; file < Files.Count; file++)
        {
            var row = file == from.File ? from.Row : 0;
            using var rows = Reader(Files[file]).Rows(Files[file], Column, Kind, row, (line, problem) => _malformed.Add(Files[file], line, problem)).GetEnumerator();
            while (Next(rows, Files[file]))
            {
                var before = new DatasetCursor(file, row++);
                _malformed.Seen(before);
                if (rows.Current is { } found) yield return (found, before, new DatasetCursor(file, row));
            }
        }
    }

    private static bool Next(IEnumerator<DataRow?> rows, string file)
    {
        try
        {
            return rows.MoveNext();
        }
        catch (Exception e) when (e is not (IlgpuSaeException or OutOfMemoryException or OperationCanceledException))
        {
            // The readers of compressed and columnar files throw what they like when a file is damaged.
            throw ReadFailure.Explain(file, e) ?? new InvalidFileException(file, $"is damaged: {AtomicFile.OneLine(e.Message)}", e);
        }
    }

    private RowReader Reader(string file) => DatasetFiles.Form(file) switch
    {
        ".txt" => new TextFileReader(_options.DocumentSeparator),
        ".jsonl" => new JsonLinesReader(),
        ".parquet" => new ParquetFileReader(),
        _ => new ArrowFileRowReader(),
    };

    private (string Column, DataColumnKind Kind) Detect()
    {
        foreach (var file in Files)
        {
            IReadOnlyList<string>? columns;
            try
            {
                columns = Reader(file).Columns(file);
            }
            catch (Exception e) when (e is not (IlgpuSaeException or OutOfMemoryException))
            {
                throw ReadFailure.Explain(file, e) ?? new InvalidFileException(file, $"is damaged: {AtomicFile.OneLine(e.Message)}", e);
            }

            if (columns is null) continue;
            var column = _options.Column is { } wanted
                ? columns.FirstOrDefault(c => c == wanted) ?? throw new InvalidFileException(file, $"has no column {Say.Quote(wanted)}; it has {Say.Some([.. columns], wanted)}")
                : Known.FirstOrDefault(k => columns.Contains(k)) ?? throw new InvalidFileException(file, $"has none of the columns tokens, input_ids, text, problem and messages; it has {Say.Some([.. columns], "text")}; name the column");
            return (column, Reader(file).KindOf(file, column));
        }

        throw new InvalidFileException(Path, "holds no row");
    }
}

/// <summary>Rows of one form of file.</summary>
internal abstract class RowReader
{
    /// <summary>The columns; null: the file has no row to tell.</summary>
    public abstract IReadOnlyList<string>? Columns(string file);

    /// <summary>What a column holds.</summary>
    public abstract DataColumnKind KindOf(string file, string column);

    /// <summary>The rows from one on; null for a malformed one, which <paramref name="malformed"/> is told of with its line.</summary>
    public abstract IEnumerable<DataRow?> Rows(string file, string column, DataColumnKind kind, long from, Action<long, string> malformed);
}

/// <summary>Counts malformed rows, remembers the first, and stops when they are too many. A row that is read again counts once.</summary>
internal sealed class MalformedRows(string path, double share)
{
    private const int Borne = 10;
    private const int Shown = 5;
    private readonly List<string> _first = [];
    private DatasetCursor _furthest = new(0, -1);
    private long _seen;
    private (string File, long Line) _last = ("", -1);

    /// <summary>How many there were.</summary>
    public long Count { get; private set; }

    /// <summary>All about them.</summary>
    public string? Note => Count == 0 ? null : string.Create(CultureInfo.InvariantCulture, $"{path}: {Count} malformed rows were passed over: {string.Join("; ", _first)}{(Count > Shown ? "; ..." : "")}");

    /// <summary>A row was read.</summary>
    public void Seen(DatasetCursor row)
    {
        if (row.File < _furthest.File || (row.File == _furthest.File && row.Row <= _furthest.Row)) return;
        _furthest = row;
        _seen++;
    }

    /// <summary>A row was malformed.</summary>
    public void Add(string file, long line, string problem)
    {
        if (string.CompareOrdinal(file, _last.File) < 0 || (file == _last.File && line <= _last.Line)) return;
        _last = (file, line);
        Count++;
        if (_first.Count < Shown) _first.Add(string.Create(CultureInfo.InvariantCulture, $"{file} line {line}: {problem}"));
        if (Count > Borne && Count > share * (_seen + 1))
            throw new InvalidFileException(path, string.Create(CultureInfo.InvariantCulture, $"{Count} of the first {_seen + 1} rows are malformed, more than max_malformed_fraction = {share} allows: {string.Join("; ", _first)}"));
    }
}
