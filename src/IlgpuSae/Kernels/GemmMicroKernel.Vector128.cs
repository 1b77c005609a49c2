using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace IlgpuSae.Kernels;

/// <summary>
/// 6 x 8 sums in 12 registers, for NEON (fused, so the same bits as the wider kernels) and for x64 without FMA,
/// where product and sum are rounded separately and the last bits differ.
/// </summary>
internal readonly unsafe struct Vector128MicroKernel : IGemmMicroKernel
{
    public static int Rows => 6;

    public static int Columns => 8;

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Run(long steps, float* a, float* b, float* c, long ldc, bool resume)
    {
        Vector128<float> c00 = default, c01 = default;
        Vector128<float> c10 = default, c11 = default;
        Vector128<float> c20 = default, c21 = default;
        Vector128<float> c30 = default, c31 = default;
        Vector128<float> c40 = default, c41 = default;
        Vector128<float> c50 = default, c51 = default;
        if (resume)
        {
            var s = c;
            c00 = Vector128.Load(s); c01 = Vector128.Load(s + 4);
            s += ldc;
            c10 = Vector128.Load(s); c11 = Vector128.Load(s + 4);
            s += ldc;
            c20 = Vector128.Load(s); c21 = Vector128.Load(s + 4);
            s += ldc;
            c30 = Vector128.Load(s); c31 = Vector128.Load(s + 4);
            s += ldc;
            c40 = Vector128.Load(s); c41 = Vector128.Load(s + 4);
            s += ldc;
            c50 = Vector128.Load(s); c51 = Vector128.Load(s + 4);
        }

        for (var end = a + (steps * 6); a < end; a += 6, b += 8)
        {
            var b0 = Vector128.Load(b); var b1 = Vector128.Load(b + 4);
            var t = Vector128.Create(a[0]);
            c00 = Vector128.MultiplyAddEstimate(t, b0, c00); c01 = Vector128.MultiplyAddEstimate(t, b1, c01);
            t = Vector128.Create(a[1]);
            c10 = Vector128.MultiplyAddEstimate(t, b0, c10); c11 = Vector128.MultiplyAddEstimate(t, b1, c11);
            t = Vector128.Create(a[2]);
            c20 = Vector128.MultiplyAddEstimate(t, b0, c20); c21 = Vector128.MultiplyAddEstimate(t, b1, c21);
            t = Vector128.Create(a[3]);
            c30 = Vector128.MultiplyAddEstimate(t, b0, c30); c31 = Vector128.MultiplyAddEstimate(t, b1, c31);
            t = Vector128.Create(a[4]);
            c40 = Vector128.MultiplyAddEstimate(t, b0, c40); c41 = Vector128.MultiplyAddEstimate(t, b1, c41);
            t = Vector128.Create(a[5]);
            c50 = Vector128.MultiplyAddEstimate(t, b0, c50); c51 = Vector128.MultiplyAddEstimate(t, b1, c51);
        }

        c00.Store(c); c01.Store(c + 4);
        c += ldc;
        c10.Store(c); c11.Store(c + 4);
        c += ldc;
        c20.Store(c); c21.Store(c + 4);
        c += ldc;
        c30.Store(c); c31.Store(c + 4);
        c += ldc;
        c40.Store(c); c41.Store(c + 4);
        c += ldc;
        c50.Store(c); c51.Store(c + 4);
    }
}
