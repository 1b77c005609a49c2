using System.Buffers.Binary;
using System.IO.Compression;
using System.Text;

namespace IlgpuSae.Testing;

/// <summary>A tensor for the writers of PyTorch's and NumPy's formats.</summary>
/// <param name="Storage">float[], double[], Half[], long[], int[] or byte[]; or ushort[] for bfloat16.</param>
/// <param name="Shape">Sizes of its axes.</param>
/// <param name="Strides">Distances; null: row-major.</param>
/// <param name="Offset">First element.</param>
internal sealed record TorchTensor(Array Storage, long[] Shape, long[]? Strides = null, long Offset = 0)
{
    public string StorageName => Storage switch
    {
        float[] => "FloatStorage",
        double[] => "DoubleStorage",
        Half[] => "HalfStorage",
        ushort[] => "BFloat16Storage",
        long[] => "LongStorage",
        int[] => "IntStorage",
        byte[] => "ByteStorage",
        _ => throw new ArgumentException("no storage type"),
    };

    public long[] RowMajor
    {
        get
        {
            var strides = new long[Shape.Length];
            long step = 1;
            for (var axis = Shape.Length - 1; axis >= 0; axis--) (strides[axis], step) = (step, step * Shape[axis]);
            return strides;
        }
    }

    public byte[] Bytes()
    {
        var bytes = new byte[Buffer.ByteLength(Storage is Half[] h ? Array.ConvertAll(h, BitConverter.HalfToUInt16Bits) : Storage)];
        Buffer.BlockCopy(Storage is Half[] halves ? Array.ConvertAll(halves, BitConverter.HalfToUInt16Bits) : Storage, 0, bytes, 0, bytes.Length);
        return bytes;
    }
}

/// <summary>A class instance as pickles of protocol 2 hold it.</summary>
internal sealed record TorchObject(string Module, string Name, Dictionary<string, object?> Fields);

/// <summary>A name that pickles import: <c>torch.float32</c>.</summary>
internal sealed record TorchGlobal(string Module, string Name);

/// <summary>
/// Writes pickles opcode by opcode, as Python's protocol 2 does, and PyTorch's files around them. Written for the tests,
/// apart from the reader: what it writes is what CPython and PyTorch write, byte by byte in structure.
/// </summary>
internal sealed class PickleText
{
    private readonly List<byte> _out = [];
    private readonly List<TorchTensor> _storages = [];
    private readonly bool _inline;

    public PickleText(bool inlineStorages = false)
    {
        _inline = inlineStorages;
        Raw(0x80, 2);
    }

    public IReadOnlyList<TorchTensor> Storages => _storages;

    public byte[] Bytes => [.. _out];

    public PickleText Raw(params byte[] bytes)
    {
        _out.AddRange(bytes);
        return this;
    }

    public PickleText Op(char op) => Raw((byte)op);

    public PickleText Global(string module, string name) => Op('c').Raw(Encoding.UTF8.GetBytes($"{module}\n{name}\n"));

    public PickleText Text(string text)
    {
        var bytes = Encoding.UTF8.GetBytes(text);
        return Op('X').Raw(BitConverter.GetBytes(bytes.Length)).Raw(bytes);
    }

    public PickleText Int(long value)
    {
        if (value is >= 0 and < 256) return Op('K').Raw((byte)value);
        if (value == (int)value) return Op('J').Raw(BitConverter.GetBytes((int)value));
        return Raw(0x8a, 8).Raw(BitConverter.GetBytes(value));
    }

    public PickleText Ints(params long[] values)
    {
        Op('(');
        foreach (var v in values) Int(v);
        return Op('t');
    }

    /// <summary>Any value: null, bool, int, long, double, string, tensors, lists, dictionaries, objects.</summary>
    public PickleText Value(object? value)
    {
        switch (value)
        {
            case null:
                return Op('N');
            case bool b:
                return Raw(b ? (byte)0x88 : (byte)0x89);
            case int i:
                return Int(i);
            case long l:
                return Int(l);
            case double d:
                var bytes = new byte[8];
                BinaryPrimitives.WriteDoubleBigEndian(bytes, d);
                return Op('G').Raw(bytes);
            case string s:
                return Text(s);
            case TorchTensor t:
                return Tensor(t);
            case TorchGlobal g:
                return Global(g.Module, g.Name);
            case TorchObject o:
                return Global(o.Module, o.Name).Op(')').Raw(0x81).Value(o.Fields).Op('b');
            case IEnumerable<KeyValuePair<string, object?>> pairs:
                Op('}').Op('(');
                foreach (var (k, v) in pairs) Text(k).Value(v);
                return Op('u');
            case IEnumerable<object?> items:
                Op(']').Op('(');
                foreach (var item in items) Value(item);
                return Op('e');
            default:
                throw new ArgumentException($"cannot write {value.GetType()}");
        }
    }

