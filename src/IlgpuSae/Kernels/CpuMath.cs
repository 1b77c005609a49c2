using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace IlgpuSae.Kernels;

/// <summary>
/// Elementary functions on eight floats. A lane's result depends on that lane alone, so it is the same at the end of a
/// row as in its middle. Polynomials are our own near-minimax fits (weighted least squares in 40 digits); errors, in
/// units of the last place against double precision: exp, tanh, sigmoid and erf below 3.
/// </summary>
internal static class CpuMath
{
    // ln 2 in two parts; the first has 15 significant bits, so n * Ln2High is exact.
    internal const float Ln2High = 0.693145751953125f;
    internal const float Ln2Low = 1.42860677e-6f;
    internal const float Log2E = 1.44269504f;

    /// <summary>Above it exp is infinite.</summary>
    internal const float ExpMax = 88.8f;

    /// <summary>Below it exp is zero, subnormal numbers included.</summary>
    internal const float ExpMin = -104f;

    /// <summary>exp(r) = 1 + r + r^2 p(r), |r| at most ln(2)/2: coefficients of p.</summary>
    internal const float E0 = 0.500000007f, E1 = 0.166666659f, E2 = 0.0416662935f, E3 = 0.00833349754f, E4 = 0.00139447688f, E5 = 0.000197903429f;

    /// <summary>tanh(x) = x + x s p(s), s = x^2, |x| below <see cref="TanhSmall"/>: coefficients of p.</summary>
    internal const float T0 = -0.333332839f, T1 = 0.133314907f, T2 = -0.0537434541f, T3 = 0.0206504583f, T4 = -0.00571691327f;

    /// <summary>Where tanh changes from its polynomial to exp.</summary>
    internal const float TanhSmall = 0.625f;

    /// <summary>erf(x) = x + x p(x^2), |x| below <see cref="ErfSmall"/>: coefficients of p.</summary>
    internal const float S0 = 0.12837915f, S1 = -0.376124943f, S2 = 0.112818026f, S3 = -0.0267655609f, S4 = 0.00499097218f, S5 = -0.000597685638f;

    /// <summary>erf(x) = 1 - exp(p(x)), x from <see cref="ErfSmall"/> to 4: coefficients of p.</summary>
    internal const float L0 = 0.000177340877f, L1 = -1.12952768f, L2 = -0.633321186f, L3 = -0.108308347f,
        L4 = 0.0251376735f, L5 = -0.00417798312f, L6 = 0.000435889273f, L7 = -2.12183364e-5f;

    /// <summary>Where erf changes from one polynomial to the other.</summary>
    internal const float ErfSmall = 0.93f;

    /// <summary>e^x: 0 from -104 down, infinity from 88.8 up, NaN for NaN.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static Vector256<float> Exp(Vector256<float> x)
    {
        // Operand order: where x is NaN, x comes back.
        x = Vector256.MinNative(Vector256.Create(ExpMax), Vector256.MaxNative(Vector256.Create(ExpMin), x));
        var n = Vector256.Round(x * Vector256.Create(Log2E));
        var r = Vector256.MultiplyAddEstimate(n, Vector256.Create(-Ln2High), x);
        r = Vector256.MultiplyAddEstimate(n, Vector256.Create(-Ln2Low), r);
        var p = Vector256.MultiplyAddEstimate(r, Vector256.Create(E5), Vector256.Create(E4));
        p = Vector256.MultiplyAddEstimate(p, r, Vector256.Create(E3));
        p = Vector256.MultiplyAddEstimate(p, r, Vector256.Create(E2));
        p = Vector256.MultiplyAddEstimate(p, r, Vector256.Create(E1));
        p = Vector256.MultiplyAddEstimate(p, r, Vector256.Create(E0));
        p = Vector256.MultiplyAddEstimate(p, r * r, r) + Vector256<float>.One;
        // 2^n in two factors, each a normal number, so results may be subnormal or infinite.
        var k = Vector256.ConvertToInt32Native(n);
        var half = k >> 1;
        var bias = Vector256.Create(127);
        return p * ((half + bias) << 23).AsSingle() * ((k - half + bias) << 23).AsSingle();
    }

    /// <summary>Hyperbolic tangent.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static Vector256<float> Tanh(Vector256<float> x)
    {
        var a = Vector256.Abs(x);
        var s = x * x;
        var p = Vector256.MultiplyAddEstimate(s, Vector256.Create(T4), Vector256.Create(T3));
        p = Vector256.MultiplyAddEstimate(p, s, Vector256.Create(T2));
        p = Vector256.MultiplyAddEstimate(p, s, Vector256.Create(T1));
        p = Vector256.MultiplyAddEstimate(p, s, Vector256.Create(T0));
        p = Vector256.MultiplyAddEstimate(p * s, a, a);
        var large = Vector256<float>.One - (Vector256.Create(2f) / (Exp(a + a) + Vector256<float>.One));
        var y = Vector256.ConditionalSelect(Vector256.LessThan(a, Vector256.Create(TanhSmall)), p, large);
        return y | (x & Vector256.Create(-0f));
    }

    /// <summary>1 / (1 + e^-x).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static Vector256<float> Sigmoid(Vector256<float> x) => Vector256<float>.One / (Vector256<float>.One + Exp(-x));

    /// <summary>Error function.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static Vector256<float> Erf(Vector256<float> x)
    {
        var a = Vector256.Abs(x);
        var s = x * x;
        var p = Vector256.MultiplyAddEstimate(s, Vector256.Create(S5), Vector256.Create(S4));
        p = Vector256.MultiplyAddEstimate(p, s, Vector256.Create(S3));
        p = Vector256.MultiplyAddEstimate(p, s, Vector256.Create(S2));
        p = Vector256.MultiplyAddEstimate(p, s, Vector256.Create(S1));
        p = Vector256.MultiplyAddEstimate(p, s, Vector256.Create(S0));
        p = Vector256.MultiplyAddEstimate(p, a, a);
        // From 4 on the result is 1 to the last bit.
        var t = Vector256.MinNative(Vector256.Create(4f), a);
        var q = Vector256.MultiplyAddEstimate(t, Vector256.Create(L7), Vector256.Create(L6));
        q = Vector256.MultiplyAddEstimate(q, t, Vector256.Create(L5));
        q = Vector256.MultiplyAddEstimate(q, t, Vector256.Create(L4));
        q = Vector256.MultiplyAddEstimate(q, t, Vector256.Create(L3));
        q = Vector256.MultiplyAddEstimate(q, t, Vector256.Create(L2));
        q = Vector256.MultiplyAddEstimate(q, t, Vector256.Create(L1));
        q = Vector256.MultiplyAddEstimate(q, t, Vector256.Create(L0));
        var large = Vector256<float>.One - Exp(q);
        var y = Vector256.ConditionalSelect(Vector256.LessThan(a, Vector256.Create(ErfSmall)), p, large);
        return y | (x & Vector256.Create(-0f));
    }

    /// <summary>Error function in double precision: the definition that tests compare with. A series of positive terms.</summary>
    internal static double ErfReference(double x)
    {
        if (Math.Abs(x) > 6) return Math.Sign(x);
        // erf(x) = 2/sqrt(pi) exp(-x^2) sum_n 2^n x^(2n+1) / (1*3*...*(2n+1))
        double term = x, sum = x;
        for (var n = 1; Math.Abs(term) > 1e-18 * Math.Abs(sum); n++)
        {
            term *= 2 * x * x / ((2 * n) + 1);
            sum += term;
        }

        return 2 / Math.Sqrt(Math.PI) * Math.Exp(-x * x) * sum;
    }
}
