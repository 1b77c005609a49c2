using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace IlgpuSae.Kernels;

/// <summary>Loads of the stored element types as floats, all exact.</summary>
internal static unsafe partial class PackedGemm
{
    /// <summary>Loads elements of one stored type.</summary>
    private interface ILoad
    {
        static abstract Vector256<float> Eight(void* data, long index);

        static abstract float One(void* data, long index);
    }

    private readonly struct LoadF32 : ILoad
    {
        public static Vector256<float> Eight(void* data, long index) => Vector256.Load((float*)data + index);

        public static float One(void* data, long index) => ((float*)data)[index];
    }

    /// <summary>bfloat16 is the upper half of a float.</summary>
    private readonly struct LoadBF16 : ILoad
    {
        public static Vector256<float> Eight(void* data, long index) => (Widen8((short*)data + index) << 16).AsSingle();

        public static float One(void* data, long index) => BitConverter.UInt32BitsToSingle((uint)((ushort*)data)[index] << 16);
    }

    /// <summary>
    /// Exponent and mantissa shifted into place are a number 2^-112 too small; multiplied by 2^112, which also normalises
    /// subnormal halves. Infinities and NaNs get the largest exponent.
    /// </summary>
    private readonly struct LoadF16 : ILoad
    {
        public static Vector256<float> Eight(void* data, long index)
        {
            // Sign-extended, so that one mask keeps the sign, the exponent and the mantissa.
            var bits = (Widen8((short*)data + index) << 13) & Vector256.Create(unchecked((int)0x8FFFE000));
            var value = bits.AsSingle() * Vector256.Create(5.192296858534828e33f);
            var special = Vector256.GreaterThanOrEqual(Vector256.Abs(value), Vector256.Create(65536f)).AsInt32();
            return (value.AsInt32() | (special & Vector256.Create(0x7F800000))).AsSingle();
        }

        public static float One(void* data, long index) => (float)((Half*)data)[index];
    }

    /// <summary>Eight 16-bit integers with their signs.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<int> Widen8(short* p)
    {
        if (Avx2.IsSupported) return Avx2.ConvertToVector256Int32(p);
        var (low, high) = Vector128.Widen(Vector128.Load(p));
        return Vector256.Create(low, high);
    }
}
