using System.Runtime.CompilerServices;

namespace IlgpuSae.Kernels;

/// <summary>
/// A total order of (value, index) pairs as unsigned numbers: larger values first, ties to the lower index, NaN above
/// every number so that it is never lost. The upper half is the value in an order-preserving form, the lower half the
/// complement of the index.
/// </summary>
internal static unsafe class TopKKey
{
    /// <summary>The key of a value; -0 counts as 0.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static uint OfValue(float value)
    {
        var bits = BitConverter.SingleToInt32Bits(value + 0f);
        return float.IsNaN(value) ? uint.MaxValue : (uint)bits ^ (bits < 0 ? 0xFFFFFFFFu : 0x80000000u);
    }

    /// <summary>The key of a pair.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static ulong Of(float value, int index) => ((ulong)OfValue(value) << 32) | ~(uint)index;

    /// <summary>The key of a pair that is ranked by its value's magnitude; the lowest bit keeps the sign.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static ulong OfMagnitude(float value, int index) =>
        ((ulong)OfValue(MathF.Abs(value)) << 32) | ~(((uint)index << 1) | (value < 0 ? 1u : 0));

    /// <summary>The value of a pair's key.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static float Value(ulong key)
    {
        var k = (uint)(key >> 32);
        return k == uint.MaxValue ? float.NaN : BitConverter.UInt32BitsToSingle(k ^ ((k & 0x80000000u) != 0 ? 0x80000000u : 0xFFFFFFFFu));
    }

    /// <summary>The index of a pair's key.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static int Index(ulong key) => (int)~(uint)key;

    /// <summary>Brings the k largest of n keys into the first k places, in any order; returns the smallest of them.</summary>
    /// <param name="keys">n distinct keys.</param>
    /// <param name="n">Their number, at least <paramref name="k"/>.</param>
    /// <param name="k">How many to keep, at least 1.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static ulong Select(ulong* keys, int n, int k)
    {
        int lo = 0, hi = n - 1, want = k - 1;
        while (lo < hi)
        {
            ulong x = keys[lo + ((hi - lo) / 2)], y = keys[lo], z = keys[hi];
            var pivot = Math.Max(Math.Min(x, y), Math.Min(Math.Max(x, y), z));
            int i = lo, j = hi;
            while (i <= j)
            {
                while (keys[i] > pivot) i++;
                while (keys[j] < pivot) j--;
                if (i > j) break;
                (keys[i], keys[j]) = (keys[j], keys[i]);
                i++;
                j--;
            }

            if (want <= j) hi = j;
            else if (want >= i) lo = i;
            else break;
        }

        return keys[want];
    }

    /// <summary>Writes n pairs of <see cref="OfMagnitude"/> in ascending order of their indices, leaving out zeros.</summary>
    /// <param name="keys">n keys; destroyed.</param>
    /// <param name="n">Their number.</param>
    /// <param name="indices">Room for n indices.</param>
    /// <param name="values">Room for n values.</param>
    /// <returns>How many were written.</returns>
    internal static int WriteSigned(ulong* keys, int n, int* indices, float* values)
    {
        // Ascending keys of (index, sign, magnitude).
        for (var i = 0; i < n; i++) keys[i] = ((ulong)~(uint)keys[i] << 32) | (keys[i] >> 32);
        new Span<ulong>(keys, n).Sort();
        var count = 0;
        for (var i = 0; i < n; i++)
        {
            var value = Value(keys[i] << 32);
            if (value == 0) continue;
            indices[count] = (int)(keys[i] >> 33);
            values[count++] = ((keys[i] >> 32) & 1) != 0 ? -value : value;
        }

        return count;
    }

    /// <summary>Writes n pairs in ascending order of their indices, leaving out those whose value is not positive if asked.</summary>
    /// <param name="keys">n keys; destroyed.</param>
    /// <param name="n">Their number.</param>
    /// <param name="positive">Leave out values of 0 and below (not NaN).</param>
    /// <param name="indices">Room for n indices.</param>
    /// <param name="values">Room for n values.</param>
    /// <returns>How many were written.</returns>
    internal static int Write(ulong* keys, int n, bool positive, int* indices, float* values)
    {
        // Ascending keys of (index, value).
        for (var i = 0; i < n; i++) keys[i] = ((ulong)(uint)Index(keys[i]) << 32) | (keys[i] >> 32);
        new Span<ulong>(keys, n).Sort();
        var count = 0;
        for (var i = 0; i < n; i++)
        {
            var value = Value(keys[i] << 32);
            if (positive && value <= 0) continue;
            indices[count] = (int)(keys[i] >> 32);
            values[count++] = value;
        }

        return count;
    }
}
