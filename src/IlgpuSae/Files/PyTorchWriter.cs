using System.IO.Compression;
using System.Runtime.InteropServices;
using System.Text;

namespace IlgpuSae.Files;

/// <summary>
/// Writes a state dictionary as torch.save does: a zip archive with a pickle of protocol 2 and one stored entry for each
/// tensor. torch.load reads it with <c>weights_only</c>: the pickle names nothing but OrderedDict, _rebuild_tensor_v2 and storage
/// types. Same tensors, same bytes.
/// </summary>
public sealed class PyTorchWriter
{
    private static readonly DateTimeOffset Beginning = new(1980, 1, 1, 0, 0, 0, TimeSpan.Zero);

    private readonly List<(string Name, string Storage, long[] Shape, ReadOnlyMemory<byte> Bytes, long Count)> _tensors = [];

    /// <summary>Adds a tensor of single precision.</summary>
    /// <param name="name">Its name, unique within the file.</param>
    /// <param name="shape">Sizes of its axes; empty for a scalar.</param>
    /// <param name="values">Row-major.</param>
    /// <exception cref="InvalidInputException">The name is taken, or the count is not that of the shape.</exception>
    public PyTorchWriter Add(string name, IReadOnlyList<long> shape, float[] values) => Add(name, "FloatStorage", shape, values);

    /// <summary>Adds a tensor of 32-bit integers.</summary>
    /// <param name="name">Its name, unique within the file.</param>
    /// <param name="shape">Sizes of its axes; empty for a scalar.</param>
    /// <param name="values">Row-major.</param>
    /// <exception cref="InvalidInputException">The name is taken, or the count is not that of the shape.</exception>
    public PyTorchWriter Add(string name, IReadOnlyList<long> shape, int[] values) => Add(name, "IntStorage", shape, values);

    /// <summary>Writes the file, whole or not at all; an existing file is replaced.</summary>
    /// <param name="path">The file; missing parent folders are created.</param>
    /// <exception cref="IlgpuSaeException">It cannot be written.</exception>
    public void Save(string path) => AtomicFile.Write(path, stream =>
    {
        using var zip = new ZipArchive(stream, ZipArchiveMode.Create, leaveOpen: true);
        Entry(zip, "archive/data.pkl", Pickle());
        Entry(zip, "archive/byteorder", "little"u8.ToArray());
        for (var i = 0; i < _tensors.Count; i++) Entry(zip, $"archive/data/{i}", _tensors[i].Bytes);
        Entry(zip, "archive/version", "3\n"u8.ToArray());
    }, _tensors.Sum(t => (long)t.Bytes.Length));

    private static void Entry(ZipArchive zip, string name, ReadOnlyMemory<byte> content)
    {
        var entry = zip.CreateEntry(name, CompressionLevel.NoCompression);
        entry.LastWriteTime = Beginning;
        using var stream = entry.Open();
        stream.Write(content.Span);
    }

    private PyTorchWriter Add<T>(string name, string storage, IReadOnlyList<long> shape, T[] values) where T : unmanaged
    {
        if (_tensors.Exists(t => t.Name == name)) throw new InvalidInputException($"pt: tensor {Say.Quote(name)} was added twice");
        if (shape.Aggregate(1L, (n, d) => n * d) != values.LongLength)
            throw new InvalidInputException($"pt: tensor {Say.Quote(name)} of shape {SafetensorsHeader.Show(shape)} was given {values.Length} elements");
        if (values.Length > Array.MaxLength / Marshal.SizeOf<T>()) throw new InvalidInputException($"pt: tensor {Say.Quote(name)} has {values.Length} elements, too many to be written at once");
        _tensors.Add((name, storage, [.. shape], MemoryMarshal.AsBytes(values.AsSpan()).ToArray(), values.Length));
        return this;
    }

    private byte[] Pickle()
    {
        var pickle = new MemoryStream();
        void Raw(params ReadOnlySpan<byte> bytes) => pickle.Write(bytes);
        void Op(PickleOp op) => pickle.WriteByte((byte)op);
        void Text(string text)
        {
            var bytes = Encoding.UTF8.GetBytes(text);
            Op(PickleOp.BinUnicode);
            Raw(BitConverter.GetBytes(bytes.Length));
            Raw(bytes);
        }

        void Global(string module, string name)
        {
            Op(PickleOp.Global);
            Raw(Encoding.ASCII.GetBytes($"{module}\n{name}\n"));
        }

        void Integer(long value)
        {
            if (value == (int)value)
            {
                Op(PickleOp.BinInt);
                Raw(BitConverter.GetBytes((int)value));
                return;
            }

            Op(PickleOp.Long1);
            pickle.WriteByte(8);
            Raw(BitConverter.GetBytes(value));
        }

        void Integers(IEnumerable<long> values)
        {
            Op(PickleOp.Mark);
            foreach (var v in values) Integer(v);
            Op(PickleOp.Tuple);
        }

        void Ordered()
        {
            Global("collections", "OrderedDict");
            Op(PickleOp.EmptyTuple);
            Op(PickleOp.Reduce);
        }

        Raw((byte)PickleOp.Proto, 2);
        Ordered();
        Op(PickleOp.Mark);
        for (var i = 0; i < _tensors.Count; i++)
        {
            var (name, storage, shape, _, count) = _tensors[i];
            var strides = new long[shape.Length];
            long step = 1;
            for (var axis = shape.Length - 1; axis >= 0; axis--) (strides[axis], step) = (step, step * shape[axis]);
            Text(name);
            Global("torch._utils", "_rebuild_tensor_v2");
            Op(PickleOp.Mark);
            Op(PickleOp.Mark);
            Text("storage");
            Global("torch", storage);
            Text(i.ToString(System.Globalization.CultureInfo.InvariantCulture));
            Text("cpu");
            Integer(count);
            Op(PickleOp.Tuple);
            Op(PickleOp.BinPersId);
            Integer(0);
            Integers(shape);
            Integers(strides);
            Op(PickleOp.NewFalse);
            Ordered();
            Op(PickleOp.Tuple);
            Op(PickleOp.Reduce);
        }

        Op(PickleOp.SetItems);
        Op(PickleOp.Stop);
        return pickle.ToArray();
    }
}
