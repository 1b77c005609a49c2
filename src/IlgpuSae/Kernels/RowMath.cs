using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace IlgpuSae.Kernels;

/// <summary>
/// Vector loops over contiguous rows, the inner loops of the sparse kernels. Sums run over 32 virtual lanes in a fixed
/// order and updates in the order of their terms, so a result depends neither on the width of the machine's vectors nor
/// on how terms were grouped. Several rows at a time: gathered rows come from outer caches, and four streams hide what
/// one would wait for.
/// </summary>
internal static unsafe class RowMath
{
    /// <summary>Sum of x[i] * y[i].</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static float Dot(float* x, float* y, int n)
    {
        Vector512<float> a = default, b = default;
        var i = 0;
        for (; i + 32 <= n; i += 32)
        {
            a = Vector512.MultiplyAddEstimate(Vector512.Load(x + i), Vector512.Load(y + i), a);
            b = Vector512.MultiplyAddEstimate(Vector512.Load(x + i + 16), Vector512.Load(y + i + 16), b);
        }

        var sum = Sum(a, b);
        for (; i < n; i++) sum += x[i] * y[i];
        return sum;
    }

    /// <summary>o[i] += s * x[i].</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static void Axpy(float* o, float* x, float s, int n)
    {
        var v = Vector512.Create(s);
        var i = 0;
        for (; i + 16 <= n; i += 16)
            Vector512.MultiplyAddEstimate(v, Vector512.Load(x + i), Vector512.Load(o + i)).Store(o + i);
        for (; i < n; i++) o[i] = MathF.FusedMultiplyAdd(s, x[i], o[i]);
    }

    /// <summary>o += sum over four rows of s * x, in order: the bits of four calls of <see cref="Axpy"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static void Axpy4(float* o, float* x0, float* x1, float* x2, float* x3, float s0, float s1, float s2, float s3, int n)
    {
        var v0 = Vector512.Create(s0);
        var v1 = Vector512.Create(s1);
        var v2 = Vector512.Create(s2);
        var v3 = Vector512.Create(s3);
        var i = 0;
        for (; i + 16 <= n; i += 16)
        {
            var t = Vector512.Load(o + i);
            t = Vector512.MultiplyAddEstimate(v0, Vector512.Load(x0 + i), t);
            t = Vector512.MultiplyAddEstimate(v1, Vector512.Load(x1 + i), t);
            t = Vector512.MultiplyAddEstimate(v2, Vector512.Load(x2 + i), t);
            t = Vector512.MultiplyAddEstimate(v3, Vector512.Load(x3 + i), t);
            t.Store(o + i);
        }

        for (; i < n; i++) o[i] = Chain4(x0[i], x1[i], x2[i], x3[i], s0, s1, s2, s3, o[i]);
    }

    /// <summary>
    /// <see cref="Axpy4"/> and, in the same sweep, dots[r] = sum of x_r[i] * y[i] with the bits of <see cref="Dot"/>.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static void AxpyDot4(
        float* o, float* x0, float* x1, float* x2, float* x3, float s0, float s1, float s2, float s3, float* y, float* dots, int n)
    {
        var v0 = Vector512.Create(s0);
        var v1 = Vector512.Create(s1);
        var v2 = Vector512.Create(s2);
        var v3 = Vector512.Create(s3);
        Vector512<float> a0 = default, a1 = default, a2 = default, a3 = default, b0 = default, b1 = default, b2 = default, b3 = default;
        var i = 0;
        for (; i + 32 <= n; i += 32)
        {
            var w = Vector512.Load(y + i);
            var t = Vector512.Load(o + i);
            var x = Vector512.Load(x0 + i);
            a0 = Vector512.MultiplyAddEstimate(x, w, a0);
            t = Vector512.MultiplyAddEstimate(v0, x, t);
            x = Vector512.Load(x1 + i);
            a1 = Vector512.MultiplyAddEstimate(x, w, a1);
            t = Vector512.MultiplyAddEstimate(v1, x, t);
            x = Vector512.Load(x2 + i);
            a2 = Vector512.MultiplyAddEstimate(x, w, a2);
            t = Vector512.MultiplyAddEstimate(v2, x, t);
            x = Vector512.Load(x3 + i);
            a3 = Vector512.MultiplyAddEstimate(x, w, a3);
            Vector512.MultiplyAddEstimate(v3, x, t).Store(o + i);

            w = Vector512.Load(y + i + 16);
            t = Vector512.Load(o + i + 16);
            x = Vector512.Load(x0 + i + 16);
            b0 = Vector512.MultiplyAddEstimate(x, w, b0);
            t = Vector512.MultiplyAddEstimate(v0, x, t);
            x = Vector512.Load(x1 + i + 16);
            b1 = Vector512.MultiplyAddEstimate(x, w, b1);
            t = Vector512.MultiplyAddEstimate(v1, x, t);
            x = Vector512.Load(x2 + i + 16);
            b2 = Vector512.MultiplyAddEstimate(x, w, b2);
            t = Vector512.MultiplyAddEstimate(v2, x, t);
            x = Vector512.Load(x3 + i + 16);
            b3 = Vector512.MultiplyAddEstimate(x, w, b3);
            Vector512.MultiplyAddEstimate(v3, x, t).Store(o + i + 16);
        }

        float d0 = Sum(a0, b0), d1 = Sum(a1, b1), d2 = Sum(a2, b2), d3 = Sum(a3, b3);
        for (; i < n; i++)
        {
            d0 += x0[i] * y[i];
            d1 += x1[i] * y[i];
            d2 += x2[i] * y[i];
            d3 += x3[i] * y[i];
            o[i] = Chain4(x0[i], x1[i], x2[i], x3[i], s0, s1, s2, s3, o[i]);
        }

        dots[0] = d0;
        dots[1] = d1;
        dots[2] = d2;
        dots[3] = d3;
    }

    /// <summary>o[i] = s * x[i]; o may be x.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static void Scale(float* o, float* x, float s, int n)
    {
        var v = Vector512.Create(s);
        var i = 0;
        for (; i + 16 <= n; i += 16) (v * Vector512.Load(x + i)).Store(o + i);
        for (; i < n; i++) o[i] = s * x[i];
    }

    /// <summary>
    /// o = x. Past the caches where asked and where <paramref name="o"/> is aligned: a result far larger than them is not
    /// read into them first, which is a third of its traffic.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static void CopyOut(float* o, float* x, int n, bool pastCaches)
    {
        if (!pastCaches || ((nint)o & 63) != 0 || n % 16 != 0)
        {
            Buffer.MemoryCopy(x, o, n * 4L, n * 4L);
            return;
        }

        for (var i = 0; i < n; i += 16) Vector512.Load(x + i).StoreAlignedNonTemporal(o + i);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static float Sum(Vector512<float> a, Vector512<float> b) =>
        Vector256.Sum(a.GetLower() + a.GetUpper() + (b.GetLower() + b.GetUpper()));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static float Chain4(float x0, float x1, float x2, float x3, float s0, float s1, float s2, float s3, float o)
    {
        o = MathF.FusedMultiplyAdd(s0, x0, o);
        o = MathF.FusedMultiplyAdd(s1, x1, o);
        o = MathF.FusedMultiplyAdd(s2, x2, o);
        return MathF.FusedMultiplyAdd(s3, x3, o);
    }
}
