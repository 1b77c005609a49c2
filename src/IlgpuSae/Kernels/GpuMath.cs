using ILGPU;

namespace IlgpuSae.Kernels;

/// <summary>
/// Elementary functions for ILGPU kernels: the approximations of <see cref="CpuMath"/> in scalar form. ILGPU's own map
/// to the hardware's approximate instructions, whose errors (tanh: 11 bits) are too large for models.
/// </summary>
internal static class GpuMath
{
    /// <summary>e^x: 0 from -104 down, infinity from 88.8 up, NaN for NaN.</summary>
    internal static float Exp(float x)
    {
        if (x > CpuMath.ExpMax) x = CpuMath.ExpMax;
        if (x < CpuMath.ExpMin) x = CpuMath.ExpMin;
        var scaled = x * CpuMath.Log2E;
        var n = (int)(scaled + (scaled < 0 ? -0.5f : 0.5f));
        var r = (n * -CpuMath.Ln2High) + x;
        r = (n * -CpuMath.Ln2Low) + r;
        var p = (r * CpuMath.E5) + CpuMath.E4;
        p = (p * r) + CpuMath.E3;
        p = (p * r) + CpuMath.E2;
        p = (p * r) + CpuMath.E1;
        p = (p * r) + CpuMath.E0;
        p = ((p * (r * r)) + r) + 1f;
        var half = n >> 1;
        return p * Interop.IntAsFloat((uint)((half + 127) << 23)) * Interop.IntAsFloat((uint)((n - half + 127) << 23));
    }

    /// <summary>Natural logarithm of a positive, normal number.</summary>
    internal static float Log(float x)
    {
        var bits = (int)Interop.FloatAsInt(x);
        // The exponent that leaves a fraction in [sqrt(1/2), sqrt(2)).
        var n = (bits - 0x3f3504f3) >> 23;
        var m = Interop.IntAsFloat((uint)(bits - (n << 23)));
        // ln m = 2 artanh s
        var s = (m - 1f) / (m + 1f);
        var q = s * s;
        var p = (q * (2f / 11)) + (2f / 9);
        p = (p * q) + (2f / 7);
        p = (p * q) + (2f / 5);
        p = (p * q) + (2f / 3);
        return (n * CpuMath.Ln2High) + ((n * CpuMath.Ln2Low) + ((p * q * s) + (2f * s)));
    }

    /// <summary>Hyperbolic tangent.</summary>
    internal static float Tanh(float x)
    {
        var a = x < 0 ? -x : x;
        float y;
        if (a < CpuMath.TanhSmall)
        {
            var s = x * x;
            var p = (s * CpuMath.T4) + CpuMath.T3;
            p = (p * s) + CpuMath.T2;
            p = (p * s) + CpuMath.T1;
            p = (p * s) + CpuMath.T0;
            y = (p * s * a) + a;
        }
        else
        {
            y = 1f - (2f / (Exp(a + a) + 1f));
        }

        return x < 0 ? -y : y;
    }

    /// <summary>1 / (1 + e^-x).</summary>
    internal static float Sigmoid(float x) => 1f / (1f + Exp(-x));

    /// <summary>Error function.</summary>
    internal static float Erf(float x)
    {
        var a = x < 0 ? -x : x;
        float y;
        if (a < CpuMath.ErfSmall)
        {
            var s = x * x;
            var p = (s * CpuMath.S5) + CpuMath.S4;
            p = (p * s) + CpuMath.S3;
            p = (p * s) + CpuMath.S2;
            p = (p * s) + CpuMath.S1;
            p = (p * s) + CpuMath.S0;
            y = (p * a) + a;
        }
        else
        {
            var t = a > 4f ? 4f : a;
            var q = (t * CpuMath.L7) + CpuMath.L6;
            q = (q * t) + CpuMath.L5;
            q = (q * t) + CpuMath.L4;
            q = (q * t) + CpuMath.L3;
            q = (q * t) + CpuMath.L2;
            q = (q * t) + CpuMath.L1;
            q = (q * t) + CpuMath.L0;
            y = 1f - Exp(q);
        }

        return x < 0 ? -y : y;
    }

    /// <summary>
    /// Sum over the group's threads, in a tree whose shape depends on the group size alone. Every thread calls it and
    /// gets the sum; <paramref name="scratch"/> is shared memory of at least the group's size.
    /// </summary>
    internal static float GroupSum(float value, ArrayView<float> scratch)
    {
        scratch[Group.IdxX] = value;
        Group.Barrier();
        for (var step = Group.DimX >> 1; step > 0; step >>= 1)
        {
            if (Group.IdxX < step) scratch[Group.IdxX] += scratch[Group.IdxX + step];
            Group.Barrier();
        }

        var sum = scratch[0];
        Group.Barrier();
        return sum;
    }

    /// <summary>Largest value over the group's threads; as <see cref="GroupSum"/>.</summary>
    internal static float GroupMax(float value, ArrayView<float> scratch)
    {
        scratch[Group.IdxX] = value;
        Group.Barrier();
        for (var step = Group.DimX >> 1; step > 0; step >>= 1)
        {
            if (Group.IdxX < step)
            {
                var other = scratch[Group.IdxX + step];
                if (other > scratch[Group.IdxX]) scratch[Group.IdxX] = other;
            }

            Group.Barrier();
        }

        var max = scratch[0];
        Group.Barrier();
        return max;
    }
}
