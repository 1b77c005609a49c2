using System.Globalization;
using System.IO.Compression;
using System.Text.Json.Nodes;

namespace IlgpuSae.Files;

/// <summary>A tensor of a PyTorch file.</summary>
/// <param name="Name">Keys that lead to it, joined by dots: <c>encoder.weight</c>, <c>state_dict.W_enc</c>.</param>
/// <param name="Type">Element type.</param>
/// <param name="Shape">Sizes of its axes; empty for a scalar.</param>
public sealed record PyTorchEntry(string Name, SafetensorsType Type, IReadOnlyList<long> Shape);

/// <summary>
/// What torch.save wrote (<c>.pt</c>, <c>.pth</c>), zip archive or early format, or a plain pickle of tensors, gzipped or not
/// (<c>.pkl.gz</c>). Such files are programs for Python's pickle machine; here a small interpreter builds tensors,
/// dictionaries, lists, texts and numbers, and refuses everything else by name. Nothing is ever executed. Tensors are
/// read when asked for.
/// </summary>
public sealed class PyTorchFile : IDisposable
{
    private const int MaxDepth = 16;
    private const int MaxValues = 100_000;

    /// <summary>Weights shrink by a tenth, not to a hundredth.</summary>
    private const long MaxGzipRatio = 100;

    private readonly IDisposable _source;
    private readonly Dictionary<string, PickleTensor> _tensors = new(StringComparer.Ordinal);
    private readonly List<PyTorchEntry> _entries = [];
    private int _values;

    private PyTorchFile(string path, IDisposable source)
    {
        Path = path;
        _source = source;
    }

    /// <summary>The file, as the user named it.</summary>
    public string Path { get; }

    /// <summary>All tensors, in the file's order.</summary>
    public IReadOnlyList<PyTorchEntry> Tensors => _entries;

    /// <summary>
    /// Everything that is no tensor: texts, numbers, lists, nested dictionaries. Objects of SAELens' early settings appear as
    /// their fields.
    /// </summary>
    public JsonObject Values { get; private set; } = [];

    /// <summary>Opens a file and interprets its pickle.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="InvalidFileException">
    /// Missing, damaged, of no known kind, reaching out of its own storages, or asking for anything but tensors and plain values.
    /// </exception>
    public static PyTorchFile Open(string path)
    {
        var stream = PlainFile.OpenRead(path);
        try
        {
            Span<byte> start = stackalloc byte[4];
            var n = stream.ReadAtLeast(start, 4, throwOnEndOfStream: false);
            stream.Position = 0;
            return start[..n] switch
            {
                [(byte)'P', (byte)'K', ..] => OfZip(path, stream),
                [0x1f, 0x8b, ..] => OfPickle(path, Unzipped(path, stream)),
                [0x80, ..] or [(byte)'(' or (byte)'c' or (byte)'}', ..] => OfPickle(path, stream),
                _ => throw new InvalidFileException(path, "is neither a zip archive nor a pickle, so no file of PyTorch (tar archives, which it wrote before 0.2, are not read)"),
            };
        }
        catch (Exception e) when (ReadFailure.Explain(path, e) is { } explained)
        {
            stream.Dispose();
            throw explained;
        }
        catch
        {
            stream.Dispose();
            throw;
        }
    }

    /// <summary>Whether a tensor of that name exists.</summary>
    /// <param name="name">Its name.</param>
    public bool Contains(string name) => _tensors.ContainsKey(name);

    /// <summary>Type and shape of a tensor.</summary>
    /// <param name="name">Its name.</param>
    /// <exception cref="InvalidFileException">There is none of that name.</exception>
    public PyTorchEntry this[string name]
    {
        get
        {
            var tensor = Find(name);
            return new PyTorchEntry(name, tensor.Type, tensor.Shape);
        }
    }

    /// <summary>A floating-point tensor (F32, F16, BF16, F64) as single precision, row-major.</summary>
    /// <param name="name">Its name.</param>
    /// <exception cref="InvalidFileException">No such tensor, another type, unreadable, or more than an array can hold.</exception>
    public float[] ReadFloat32(string name)
    {
        var tensor = Find(name);
        if (!ElementConversion.IsFloat(tensor.Type)) throw new InvalidFileException(Path, $"tensor {Say.Quote(name)} has dtype {tensor.Type}, expected F32, F16, BF16 or F64");
        return Read<float>(name, tensor, (stream, values) =>
        {
            ElementStream.ReadFloat32(stream, tensor.Type, values);
            return null;
        });
    }

