namespace IlgpuSae.Files;

/// <summary>
/// Element types of the safetensors format, in the order of the format's own library, by which its writers sort
/// tensors (descending, so that wide types come first and every tensor is aligned). Names are the header's.
/// </summary>
#pragma warning disable CA1707, CA1720 // the names are those the format writes
public enum SafetensorsType
{
    /// <summary>Boolean, one byte.</summary>
    BOOL,

    /// <summary>4-bit float.</summary>
    F4,

    /// <summary>6-bit float, 2 exponent and 3 mantissa bits.</summary>
    F6_E2M3,

    /// <summary>6-bit float, 3 exponent and 2 mantissa bits.</summary>
    F6_E3M2,

    /// <summary>8-bit unsigned integer.</summary>
    U8,

    /// <summary>8-bit signed integer.</summary>
    I8,

    /// <summary>8-bit float, 5 exponent and 2 mantissa bits.</summary>
    F8_E5M2,

    /// <summary>8-bit float, 4 exponent and 3 mantissa bits.</summary>
    F8_E4M3,

    /// <summary>8-bit scale, exponent only.</summary>
    F8_E8M0,

    /// <summary>16-bit signed integer.</summary>
    I16,

    /// <summary>16-bit unsigned integer.</summary>
    U16,

    /// <summary>IEEE 754 half precision.</summary>
    F16,

    /// <summary>bfloat16.</summary>
    BF16,

    /// <summary>32-bit signed integer.</summary>
    I32,

    /// <summary>32-bit unsigned integer.</summary>
    U32,

    /// <summary>IEEE 754 single precision.</summary>
    F32,

    /// <summary>Complex of two single-precision numbers.</summary>
    C64,

    /// <summary>IEEE 754 double precision.</summary>
    F64,

    /// <summary>64-bit signed integer.</summary>
    I64,

    /// <summary>64-bit unsigned integer.</summary>
    U64,
}
#pragma warning restore CA1707, CA1720

/// <summary>Facts about <see cref="SafetensorsType"/>.</summary>
public static class SafetensorsTypes
{
    /// <summary>Size of one element in bits; 4 and 6 occur.</summary>
    /// <param name="type">The element type.</param>
    public static int Bits(this SafetensorsType type) => type switch
    {
        SafetensorsType.U64 or SafetensorsType.I64 or SafetensorsType.F64 or SafetensorsType.C64 => 64,
        SafetensorsType.F32 or SafetensorsType.U32 or SafetensorsType.I32 => 32,
        SafetensorsType.BF16 or SafetensorsType.F16 or SafetensorsType.U16 or SafetensorsType.I16 => 16,
        SafetensorsType.F6_E2M3 or SafetensorsType.F6_E3M2 => 6,
        SafetensorsType.F4 => 4,
        _ => 8,
    };

    /// <summary>The type the header's name means.</summary>
    internal static bool TryParse(string name, out SafetensorsType type) =>
        Enum.TryParse(name, ignoreCase: false, out type) && Enum.IsDefined(type) && type.ToString() == name;
}

/// <summary>One tensor of a safetensors file, as its header describes it.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Type">Its element type.</param>
/// <param name="Shape">Sizes of its axes; empty for a scalar.</param>
/// <param name="Offset">Where its bytes begin, counted from the end of the header.</param>
/// <param name="Bytes">How many bytes it takes.</param>
public sealed record SafetensorsEntry(string Name, SafetensorsType Type, IReadOnlyList<long> Shape, long Offset, long Bytes)
{
    /// <summary>Number of elements.</summary>
    public long Count
    {
        get
        {
            long n = 1;
            foreach (var d in Shape) n *= d;
            return n;
        }
    }
}
