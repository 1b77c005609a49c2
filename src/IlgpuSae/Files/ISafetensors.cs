namespace IlgpuSae.Files;

/// <summary>Named tensors on disk: one safetensors file, or a folder of shards that reads like one.</summary>
public interface ISafetensors : IDisposable
{
    /// <summary>The file or folder, as the user named it.</summary>
    string Path { get; }

    /// <summary>Names of all tensors.</summary>
    IReadOnlyCollection<string> Names { get; }

    /// <summary>Whether a tensor of that name exists.</summary>
    /// <param name="name">The tensor's name.</param>
    bool Contains(string name);

    /// <summary>The file that holds a tensor.</summary>
    /// <param name="name">The tensor's name.</param>
    /// <exception cref="InvalidFileException">There is none of that name; the message lists near names.</exception>
    SafetensorsFile FileOf(string name);
}

/// <summary>Reading tensors by name from <see cref="ISafetensors"/>.</summary>
public static class SafetensorsReading
{
    /// <summary>Type, shape and place of a tensor.</summary>
    /// <param name="source">The file or folder.</param>
    /// <param name="name">The tensor's name.</param>
    /// <exception cref="InvalidFileException">There is none of that name.</exception>
    public static SafetensorsEntry Entry(this ISafetensors source, string name) => source.FileOf(name)[name];

    /// <summary>A floating-point tensor (F32, F16, BF16, F64) as single precision, row-major.</summary>
    /// <param name="source">The file or folder.</param>
    /// <param name="name">The tensor's name.</param>
    /// <exception cref="InvalidFileException">No such tensor, another type, unreadable, or more than an array can hold.</exception>
    public static float[] ReadFloat32(this ISafetensors source, string name)
    {
        var file = source.FileOf(name);
        var values = new float[file.ArrayLength(name)];
        file.ReadFloat32(name, values);
        return values;
    }

    /// <summary>An integer or boolean tensor as 64-bit integers, row-major.</summary>
    /// <param name="source">The file or folder.</param>
    /// <param name="name">The tensor's name.</param>
    /// <exception cref="InvalidFileException">No such tensor, another type, unreadable, or a number beyond 64 bits.</exception>
    public static long[] ReadInt64(this ISafetensors source, string name)
    {
        var file = source.FileOf(name);
        var values = new long[file.ArrayLength(name)];
        file.ReadInt64(name, values);
        return values;
    }

    /// <summary>An integer or boolean tensor as 32-bit integers, row-major: token ids, feature indices.</summary>
    /// <param name="source">The file or folder.</param>
    /// <param name="name">The tensor's name.</param>
    /// <exception cref="InvalidFileException">No such tensor, another type, unreadable, or a number beyond 32 bits.</exception>
    public static int[] ReadInt32(this ISafetensors source, string name)
    {
        var wide = source.ReadInt64(name);
        var values = new int[wide.Length];
        for (var i = 0; i < wide.Length; i++)
        {
            if (wide[i] != (int)wide[i])
                throw new InvalidFileException(source.FileOf(name).Path, $"tensor {Say.Quote(name)} holds {wide[i]} at element {i}, which does not fit 32 bits");
            values[i] = (int)wide[i];
        }

        return values;
    }

    /// <summary>The bytes of a tensor as they are in the file.</summary>
    /// <param name="source">The file or folder.</param>
    /// <param name="name">The tensor's name.</param>
    /// <param name="destination">As long as the tensor.</param>
    /// <exception cref="InvalidFileException">No such tensor, or unreadable.</exception>
    public static void ReadBytes(this ISafetensors source, string name, Span<byte> destination) => source.FileOf(name).ReadBytes(name, 0, destination);
}
