using System.Globalization;

namespace IlgpuSae.Files;

/// <summary>
/// Everything a pickle of PyTorch may name, and what it means here. Each entry builds a value from values; none of them
/// reads a file, looks up a name or runs what the pickle brings along.
/// </summary>
/// <param name="path">The file, for messages.</param>
/// <param name="persistent">Finds or makes the storage of a key: key, element type or null, count.</param>
/// <param name="nested">
/// Reads the storage that a plain pickle holds as the bytes of a file of its own; null where that is not allowed.
/// </param>
internal sealed class PyTorchGlobals(
    string path, Func<string, SafetensorsType?, long, PyTorchStorage> persistent, Func<byte[], PyTorchStorage>? nested) : IPickleHost
{
    /// <inheritdoc/>
    public object? Find(string module, string name)
    {
        var full = $"{module}.{name}";
        if (module == "torch" && DType(name) is { } type) return new PickleDType(type);
        if (module is "torch" or "torch.cuda" or "torch.storage" && StorageType(name, out _)) return new PickleGlobal(full, null);
        // Settings of early SAELens are objects of its classes; they are kept as their fields.
        if (module.Split('.')[0] is "sae_lens" or "sae_training")
            return new PickleGlobal(full, args => args.Length == 0 ? new PickleRecord(full) : throw new PickleArgumentException("arguments; only an empty object is made of a class"));
        return full switch
        {
            "torch._utils._rebuild_tensor" or "torch._utils._rebuild_tensor_v2" => new PickleGlobal(full, Tensor),
            "torch._utils._rebuild_tensor_v3" => new PickleGlobal(full, TypedTensor),
            "torch._utils._rebuild_parameter" or "torch._utils._rebuild_parameter_with_state" => new PickleGlobal(full, Parameter),
            "torch._tensor._rebuild_from_type_v2" => new PickleGlobal(full, FromType),
            "torch.storage._load_from_bytes" when nested is not null => new PickleGlobal(full, args =>
                args is [byte[] bytes] ? nested(bytes) : throw new PickleArgumentException("something that is no bytes")),
            "torch.Tensor" or "torch.nn.parameter.Parameter" or "builtins.object" or "__builtin__.object" => new PickleGlobal(full, null),
            "torch.Size" => new PickleGlobal(full, args => args is [PickleTuple size] ? size : new PickleTuple(args)),
            "torch.device" => new PickleGlobal(full, args => string.Join(':', args.Select(a => Convert.ToString(a, CultureInfo.InvariantCulture)))),
            "collections.OrderedDict" => new PickleGlobal(full, Ordered),
            "builtins.set" or "__builtin__.set" => new PickleGlobal(full, args => args is [List<object?> items] ? items : new List<object?>()),
            "copyreg._reconstructor" or "copy_reg._reconstructor" => new PickleGlobal(full, Reconstruct),
            "_codecs.encode" => new PickleGlobal(full, args => args is [string text, "latin1" or "latin-1"]
                ? System.Text.Encoding.Latin1.GetBytes(text)
                : throw new PickleArgumentException("something other than text and \"latin1\"")),
            "numpy.dtype" => new PickleGlobal(full, args => args is [string code, ..] && NumpyType(code) is { } t ? new PickleDType(t) : throw new PickleArgumentException("a type that is not read")),
            "numpy.core.multiarray.scalar" or "numpy._core.multiarray.scalar" => new PickleGlobal(full, Scalar),
            _ => null,
        };
    }

    /// <inheritdoc/>
    public object Persistent(object? id)
    {
        if (id is not PickleTuple { Items: ["storage", PickleGlobal { Call: null } kind, string key, _, long and >= 0 and var count, ..] } tuple)
            throw new InvalidFileException(path, "its pickle refers to something outside that is no storage");
        if (tuple.Items is [_, _, _, _, _, not null, ..])
            throw new InvalidFileException(path, $"storage {Say.Quote(key)} is a view of another, as PyTorch wrote before 0.4; save it again with a newer one");
        if (!StorageType(kind.Name[(kind.Name.LastIndexOf('.') + 1)..], out var type)) throw new InvalidFileException(path, $"storage {Say.Quote(key)} is of {kind.Name}, which is none");
        if (count > long.MaxValue / 8) throw new InvalidFileException(path, $"storage {Say.Quote(key)} claims {count} elements");
        return persistent(key, type, count);
    }

    private static PickleTensor Tensor(object?[] args) => args is [var storage, var offset, var size, var stride, ..]
        ? PickleTensor.Create(null, storage, offset, size, stride)
        : throw new PickleArgumentException($"{args.Length} arguments; at least 4 are expected");

    private static PickleTensor TypedTensor(object?[] args) => args is [var storage, var offset, var size, var stride, _, _, PickleDType type, ..]
        ? PickleTensor.Create(type.Type, storage, offset, size, stride)
        : throw new PickleArgumentException("arguments among which there is no element type");

    private static PickleTensor Parameter(object?[] args) => args is [PickleTensor tensor, ..]
        ? tensor
        : throw new PickleArgumentException("something that is no tensor");

    private static object? FromType(object?[] args) => args is [PickleGlobal { Call: { } build } function, PickleGlobal { Name: "torch.Tensor" or "torch.nn.parameter.Parameter" }, PickleTuple inner, ..]
        && function.Name.StartsWith("torch._utils._rebuild_", StringComparison.Ordinal)
            ? build(inner.Items)
            : throw new PickleArgumentException("something other than a tensor or a parameter");

    private static PickleDict Ordered(object?[] args)
    {
        var dict = new PickleDict();
        if (args.Length == 0) return dict;
        if (args is not [List<object?> pairs]) throw new PickleArgumentException("something other than a list of pairs");
        foreach (var pair in pairs)
        {
            var (key, value) = pair switch
            {
                PickleTuple { Items: [var k, var v] } => (k, v),
                List<object?> { Count: 2 } l => (l[0], l[1]),
                _ => throw new PickleArgumentException("something other than a list of pairs"),
            };
            dict.Set(key, value);
        }

        return dict;
    }

    private static object? Reconstruct(object?[] args) => args is [PickleGlobal { Call: { } make } type, PickleGlobal { Name: "builtins.object" or "__builtin__.object" }, null]
        && type.Name.StartsWith("sae_", StringComparison.Ordinal)
            ? make([])
            : throw new PickleArgumentException("a class that is not known");

    private static object Scalar(object?[] args)
    {
        if (args is not [PickleDType { Type: var type }, byte[] bytes] || bytes.Length * 8 != type.Bits()) throw new PickleArgumentException("something other than a number's type and bytes");
        if (ElementConversion.IsInteger(type))
        {
            Span<long> whole = stackalloc long[1];
            if (ElementConversion.ToInt64(type, bytes, whole) is not null) throw new PickleArgumentException("a number beyond 63 bits");
            return type == SafetensorsType.BOOL ? whole[0] != 0 : whole[0];
        }

        if (type == SafetensorsType.F64) return BitConverter.ToDouble(bytes);
        Span<float> single = stackalloc float[1];
        ElementConversion.ToFloat32(type, bytes, single);
        return (double)single[0];
    }

    private static SafetensorsType? DType(string name) => name switch
    {
        "float32" or "float" => SafetensorsType.F32,
        "float64" or "double" => SafetensorsType.F64,
        "float16" or "half" => SafetensorsType.F16,
        "bfloat16" => SafetensorsType.BF16,
        "int64" or "long" => SafetensorsType.I64,
        "int32" or "int" => SafetensorsType.I32,
        "int16" or "short" => SafetensorsType.I16,
        "int8" => SafetensorsType.I8,
        "uint8" => SafetensorsType.U8,
        "uint16" => SafetensorsType.U16,
        "uint32" => SafetensorsType.U32,
        "uint64" => SafetensorsType.U64,
        "bool" => SafetensorsType.BOOL,
        _ => null,
    };

    private static bool StorageType(string name, out SafetensorsType? type)
    {
        type = name switch
        {
            "FloatStorage" => SafetensorsType.F32,
            "DoubleStorage" => SafetensorsType.F64,
            "HalfStorage" => SafetensorsType.F16,
            "BFloat16Storage" => SafetensorsType.BF16,
            "LongStorage" => SafetensorsType.I64,
            "IntStorage" => SafetensorsType.I32,
            "ShortStorage" => SafetensorsType.I16,
            "CharStorage" => SafetensorsType.I8,
            "ByteStorage" => SafetensorsType.U8,
            "BoolStorage" => SafetensorsType.BOOL,
            _ => null,
        };
        return type is not null || name == "UntypedStorage";
    }

    private static SafetensorsType? NumpyType(string code) => code.TrimStart('<', '|', '=') switch
    {
        "f8" => SafetensorsType.F64,
        "f4" => SafetensorsType.F32,
        "f2" => SafetensorsType.F16,
        "i8" => SafetensorsType.I64,
        "i4" => SafetensorsType.I32,
        "i2" => SafetensorsType.I16,
        "i1" => SafetensorsType.I8,
        "u1" => SafetensorsType.U8,
        "b1" => SafetensorsType.BOOL,
        _ => null,
    };
}
