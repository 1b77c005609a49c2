using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Loops over rows with vectors of eight floats. Sums run in 16 lanes (element i in lane i mod 16), blocks of
/// <see cref="Block"/> elements, then a fixed tree: the order depends on the row alone, never on threads.
/// </summary>
internal static unsafe class Lanes
{
    /// <summary>Elements summed in float before the sum moves on to double.</summary>
    internal const int Block = 4096;

    /// <summary>Elements that make a piece of work for a thread.</summary>
    private const int Piece = 1 << 14;

    /// <summary>Eight floats of which the first <paramref name="n"/> are used and the rest are zero.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static Vector256<float> Load(float* p, long n) =>
        n >= 8 ? Vector256.Load(p) : Vector256.Load(p) & Mask((int)n).AsSingle();

    /// <summary>Stores the first <paramref name="n"/> of eight floats.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void Store(Vector256<float> v, float* p, long n)
    {
        if (n >= 8) v.Store(p);
        else StorePart(v, p, (int)n);
    }

    /// <summary>All bits set in the first <paramref name="n"/> lanes.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static Vector256<int> Mask(int n) => Vector256.LessThan(Vector256<int>.Indices, Vector256.Create(n));

    /// <summary>Sum of sixteen lanes in a fixed tree.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static float Sum(Vector256<float> a, Vector256<float> b)
    {
        var v = a + b;
        var h = v.GetLower() + v.GetUpper();
        return (h[0] + h[2]) + (h[1] + h[3]);
    }

    /// <summary>Largest of eight lanes; NaN if one is.</summary>
    internal static float Max(Vector256<float> v)
    {
        var h = Vector128.Max(v.GetLower(), v.GetUpper());
        return MathF.Max(MathF.Max(h[0], h[1]), MathF.Max(h[2], h[3]));
    }

    /// <summary>Sum of a row.</summary>
    internal static double Sum(float* x, long n)
    {
        double total = 0;
        for (long start = 0; start < n; start += Block)
        {
            var end = Math.Min(n, start + Block);
            var a = Vector256<float>.Zero;
            var b = Vector256<float>.Zero;
            for (var i = start; i < end; i += 16)
            {
                a += Load(x + i, end - i);
                if (end - i > 8) b += Load(x + i + 8, end - i - 8);
            }

            total += Sum(a, b);
        }

        return total;
    }

    /// <summary>Sum of products of two rows.</summary>
    internal static double Dot(float* x, float* y, long n)
    {
        double total = 0;
        for (long start = 0; start < n; start += Block)
        {
            var end = Math.Min(n, start + Block);
            var a = Vector256<float>.Zero;
            var b = Vector256<float>.Zero;
            for (var i = start; i < end; i += 16)
            {
                a = Vector256.MultiplyAddEstimate(Load(x + i, end - i), Load(y + i, end - i), a);
                if (end - i > 8) b = Vector256.MultiplyAddEstimate(Load(x + i + 8, end - i - 8), Load(y + i + 8, end - i - 8), b);
            }

            total += Sum(a, b);
        }

        return total;
    }

    /// <summary>Largest element of a row; -infinity for an empty one.</summary>
    internal static float Max(float* x, long n)
    {
        var m = Vector256.Create(float.NegativeInfinity);
        long i = 0;
        for (; i + 8 <= n; i += 8) m = Vector256.Max(m, Vector256.Load(x + i));
        var max = Max(m);
        for (; i < n; i++) max = MathF.Max(max, x[i]);
        return max;
    }

    /// <summary>Runs <paramref name="body"/>(row) for every row, several rows a piece if they are short.</summary>
    internal static void ForRows(CpuDevice device, long rows, long width, Action<long> body)
    {
        var piece = (int)Math.Max(1, Piece / Math.Max(1, width));
        device.Pool.ForRange(rows, piece, (from, to) =>
        {
            for (var r = from; r < to; r++) body(r);
        });
    }

    private static void StorePart(Vector256<float> v, float* p, int n)
    {
        var buffer = stackalloc float[8];
        v.Store(buffer);
        for (var i = 0; i < n; i++) p[i] = buffer[i];
    }
}
