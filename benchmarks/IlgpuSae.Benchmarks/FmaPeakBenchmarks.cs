using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using BenchmarkDotNet.Attributes;

namespace IlgpuSae.Benchmarks;

/// <summary>
/// What one core can do at most: fused multiply-adds on registers alone. 1e6 rounds of 12 independent chains;
/// GFLOP/s = 24 x lanes x 1e6 / time. Shares of the peak in docs/performance.md refer to it.
/// </summary>
public class FmaPeakBenchmarks
{
    private const int Rounds = 1_000_000;

    [Benchmark]
    public float Vector256Lanes8() => Vector256.Sum(Loop256());

    [Benchmark]
    public float Vector512Lanes16() => Vector512.Sum(Loop512());

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static Vector256<float> Loop256()
    {
        Vector256<float> a = Vector256.Create(1.0000001f), b = Vector256.Create(1e-9f);
        Vector256<float> c0 = a, c1 = a, c2 = a, c3 = a, c4 = a, c5 = a, c6 = a, c7 = a, c8 = a, c9 = a, cA = a, cB = a;
        for (var i = 0; i < Rounds; i++)
        {
            c0 = Vector256.MultiplyAddEstimate(c0, a, b);
            c1 = Vector256.MultiplyAddEstimate(c1, a, b);
            c2 = Vector256.MultiplyAddEstimate(c2, a, b);
            c3 = Vector256.MultiplyAddEstimate(c3, a, b);
            c4 = Vector256.MultiplyAddEstimate(c4, a, b);
            c5 = Vector256.MultiplyAddEstimate(c5, a, b);
            c6 = Vector256.MultiplyAddEstimate(c6, a, b);
            c7 = Vector256.MultiplyAddEstimate(c7, a, b);
            c8 = Vector256.MultiplyAddEstimate(c8, a, b);
            c9 = Vector256.MultiplyAddEstimate(c9, a, b);
            cA = Vector256.MultiplyAddEstimate(cA, a, b);
            cB = Vector256.MultiplyAddEstimate(cB, a, b);
        }

        return c0 + c1 + c2 + c3 + c4 + c5 + c6 + c7 + c8 + c9 + cA + cB;
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static Vector512<float> Loop512()
    {
        Vector512<float> a = Vector512.Create(1.0000001f), b = Vector512.Create(1e-9f);
        Vector512<float> c0 = a, c1 = a, c2 = a, c3 = a, c4 = a, c5 = a, c6 = a, c7 = a, c8 = a, c9 = a, cA = a, cB = a;
        for (var i = 0; i < Rounds; i++)
        {
            c0 = Vector512.MultiplyAddEstimate(c0, a, b);
            c1 = Vector512.MultiplyAddEstimate(c1, a, b);
            c2 = Vector512.MultiplyAddEstimate(c2, a, b);
            c3 = Vector512.MultiplyAddEstimate(c3, a, b);
            c4 = Vector512.MultiplyAddEstimate(c4, a, b);
            c5 = Vector512.MultiplyAddEstimate(c5, a, b);
            c6 = Vector512.MultiplyAddEstimate(c6, a, b);
            c7 = Vector512.MultiplyAddEstimate(c7, a, b);
            c8 = Vector512.MultiplyAddEstimate(c8, a, b);
            c9 = Vector512.MultiplyAddEstimate(c9, a, b);
            cA = Vector512.MultiplyAddEstimate(cA, a, b);
            cB = Vector512.MultiplyAddEstimate(cB, a, b);
        }

        return c0 + c1 + c2 + c3 + c4 + c5 + c6 + c7 + c8 + c9 + cA + cB;
    }
}
