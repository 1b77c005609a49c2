using IlgpuSae.Files;
using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Activations;

/// <summary>
/// Rows of a safetensors file, tensor <c>acts</c> [rows, d_in], F32, F16, BF16 or F64: in order or shuffled anew each
/// time round, starting again at the top when they end. Every batch is full, so one may reach over the end. Several
/// tensors, such as <c>acts</c> and <c>targets</c> of a transcoder, stand side by side in a row.
/// </summary>
public sealed class FileActivationSource : IActivationSource, IDisposable
{
    /// <summary>The tensor of an SAE's activations, or of what a transcoder reads.</summary>
    public const string Inputs = "acts";

    /// <summary>The tensor of what a transcoder is to give.</summary>
    public const string Targets = "targets";

    private readonly SafetensorsFile _file;
    private readonly ulong _seed;
    private readonly bool _shuffle;
    private float[] _values = [];
    private float[] _part = [];
    private int[]? _order;
    private int _next;

    /// <summary>Opens a file of activations.</summary>
    /// <param name="path">The safetensors file.</param>
    /// <param name="shuffle">Whether the rows are put in a new random order each time round.</param>
    /// <param name="seed">Seed of the order.</param>
    /// <param name="tensors">Names of the tensors, in the order of the columns; null: <c>acts</c> alone.</param>
    /// <exception cref="InvalidFileException">
    /// Missing, damaged, without such a tensor, not [rows, width] with at least one row, or tensors of different numbers of rows.
    /// </exception>
    public FileActivationSource(string path, bool shuffle = false, ulong seed = 0, IReadOnlyList<string>? tensors = null)
    {
        tensors ??= [Inputs];
        _shuffle = shuffle;
        _seed = seed;
        Path = path;
        _file = SafetensorsFile.Open(path);
        try
        {
            foreach (var tensor in tensors)
            {
                var rows = RowsOf(tensor);
                if (Rows != 0 && rows != Rows) throw new InvalidFileException(path, $"tensor \"{tensors[0]}\" has {Rows} rows but \"{tensor}\" has {rows}; row by row they belong to the same token");
                Rows = rows;
            }

            Blocks = ColumnBlock.SideBySide(tensors.Select(t => (t, (int)_file[t].Shape[1])));
            Width = Blocks.Sum(b => b.Width);
        }
        catch
        {
            _file.Dispose();
            throw;
        }
    }

    /// <summary>The file.</summary>
    public string Path { get; }

    /// <summary>Rows in the file.</summary>
    public int Rows { get; }

    /// <inheritdoc/>
    public int Width { get; }

    /// <inheritdoc/>
    /// <remarks>Named after the tensors.</remarks>
    public IReadOnlyList<ColumnBlock> Blocks { get; }

    /// <summary>How often the end was reached and the source began again.</summary>
    public int Wraps { get; private set; }

    /// <inheritdoc/>
    public Tensor? Next(TensorScope scope, int rows)
    {
        if (_values.Length != (long)rows * Width) _values = new float[(long)rows * Width];
        for (var done = 0; done < rows;)
        {
            if (_next == Rows)
            {
                _next = 0;
                Wraps++;
                _order = null;
            }

            var n = Math.Min(rows - done, Rows - _next);
            Read(_values.AsSpan(done * Width, n * Width), n);
            done += n;
            _next += n;
        }

        return scope.From<float>(_values, [rows, Width]);
    }

    /// <summary>Mean norm of all rows of the file, summed in double on the host; consumes none.</summary>
    /// <param name="device">Not used.</param>
    /// <param name="batchRows">Rows read at once.</param>
    /// <param name="columns">The columns whose norm is meant; null: all.</param>
    /// <returns>The mean norm.</returns>
    public double? MeanNorm(Device device, int batchRows, ColumnBlock? columns = null)
    {
        var (first, width) = columns is { } block ? (block.First, block.Width) : (0, Width);
        var values = new float[(long)Math.Min(batchRows, Rows) * Width];
        double sum = 0;
        for (var row = 0; row < Rows; row += batchRows)
        {
            var n = Math.Min(batchRows, Rows - row);
            ReadRows(values.AsSpan(0, n * Width), row);
            for (var r = 0; r < n; r++)
            {
                double squares = 0;
                foreach (var v in values.AsSpan((r * Width) + first, width)) squares += (double)v * v;
                sum += Math.Sqrt(squares);
            }
        }

        return sum / Rows;
    }

    /// <summary>Closes the file.</summary>
    public void Dispose() => _file.Dispose();

    private void Read(Span<float> values, int rows)
    {
        if (!_shuffle)
        {
            ReadRows(values, _next);
            return;
        }

        _order ??= Philox.Permutation(Rows, _seed, RandomStreams.Order((uint)Wraps));
        for (var i = 0; i < rows; i++)
            ReadRows(values.Slice(i * Width, Width), _order[_next + i]);
    }

    /// <summary>Rows that follow each other in the file, from <paramref name="row"/> on.</summary>
    private void ReadRows(Span<float> values, int row)
    {
        if (Blocks.Count == 1)
        {
            _file.ReadFloat32(Blocks[0].Name, values, (long)row * Width);
            return;
        }

        var rows = values.Length / Width;
        foreach (var (name, first, width) in Blocks)
        {
            if (_part.Length < rows * width) _part = new float[rows * width];
            var part = _part.AsSpan(0, rows * width);
            _file.ReadFloat32(name, part, (long)row * width);
            for (var r = 0; r < rows; r++) part.Slice(r * width, width).CopyTo(values[((r * Width) + first)..]);
        }
    }

    private int RowsOf(string tensor)
    {
        var shape = _file[tensor].Shape;
        var found = $"tensor \"{tensor}\" is [{string.Join(", ", shape)}]";
        if (shape.Count != 2) throw new InvalidFileException(Path, $"{found}; activations are [rows, d_in]");
        if (shape[0] < 1 || shape[1] < 1) throw new InvalidFileException(Path, $"{found}: there are no activations in it");
        if (shape[0] > int.MaxValue || shape[1] > int.MaxValue) throw new InvalidFileException(Path, $"{found}; at most {int.MaxValue} rows are read from one file");
        return (int)shape[0];
    }
}