    /// <summary>An integer or boolean tensor as 64-bit integers, row-major.</summary>
    /// <param name="name">Its name.</param>
    /// <exception cref="InvalidFileException">No such tensor, another type, unreadable, or a number beyond 64 bits.</exception>
    public long[] ReadInt64(string name)
    {
        var tensor = Find(name);
        if (!ElementConversion.IsInteger(tensor.Type)) throw new InvalidFileException(Path, $"tensor {Say.Quote(name)} has dtype {tensor.Type}, expected an integer type");
        return Read<long>(name, tensor, (stream, values) => ElementStream.ReadInt64(stream, tensor.Type, values));
    }

    /// <summary>Closes the file.</summary>
    public void Dispose() => _source.Dispose();

    private delegate ulong? Fill<T>(Stream stream, Span<T> values);

    private static PyTorchFile OfZip(string path, FileStream stream)
    {
        var zip = BoundedZip.Open(path, stream);
        try
        {
            return new PyTorchFile(path, zip).Take(PyTorchZip.Read(zip));
        }
        catch
        {
            zip.Dispose();
            throw;
        }
    }

    private static PyTorchFile OfPickle(string path, Stream stream)
    {
        var globals = new PyTorchGlobals(path,
            (key, _, _) => throw new InvalidFileException(path, $"its pickle refers to storage {Say.Quote(key)}, which it does not hold"), bytes => Nested(path, bytes));
        var value = new PickleReader(path, stream, stream.Length - stream.Position, globals).Read();
        if (value == (object)PyTorchLegacy.MagicValue) value = PyTorchLegacy.ReadAfterMagic(path, stream, at => From(stream, at));
        return new PyTorchFile(path, stream).Take(value);
    }

    /// <summary>The one storage that a plain pickle holds as a file of the early format.</summary>
    private static PyTorchStorage Nested(string path, byte[] bytes)
    {
        if (bytes is [(byte)'P', (byte)'K', ..]) throw new InvalidFileException(path, "its pickle holds a zip archive as a storage, which PyTorch does not write");
        var stream = new MemoryStream(bytes, writable: false);
        var globals = new PyTorchGlobals(path, (key, _, _) => throw new InvalidFileException(path, $"its pickle refers to storage {Say.Quote(key)} too early"), null);
        var magic = new PickleReader(path, stream, stream.Length, globals).Read();
        if (magic != (object)PyTorchLegacy.MagicValue) throw new InvalidFileException(path, "its pickle holds bytes as a storage that are none");
        return PyTorchLegacy.ReadAfterMagic(path, stream, at => From(stream, at)) as PyTorchStorage
            ?? throw new InvalidFileException(path, "its pickle holds bytes as a storage that are something else");
    }

    private static Unowned From(Stream stream, long at)
    {
        stream.Position = at;
        return new Unowned(stream);
    }

    private static MemoryStream Unzipped(string path, FileStream stream)
    {
        var most = Math.Min(Array.MaxLength, (1L << 26) + (MaxGzipRatio * stream.Length));
        var whole = new MemoryStream();
        try
        {
            using var gzip = new GZipStream(stream, CompressionMode.Decompress);
            var buffer = new byte[1 << 16];
            for (var n = gzip.Read(buffer); n > 0; n = gzip.Read(buffer))
            {
                if (whole.Length + n > most) throw new InvalidFileException(path, $"unpacks to more than {most} bytes; weights do not shrink so far, so it is not read");
                whole.Write(buffer, 0, n);
            }
        }
        catch (InvalidDataException e)
        {
            throw new InvalidFileException(path, $"cannot be unpacked: {AtomicFile.OneLine(e.Message)}", e);
        }

        whole.Position = 0;
        return whole;
    }

    private PyTorchFile Take(object? value)
    {
        if (value is PickleTensor alone) Add("tensor", alone);
        else if (Json("", value, 0) is JsonObject values) Values = values;
        else throw new InvalidFileException(Path, "holds no dictionary of tensors");
        return this;
    }

