using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace IlgpuSae.Kernels;

/// <summary>
/// 14 x 32 sums in 28 of the 32 zmm registers; two hold the columns of b, one the broadcast element of a.
/// </summary>
internal readonly unsafe struct Avx512MicroKernel : IGemmMicroKernel
{
    public static int Rows => 14;

    public static int Columns => 32;

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Run(long steps, float* a, float* b, float* c, long ldc, bool resume)
    {
        Vector512<float> c00 = default, c01 = default;
        Vector512<float> c10 = default, c11 = default;
        Vector512<float> c20 = default, c21 = default;
        Vector512<float> c30 = default, c31 = default;
        Vector512<float> c40 = default, c41 = default;
        Vector512<float> c50 = default, c51 = default;
        Vector512<float> c60 = default, c61 = default;
        Vector512<float> c70 = default, c71 = default;
        Vector512<float> c80 = default, c81 = default;
        Vector512<float> c90 = default, c91 = default;
        Vector512<float> cA0 = default, cA1 = default;
        Vector512<float> cB0 = default, cB1 = default;
        Vector512<float> cC0 = default, cC1 = default;
        Vector512<float> cD0 = default, cD1 = default;
        if (resume)
        {
            var s = c;
            c00 = Vector512.Load(s); c01 = Vector512.Load(s + 16);
            s += ldc;
            c10 = Vector512.Load(s); c11 = Vector512.Load(s + 16);
            s += ldc;
            c20 = Vector512.Load(s); c21 = Vector512.Load(s + 16);
            s += ldc;
            c30 = Vector512.Load(s); c31 = Vector512.Load(s + 16);
            s += ldc;
            c40 = Vector512.Load(s); c41 = Vector512.Load(s + 16);
            s += ldc;
            c50 = Vector512.Load(s); c51 = Vector512.Load(s + 16);
            s += ldc;
            c60 = Vector512.Load(s); c61 = Vector512.Load(s + 16);
            s += ldc;
            c70 = Vector512.Load(s); c71 = Vector512.Load(s + 16);
            s += ldc;
            c80 = Vector512.Load(s); c81 = Vector512.Load(s + 16);
            s += ldc;
            c90 = Vector512.Load(s); c91 = Vector512.Load(s + 16);
            s += ldc;
            cA0 = Vector512.Load(s); cA1 = Vector512.Load(s + 16);
            s += ldc;
            cB0 = Vector512.Load(s); cB1 = Vector512.Load(s + 16);
            s += ldc;
            cC0 = Vector512.Load(s); cC1 = Vector512.Load(s + 16);
            s += ldc;
            cD0 = Vector512.Load(s); cD1 = Vector512.Load(s + 16);
        }

        for (var end = a + (steps * 14); a < end; a += 14, b += 32)
        {
            var b0 = Vector512.Load(b); var b1 = Vector512.Load(b + 16);
            var t = Vector512.Create(a[0]);
            c00 = Vector512.FusedMultiplyAdd(t, b0, c00); c01 = Vector512.FusedMultiplyAdd(t, b1, c01);
            t = Vector512.Create(a[1]);
            c10 = Vector512.FusedMultiplyAdd(t, b0, c10); c11 = Vector512.FusedMultiplyAdd(t, b1, c11);
            t = Vector512.Create(a[2]);
            c20 = Vector512.FusedMultiplyAdd(t, b0, c20); c21 = Vector512.FusedMultiplyAdd(t, b1, c21);
            t = Vector512.Create(a[3]);
            c30 = Vector512.FusedMultiplyAdd(t, b0, c30); c31 = Vector512.FusedMultiplyAdd(t, b1, c31);
            t = Vector512.Create(a[4]);
            c40 = Vector512.FusedMultiplyAdd(t, b0, c40); c41 = Vector512.FusedMultiplyAdd(t, b1, c41);
            t = Vector512.Create(a[5]);
            c50 = Vector512.FusedMultiplyAdd(t, b0, c50); c51 = Vector512.FusedMultiplyAdd(t, b1, c51);
            t = Vector512.Create(a[6]);
            c60 = Vector512.FusedMultiplyAdd(t, b0, c60); c61 = Vector512.FusedMultiplyAdd(t, b1, c61);
            t = Vector512.Create(a[7]);
            c70 = Vector512.FusedMultiplyAdd(t, b0, c70); c71 = Vector512.FusedMultiplyAdd(t, b1, c71);
            t = Vector512.Create(a[8]);
            c80 = Vector512.FusedMultiplyAdd(t, b0, c80); c81 = Vector512.FusedMultiplyAdd(t, b1, c81);
            t = Vector512.Create(a[9]);
            c90 = Vector512.FusedMultiplyAdd(t, b0, c90); c91 = Vector512.FusedMultiplyAdd(t, b1, c91);
            t = Vector512.Create(a[10]);
            cA0 = Vector512.FusedMultiplyAdd(t, b0, cA0); cA1 = Vector512.FusedMultiplyAdd(t, b1, cA1);
            t = Vector512.Create(a[11]);
            cB0 = Vector512.FusedMultiplyAdd(t, b0, cB0); cB1 = Vector512.FusedMultiplyAdd(t, b1, cB1);
            t = Vector512.Create(a[12]);
            cC0 = Vector512.FusedMultiplyAdd(t, b0, cC0); cC1 = Vector512.FusedMultiplyAdd(t, b1, cC1);
            t = Vector512.Create(a[13]);
            cD0 = Vector512.FusedMultiplyAdd(t, b0, cD0); cD1 = Vector512.FusedMultiplyAdd(t, b1, cD1);
        }

        c00.Store(c); c01.Store(c + 16);
        c += ldc;
        c10.Store(c); c11.Store(c + 16);
        c += ldc;
        c20.Store(c); c21.Store(c + 16);
        c += ldc;
        c30.Store(c); c31.Store(c + 16);
        c += ldc;
        c40.Store(c); c41.Store(c + 16);
        c += ldc;
        c50.Store(c); c51.Store(c + 16);
        c += ldc;
        c60.Store(c); c61.Store(c + 16);
        c += ldc;
        c70.Store(c); c71.Store(c + 16);
        c += ldc;
        c80.Store(c); c81.Store(c + 16);
        c += ldc;
        c90.Store(c); c91.Store(c + 16);
        c += ldc;
        cA0.Store(c); cA1.Store(c + 16);
        c += ldc;
        cB0.Store(c); cB1.Store(c + 16);
        c += ldc;
        cC0.Store(c); cC1.Store(c + 16);
        c += ldc;
        cD0.Store(c); cD1.Store(c + 16);
    }
}
