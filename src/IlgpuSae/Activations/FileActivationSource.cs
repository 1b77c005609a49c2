using IlgpuSae.Files;
using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Activations;

/// <summary>
/// Rows of a safetensors file, tensor <c>acts</c> [rows, d_in], F32, F16, BF16 or F64: in order or shuffled anew each
/// time round, starting again at the top when they end. Every batch is full, so one may reach over the end.
/// </summary>
public sealed class FileActivationSource : IActivationSource, IDisposable
{
    private readonly SafetensorsFile _file;
    private readonly string _tensor;
    private readonly ulong _seed;
    private readonly bool _shuffle;
    private float[] _values = [];
    private int[]? _order;
    private int _next;

    /// <summary>Opens a file of activations.</summary>
    /// <param name="path">The safetensors file.</param>
    /// <param name="shuffle">Whether the rows are put in a new random order each time round.</param>
    /// <param name="seed">Seed of the order.</param>
    /// <param name="tensor">Name of the tensor.</param>
    /// <exception cref="InvalidFileException">Missing, damaged, without such a tensor, or not [rows, d_in] with at least one row.</exception>
    public FileActivationSource(string path, bool shuffle = false, ulong seed = 0, string tensor = "acts")
    {
        _tensor = tensor;
        _shuffle = shuffle;
        _seed = seed;
        Path = path;
        _file = SafetensorsFile.Open(path);
        try
        {
            var shape = _file[tensor].Shape;
            if (shape.Count != 2) throw new InvalidFileException(path, $"tensor \"{tensor}\" is [{string.Join(", ", shape)}]; activations are [rows, d_in]");
            if (shape[0] < 1 || shape[1] < 1) throw new InvalidFileException(path, $"tensor \"{tensor}\" is [{string.Join(", ", shape)}]: there are no activations in it");
            if (shape[0] > int.MaxValue || shape[1] > int.MaxValue) throw new InvalidFileException(path, $"tensor \"{tensor}\" is [{string.Join(", ", shape)}]; at most {int.MaxValue} rows are read from one file");
            Rows = (int)shape[0];
            Width = (int)shape[1];
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
    /// <returns>The mean norm.</returns>
    public double? MeanNorm(Device device, int batchRows)
    {
        var values = new float[(long)Math.Min(batchRows, Rows) * Width];
        double sum = 0;
        for (var row = 0; row < Rows; row += batchRows)
        {
            var n = Math.Min(batchRows, Rows - row);
            _file.ReadFloat32(_tensor, values.AsSpan(0, n * Width), (long)row * Width);
            for (var r = 0; r < n; r++)
            {
                double squares = 0;
                foreach (var v in values.AsSpan(r * Width, Width)) squares += (double)v * v;
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
            _file.ReadFloat32(_tensor, values, (long)_next * Width);
            return;
        }

        _order ??= Philox.Permutation(Rows, _seed, RandomStreams.Order((uint)Wraps));
        for (var i = 0; i < rows; i++)
            _file.ReadFloat32(_tensor, values.Slice(i * Width, Width), (long)_order[_next + i] * Width);
    }
}