    /// <summary>Tensors are entered under their names; the rest becomes JSON.</summary>
    private JsonNode? Json(string name, object? value, int depth)
    {
        if (depth > MaxDepth || ++_values > MaxValues) throw new InvalidFileException(Path, $"nests its values deeper than {MaxDepth} or has more than {MaxValues} of them");
        switch (value)
        {
            case PickleTensor tensor:
                Add(name, tensor);
                return null;
            case PickleDict dict:
                return Fields(name, dict, depth);
            case PickleRecord record:
                return Fields(name, record.Fields, depth);
            case PickleTuple tuple:
                return Items(name, tuple.Items, depth);
            case List<object?> list:
                return Items(name, list, depth);
            case string text:
                return text;
            case bool truth:
                return truth;
            case long whole:
                return whole;
            case double number when double.IsFinite(number):
                return number;
            case PickleDType type:
                return type.Type switch
                {
                    SafetensorsType.F32 => "torch.float32",
                    SafetensorsType.F16 => "torch.float16",
                    SafetensorsType.BF16 => "torch.bfloat16",
                    SafetensorsType.F64 => "torch.float64",
                    var other => other.ToString(),
                };
            default:
                return null;
        }
    }

    private JsonObject Fields(string name, PickleDict dict, int depth)
    {
        var json = new JsonObject();
        foreach (var (key, value) in dict.Pairs)
        {
            if (key is not (string or long)) continue;
            var own = Convert.ToString(key, CultureInfo.InvariantCulture)!;
            var node = Json(name.Length == 0 ? own : $"{name}.{own}", value, depth + 1);
            if (value is not PickleTensor) json[own] = node;
        }

        return json;
    }

    private JsonArray Items(string name, IReadOnlyList<object?> items, int depth)
    {
        var json = new JsonArray();
        for (var i = 0; i < items.Count; i++) json.Add(Json(string.Create(CultureInfo.InvariantCulture, $"{name}.{i}"), items[i], depth + 1));
        return json;
    }

    private void Add(string name, PickleTensor tensor)
    {
        if (!_tensors.TryAdd(name, tensor)) throw new InvalidFileException(Path, $"has two tensors named {Say.Quote(name)}");
        _entries.Add(new PyTorchEntry(name, tensor.Type, tensor.Shape));
    }

    private PickleTensor Find(string name) => _tensors.TryGetValue(name, out var tensor)
        ? tensor
        : throw new InvalidFileException(Path, $"has no tensor {Say.Quote(name)}; it has {Say.Some(_tensors.Keys, name)}");

    private T[] Read<T>(string name, PickleTensor tensor, Fill<T> fill) where T : unmanaged
    {
        var count = tensor.Shape.Aggregate(1L, (n, d) => n * d);
        if (count > Array.MaxLength) throw new InvalidFileException(Path, $"tensor {Say.Quote(name)} has {count} elements; at most {Array.MaxLength} can be loaded");
        if (count == 0) return [];
        var whole = Strided.IsContiguous(tensor.Shape, tensor.Strides);
        var span = whole ? count : 1 + tensor.Shape.Zip(tensor.Strides, (size, step) => (size - 1) * step).Sum();
        if (span > Array.MaxLength) throw new InvalidFileException(Path, $"tensor {Say.Quote(name)} is strewn over {span} elements; at most {Array.MaxLength} can be loaded");
        var values = new T[span];
        using var stream = tensor.Storage.Open!();
        ulong? misfit;
        try
        {
            ElementStream.Skip(stream, tensor.Offset * (tensor.Type.Bits() / 8));
            misfit = fill(stream, values);
        }
        catch (Exception e) when (ReadFailure.Explain(Path, e) is { } explained)
        {
            throw explained;
        }

        if (misfit is not null) throw new InvalidFileException(Path, $"tensor {Say.Quote(name)} holds {misfit}, which does not fit 64 bits with a sign");
        if (whole) return values;
        var result = new T[count];
        Strided.Gather<T>(values, 0, tensor.Shape, tensor.Strides, result);
        return result;
    }

    /// <summary>A stream that is not closed by those who read from it.</summary>
    private sealed class Unowned(Stream inner) : Stream
    {
        public override bool CanRead => true;

        public override bool CanSeek => true;

        public override bool CanWrite => false;

        public override long Length => inner.Length;

        public override long Position { get => inner.Position; set => inner.Position = value; }

        public override int Read(byte[] buffer, int offset, int count) => inner.Read(buffer, offset, count);

        public override int Read(Span<byte> buffer) => inner.Read(buffer);

        public override long Seek(long offset, SeekOrigin origin) => inner.Seek(offset, origin);

        public override void Flush()
        {
        }

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();
    }
}
