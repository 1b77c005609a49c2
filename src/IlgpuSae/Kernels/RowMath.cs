using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace IlgpuSae.Kernels;

/// <summary>
/// Vector loops over one contiguous row, the inner loops of the sparse kernels. Sums run over 32 virtual lanes in a
/// fixed order, so a result does not depend on the width of the machine's vectors or on alignment.
/// </summary>
internal static unsafe class RowMath
{
    /// <summary>Sum of x[i] * y[i].</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static float Dot(float* x, float* y, int n)
    {
        Vector256<float> a = default, b = default, c = default, d = default;
        var i = 0;
        for (; i + 32 <= n; i += 32)
        {
            a = Vector256.MultiplyAddEstimate(Vector256.Load(x + i), Vector256.Load(y + i), a);
            b = Vector256.MultiplyAddEstimate(Vector256.Load(x + i + 8), Vector256.Load(y + i + 8), b);
            c = Vector256.MultiplyAddEstimate(Vector256.Load(x + i + 16), Vector256.Load(y + i + 16), c);
            d = Vector256.MultiplyAddEstimate(Vector256.Load(x + i + 24), Vector256.Load(y + i + 24), d);
        }

        for (; i + 8 <= n; i += 8) a = Vector256.MultiplyAddEstimate(Vector256.Load(x + i), Vector256.Load(y + i), a);
        var sum = Vector256.Sum(a + b + (c + d));
        for (; i < n; i++) sum += x[i] * y[i];
        return sum;
    }

    /// <summary>o[i] += s * x[i].</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static void Axpy(float* o, float* x, float s, int n)
    {
        var v = Vector256.Create(s);
        var i = 0;
        for (; i + 8 <= n; i += 8)
            Vector256.MultiplyAddEstimate(v, Vector256.Load(x + i), Vector256.Load(o + i)).Store(o + i);
        for (; i < n; i++) o[i] = MathF.FusedMultiplyAdd(s, x[i], o[i]);
    }

    /// <summary>o[i] += s0 x0[i], then s1 x1[i], s2 x2[i], s3 x3[i]: the same bits as four calls of <see cref="Axpy"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static void Axpy4(float* o, float* x0, float* x1, float* x2, float* x3, float s0, float s1, float s2, float s3, int n)
    {
        var v0 = Vector256.Create(s0);
        var v1 = Vector256.Create(s1);
        var v2 = Vector256.Create(s2);
        var v3 = Vector256.Create(s3);
        var i = 0;
        for (; i + 8 <= n; i += 8)
        {
            var t = Vector256.Load(o + i);
            t = Vector256.MultiplyAddEstimate(v0, Vector256.Load(x0 + i), t);
            t = Vector256.MultiplyAddEstimate(v1, Vector256.Load(x1 + i), t);
            t = Vector256.MultiplyAddEstimate(v2, Vector256.Load(x2 + i), t);
            t = Vector256.MultiplyAddEstimate(v3, Vector256.Load(x3 + i), t);
            t.Store(o + i);
        }

        for (; i < n; i++)
        {
            var t = MathF.FusedMultiplyAdd(s0, x0[i], o[i]);
            t = MathF.FusedMultiplyAdd(s1, x1[i], t);
            t = MathF.FusedMultiplyAdd(s2, x2[i], t);
            o[i] = MathF.FusedMultiplyAdd(s3, x3[i], t);
        }
    }

    /// <summary>o[i] = s * x[i]; o may be x.</summary>
    internal static void Scale(float* o, float* x, float s, int n)
    {
        var v = Vector256.Create(s);
        var i = 0;
        for (; i + 8 <= n; i += 8) (v * Vector256.Load(x + i)).Store(o + i);
        for (; i < n; i++) o[i] = s * x[i];
    }
}
