namespace IlgpuSae.Tensors;

/// <summary>Element type of a <see cref="Tensor"/>.</summary>
public enum DType
{
    /// <summary>IEEE 754 single precision, 4 bytes: what every kernel computes in.</summary>
    F32,

    /// <summary>IEEE 754 double precision, 8 bytes.</summary>
    F64,

    /// <summary>IEEE 754 half precision, 2 bytes: storage only.</summary>
    F16,

    /// <summary>bfloat16, 2 bytes: storage only.</summary>
    BF16,

    /// <summary>32-bit signed integer: token ids, feature indices, offsets.</summary>
    I32,

    /// <summary>64-bit signed integer.</summary>
    I64,

    /// <summary>8-bit unsigned integer.</summary>
    U8,
}

/// <summary>Facts about <see cref="DType"/>.</summary>
public static class DTypes
{
    /// <summary>Size of one element in bytes.</summary>
    /// <param name="type">The element type.</param>
    public static int Size(this DType type) => type switch
    {
        DType.F64 or DType.I64 => 8,
        DType.F32 or DType.I32 => 4,
        DType.F16 or DType.BF16 => 2,
        _ => 1,
    };

    /// <summary>The element type that holds <typeparamref name="T"/>.</summary>
    /// <typeparam name="T">float, double, Half, int, long or byte.</typeparam>
    /// <exception cref="ShapeException">No element type holds <typeparamref name="T"/>.</exception>
    public static DType Of<T>() where T : unmanaged
    {
        if (typeof(T) == typeof(float)) return DType.F32;
        if (typeof(T) == typeof(double)) return DType.F64;
        if (typeof(T) == typeof(Half)) return DType.F16;
        if (typeof(T) == typeof(int)) return DType.I32;
        if (typeof(T) == typeof(long)) return DType.I64;
        if (typeof(T) == typeof(byte)) return DType.U8;
        throw new ShapeException($"no tensor element type holds {typeof(T).Name}");
    }
}
