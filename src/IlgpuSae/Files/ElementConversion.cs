using System.Numerics;
using System.Runtime.InteropServices;

namespace IlgpuSae.Files;

/// <summary>Little-endian elements of a file as numbers in memory.</summary>
internal static class ElementConversion
{
    /// <summary>Whether <see cref="ToFloat32"/> takes elements of a type.</summary>
    /// <param name="type">The element type.</param>
    public static bool IsFloat(SafetensorsType type) =>
        type is SafetensorsType.F32 or SafetensorsType.F16 or SafetensorsType.BF16 or SafetensorsType.F64;

    /// <summary>F32 as it is, F16 and BF16 widened exactly, F64 rounded.</summary>
    /// <param name="type">One for which <see cref="IsFloat"/> holds.</param>
    /// <param name="bytes">As many elements as <paramref name="values"/>.</param>
    /// <param name="values">Receives them.</param>
    public static void ToFloat32(SafetensorsType type, ReadOnlySpan<byte> bytes, Span<float> values)
    {
        switch (type)
        {
            case SafetensorsType.F32:
                MemoryMarshal.Cast<byte, float>(bytes)[..values.Length].CopyTo(values);
                break;
            case SafetensorsType.F16:
                var halves = MemoryMarshal.Cast<byte, Half>(bytes);
                for (var i = 0; i < values.Length; i++) values[i] = (float)halves[i];
                break;
            case SafetensorsType.BF16:
                WidenBFloat16(MemoryMarshal.Cast<byte, ushort>(bytes), values);
                break;
            case SafetensorsType.F64:
                var doubles = MemoryMarshal.Cast<byte, double>(bytes);
                for (var i = 0; i < values.Length; i++) values[i] = (float)doubles[i];
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(type), type, "no floating-point type");
        }
    }

    /// <summary>Whether <see cref="ToInt64"/> takes elements of a type.</summary>
    /// <param name="type">The element type.</param>
    public static bool IsInteger(SafetensorsType type) => type is SafetensorsType.I64 or SafetensorsType.I32 or SafetensorsType.I16
        or SafetensorsType.I8 or SafetensorsType.U64 or SafetensorsType.U32 or SafetensorsType.U16 or SafetensorsType.U8 or SafetensorsType.BOOL;

    /// <summary>Integers and booleans.</summary>
    /// <param name="type">One for which <see cref="IsInteger"/> holds.</param>
    /// <param name="bytes">As many elements as <paramref name="values"/>.</param>
    /// <param name="values">Receives them.</param>
    /// <returns>A number beyond 2^63 - 1 if there is one; else null.</returns>
    public static ulong? ToInt64(SafetensorsType type, ReadOnlySpan<byte> bytes, Span<long> values)
    {
        switch (type)
        {
            case SafetensorsType.I64:
                MemoryMarshal.Cast<byte, long>(bytes)[..values.Length].CopyTo(values);
                break;
            case SafetensorsType.I32:
                Widen<int>(bytes, values);
                break;
            case SafetensorsType.I16:
                Widen<short>(bytes, values);
                break;
            case SafetensorsType.I8:
                Widen<sbyte>(bytes, values);
                break;
            case SafetensorsType.U32:
                Widen<uint>(bytes, values);
                break;
            case SafetensorsType.U16:
                Widen<ushort>(bytes, values);
                break;
            case SafetensorsType.U8 or SafetensorsType.BOOL:
                Widen<byte>(bytes, values);
                break;
            case SafetensorsType.U64:
                var wide = MemoryMarshal.Cast<byte, ulong>(bytes);
                for (var i = 0; i < values.Length; i++)
                {
                    if (wide[i] > long.MaxValue) return wide[i];
                    values[i] = (long)wide[i];
                }

                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(type), type, "no integer type");
        }

        return null;
    }

    private static void WidenBFloat16(ReadOnlySpan<ushort> halves, Span<float> values)
    {
        var i = 0;
        for (; i <= values.Length - Vector<ushort>.Count; i += Vector<ushort>.Count)
        {
            Vector.Widen(new Vector<ushort>(halves[i..]), out var low, out var high);
            Vector.AsVectorSingle(low << 16).CopyTo(values[i..]);
            Vector.AsVectorSingle(high << 16).CopyTo(values[(i + Vector<uint>.Count)..]);
        }

        for (; i < values.Length; i++) values[i] = BitConverter.UInt32BitsToSingle((uint)halves[i] << 16);
    }

    private static void Widen<T>(ReadOnlySpan<byte> bytes, Span<long> values) where T : unmanaged, IBinaryInteger<T>
    {
        var narrow = MemoryMarshal.Cast<byte, T>(bytes);
        for (var i = 0; i < values.Length; i++) values[i] = long.CreateTruncating(narrow[i]);
    }
}
