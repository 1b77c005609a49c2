using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace IlgpuSae.Kernels;

/// <summary>
/// 6 x 16 sums in 12 of the 16 ymm registers. Only where the processor has FMA: elsewhere a fused
/// multiply-add is a call a lane.
/// </summary>
internal readonly unsafe struct Vector256MicroKernel : IGemmMicroKernel
{
    public static int Rows => 6;

    public static int Columns => 16;

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Run(long steps, float* a, float* b, float* c, long ldc, bool resume)
    {
        Vector256<float> c00 = default, c01 = default;
        Vector256<float> c10 = default, c11 = default;
        Vector256<float> c20 = default, c21 = default;
        Vector256<float> c30 = default, c31 = default;
        Vector256<float> c40 = default, c41 = default;
        Vector256<float> c50 = default, c51 = default;
        if (resume)
        {
            var s = c;
            c00 = Vector256.Load(s); c01 = Vector256.Load(s + 8);
            s += ldc;
            c10 = Vector256.Load(s); c11 = Vector256.Load(s + 8);
            s += ldc;
            c20 = Vector256.Load(s); c21 = Vector256.Load(s + 8);
            s += ldc;
            c30 = Vector256.Load(s); c31 = Vector256.Load(s + 8);
            s += ldc;
            c40 = Vector256.Load(s); c41 = Vector256.Load(s + 8);
            s += ldc;
            c50 = Vector256.Load(s); c51 = Vector256.Load(s + 8);
        }

        for (var end = a + (steps * 6); a < end; a += 6, b += 16)
        {
            var b0 = Vector256.Load(b); var b1 = Vector256.Load(b + 8);
            var t = Vector256.Create(a[0]);
            c00 = Vector256.FusedMultiplyAdd(t, b0, c00); c01 = Vector256.FusedMultiplyAdd(t, b1, c01);
            t = Vector256.Create(a[1]);
            c10 = Vector256.FusedMultiplyAdd(t, b0, c10); c11 = Vector256.FusedMultiplyAdd(t, b1, c11);
            t = Vector256.Create(a[2]);
            c20 = Vector256.FusedMultiplyAdd(t, b0, c20); c21 = Vector256.FusedMultiplyAdd(t, b1, c21);
            t = Vector256.Create(a[3]);
            c30 = Vector256.FusedMultiplyAdd(t, b0, c30); c31 = Vector256.FusedMultiplyAdd(t, b1, c31);
            t = Vector256.Create(a[4]);
            c40 = Vector256.FusedMultiplyAdd(t, b0, c40); c41 = Vector256.FusedMultiplyAdd(t, b1, c41);
            t = Vector256.Create(a[5]);
            c50 = Vector256.FusedMultiplyAdd(t, b0, c50); c51 = Vector256.FusedMultiplyAdd(t, b1, c51);
        }

        c00.Store(c); c01.Store(c + 8);
        c += ldc;
        c10.Store(c); c11.Store(c + 8);
        c += ldc;
        c20.Store(c); c21.Store(c + 8);
        c += ldc;
        c30.Store(c); c31.Store(c + 8);
        c += ldc;
        c40.Store(c); c41.Store(c + 8);
        c += ldc;
        c50.Store(c); c51.Store(c + 8);
    }
}