    /// <summary>An OrderedDict, as state dictionaries are.</summary>
    public PickleText StateDict(IEnumerable<KeyValuePair<string, object?>> state)
    {
        Global("collections", "OrderedDict").Op(')').Op('R').Op('(');
        foreach (var (k, v) in state) Text(k).Value(v);
        return Op('u');
    }

    public byte[] End() => Op('.').Bytes;

    private PickleText Tensor(TorchTensor t)
    {
        Global("torch._utils", "_rebuild_tensor_v2").Op('(');
        if (_inline)
        {
            var nested = PyTorchFiles.LegacyOfStorage(t);
            Global("torch.storage", "_load_from_bytes").Op('B').Raw(BitConverter.GetBytes(nested.Length)).Raw(nested).Raw(0x85).Op('R');
        }
        else
        {
            var key = _storages.FindIndex(s => ReferenceEquals(s.Storage, t.Storage));
            if (key < 0)
            {
                key = _storages.Count;
                _storages.Add(t);
            }

            PyTorchFiles.PersistentId(this, t, key.ToString(System.Globalization.CultureInfo.InvariantCulture));
        }

        Int(t.Offset).Ints(t.Shape).Ints(t.Strides ?? t.RowMajor).Raw(0x89);
        return Global("collections", "OrderedDict").Op(')').Op('R').Op('t').Op('R');
    }
}

/// <summary>Files as torch.save and pickle write them.</summary>
internal static class PyTorchFiles
{
    private static readonly byte[] MagicNumber = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, (byte)'.'];

    public static void PersistentId(PickleText pickle, TorchTensor t, string key, bool legacy = false)
    {
        pickle.Op('(').Text("storage").Global("torch", t.StorageName).Text(key).Text("cpu").Int(t.Storage.Length);
        if (legacy) pickle.Op('N');
        pickle.Op('t').Op('Q');
    }

    /// <summary>The zip archive of torch.save.</summary>
    public static byte[] Zip(IEnumerable<KeyValuePair<string, object?>> state, CompressionLevel level = CompressionLevel.NoCompression)
    {
        var pickle = new PickleText().StateDict(state);
        return ZipOf(pickle.End(), pickle.Storages, level);
    }

    public static byte[] ZipOf(byte[] pickle, IReadOnlyList<TorchTensor> storages, CompressionLevel level = CompressionLevel.NoCompression, string byteorder = "little")
    {
        var bytes = new MemoryStream();
        using (var zip = new ZipArchive(bytes, ZipArchiveMode.Create, leaveOpen: true))
        {
            Entry(zip, "archive/data.pkl", pickle, level);
            Entry(zip, "archive/byteorder", Encoding.ASCII.GetBytes(byteorder), level);
            for (var i = 0; i < storages.Count; i++) Entry(zip, $"archive/data/{i}", storages[i].Bytes(), level);
            Entry(zip, "archive/version", "3\n"u8.ToArray(), level);
        }

        return bytes.ToArray();
    }

    /// <summary>The format before PyTorch 1.6.</summary>
    public static byte[] Legacy(IEnumerable<KeyValuePair<string, object?>> state)
    {
        var pickle = new PickleText().StateDict(state);
        return LegacyOf(pickle.End(), pickle.Storages, i => i.ToString(System.Globalization.CultureInfo.InvariantCulture));
    }

    /// <summary>A plain pickle, whose tensors hold their storages as files of the early format.</summary>
    public static byte[] Plain(object value) => new PickleText(inlineStorages: true).Value(value).End();

    public static byte[] LegacyOfStorage(TorchTensor t)
    {
        var pickle = new PickleText();
        PersistentId(pickle, t, "94", legacy: true);
        return LegacyOf(pickle.End(), [t], _ => "94");
    }

    public static void Entry(ZipArchive zip, string name, byte[] content, CompressionLevel level)
    {
        using var stream = zip.CreateEntry(name, level).Open();
        stream.Write(content);
    }

    private static byte[] LegacyOf(byte[] pickle, IReadOnlyList<TorchTensor> storages, Func<int, string> key)
    {
        var bytes = new MemoryStream();
        bytes.Write(MagicNumber);
        bytes.Write(new PickleText().Int(1001).End());
        bytes.Write(new PickleText().Value(new Dictionary<string, object?> { ["protocol_version"] = 1001, ["little_endian"] = true }).End());
        bytes.Write(pickle);
        bytes.Write(new PickleText().Value(storages.Select((_, i) => (object?)key(i)).ToList()).End());
        foreach (var s in storages)
        {
            bytes.Write(BitConverter.GetBytes((long)s.Storage.Length));
            bytes.Write(s.Bytes());
        }

        return bytes.ToArray();
    }
}
