using IlgpuSae.Files;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes.Formats;

/// <summary>Named tensors of a safetensors, NumPy or PyTorch file, for mapping to SAELens' names and shapes.</summary>
internal sealed class WeightFile : IDisposable
{
    private readonly IDisposable _file;
    private readonly string _prefix;
    private readonly Func<string, (SafetensorsType Type, IReadOnlyList<long> Shape)> _entry;
    private readonly Func<string, float[]> _floats;
    private readonly Func<string, long[]> _integers;

    private WeightFile(string path, IDisposable file, IEnumerable<string> names, string prefix,
        Func<string, (SafetensorsType, IReadOnlyList<long>)> entry, Func<string, float[]> floats, Func<string, long[]> integers)
    {
        Path = path;
        _file = file;
        _prefix = prefix;
        Names = [.. names.Where(n => n.StartsWith(prefix, StringComparison.Ordinal)).Select(n => n[prefix.Length..])];
        (_entry, _floats, _integers) = (entry, floats, integers);
    }

    /// <summary>The file, as the user named it.</summary>
    public string Path { get; }

    /// <summary>Names of the tensors.</summary>
    public IReadOnlyList<string> Names { get; }

    /// <summary>Opens a file by the end of its name.</summary>
    /// <param name="path">The file.</param>
    /// <param name="prefix">Tensors whose names begin so, which is cut off.</param>
    /// <exception cref="InvalidFileException">It cannot be used.</exception>
    public static WeightFile Open(string path, string prefix = "")
    {
        if (path.EndsWith(".safetensors", StringComparison.Ordinal))
        {
            var file = SafetensorsFile.Open(path);
            return new WeightFile(path, file, file.Names, prefix, n => (file[n].Type, file[n].Shape), n => file.ReadFloat32(n), n => file.ReadInt64(n));
        }

        if (path.EndsWith(".npz", StringComparison.Ordinal))
        {
            var file = NpzFile.Open(path);
            return new WeightFile(path, file, file.Names, prefix, n => (file[n].Type, file[n].Shape), file.ReadFloat32, file.ReadInt64);
        }

        return Of(PyTorchFile.Open(path), prefix);
    }

    /// <summary>Takes an open PyTorch file over.</summary>
    /// <param name="file">The file.</param>
    /// <param name="prefix">Tensors whose names begin so, which is cut off.</param>
    public static WeightFile Of(PyTorchFile file, string prefix = "") =>
        new(file.Path, file, file.Tensors.Select(t => t.Name), prefix, n => (file[n].Type, file[n].Shape), file.ReadFloat32, file.ReadInt64);

    /// <summary>Whether a tensor exists.</summary>
    /// <param name="name">Its name.</param>
    public bool Contains(string name) => Names.Contains(name);

    /// <summary>Whether all of some tensors exist.</summary>
    /// <param name="names">Their names.</param>
    public bool Contains(params ReadOnlySpan<string> names)
    {
        foreach (var name in names)
            if (!Names.Contains(name)) return false;
        return true;
    }

    /// <summary>The first of some names that exists.</summary>
    /// <param name="names">Names that programs have used.</param>
    /// <exception cref="InvalidFileException">None of them does.</exception>
    public string FirstOf(params string[] names) => Array.Find(names, Contains)
        ?? throw new InvalidFileException(Path, $"has no tensor {names[0]}; it has {string.Join(", ", Names.Take(8))}");

    /// <summary>The sizes of a matrix.</summary>
    /// <param name="name">Its name.</param>
    /// <exception cref="InvalidFileException">There is none, or it is no matrix that can be loaded.</exception>
    public (int Rows, int Columns) Matrix(string name) => ShapeOf(name) is [var rows, var columns]
        ? (rows, columns)
        : throw new InvalidFileException(Path, $"tensor \"{name}\" is [{string.Join(", ", ShapeOf(name))}], expected a matrix");

    /// <summary>A tensor's shape.</summary>
    /// <param name="name">Its name.</param>
    /// <exception cref="InvalidFileException">There is none, or it is too large to be loaded.</exception>
    public int[] ShapeOf(string name)
    {
        var shape = Entry(name).Shape;
        if (shape.Aggregate((Int128)1, (n, d) => n * d) > Array.MaxLength || shape.Any(d => d > int.MaxValue))
            throw new InvalidFileException(Path, $"tensor \"{name}\" is [{string.Join(", ", shape)}]; at most {Array.MaxLength} elements can be loaded");
        return [.. shape.Select(d => (int)d)];
    }

    /// <summary>The element type in SAELens' spelling.</summary>
    /// <param name="name">A tensor.</param>
    public string DtypeOf(string name) => Entry(name).Type switch
    {
        SafetensorsType.BF16 => "bfloat16",
        SafetensorsType.F16 => "float16",
        SafetensorsType.F64 => "float64",
        _ => "float32",
    };

    /// <summary>A tensor's values, row-major.</summary>
    /// <param name="name">Its name.</param>
    /// <exception cref="InvalidFileException">There is none, or it is of another type.</exception>
    public float[] Floats(string name)
    {
        ShapeOf(name);
        return _floats(_prefix + name);
    }

    /// <summary>The one integer or number of a tensor.</summary>
    /// <param name="name">Its name.</param>
    /// <exception cref="InvalidFileException">There is none, or it has more elements.</exception>
    public double Scalar(string name)
    {
        var entry = Entry(name);
        if (entry.Shape.Any(d => d != 1)) throw new InvalidFileException(Path, $"tensor \"{name}\" is [{string.Join(", ", entry.Shape)}], expected one number");
        return entry.Type is SafetensorsType.F32 or SafetensorsType.F16 or SafetensorsType.BF16 or SafetensorsType.F64
            ? _floats(_prefix + name)[0]
            : _integers(_prefix + name)[0];
    }

    /// <summary>A tensor under SAELens' name.</summary>
    /// <param name="name">Its name here.</param>
    /// <param name="target">Its name there.</param>
    /// <param name="transposed">Whether it is the transpose of SAELens'.</param>
    /// <exception cref="InvalidFileException">There is none, or it is of another type or no matrix.</exception>
    public NamedValues Read(string name, string target, bool transposed = false)
    {
        if (!transposed) return new NamedValues(target, Shape.Create(ShapeOf(name)), Floats(name));
        var (rows, columns) = Matrix(name);
        return new NamedValues(target, [columns, rows], Sae.Transposed(Floats(name), rows, columns));
    }

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();

    private (SafetensorsType Type, IReadOnlyList<long> Shape) Entry(string name) => Names.Contains(name)
        ? _entry(_prefix + name)
        : throw new InvalidFileException(Path, $"has no tensor {name}; it has {string.Join(", ", Names.Take(8))}");
}
