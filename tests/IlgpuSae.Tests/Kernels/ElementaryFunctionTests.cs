using System.Runtime.Intrinsics;
using IlgpuSae.Kernels;
using Xunit;

namespace IlgpuSae.Tests.Kernels;

/// <summary>CpuMath and GpuMath (called as plain code) against double precision, in units of the last place.</summary>
public sealed class ElementaryFunctionTests
{
    [Fact]
    public void Exp_is_exact_to_two_units()
    {
        Check("exp", -87, 88.7, 2, Math.Exp, CpuMath.Exp, GpuMath.Exp);
        Check("exp, subnormal", -103.9, -87, 2, Math.Exp, CpuMath.Exp, GpuMath.Exp);
    }

    [Fact]
    public void Tanh_is_exact_to_three_units()
    {
        Check("tanh", -12, 12, 3, Math.Tanh, CpuMath.Tanh, GpuMath.Tanh);
        Check("tanh near 0", -1e-3, 1e-3, 3, Math.Tanh, CpuMath.Tanh, GpuMath.Tanh);
    }

    [Fact]
    public void Erf_is_exact_to_three_units()
    {
        Check("erf", -5, 5, 3, CpuMath.ErfReference, CpuMath.Erf, GpuMath.Erf);
        Check("erf near 0", -1e-3, 1e-3, 3, CpuMath.ErfReference, CpuMath.Erf, GpuMath.Erf);
    }

    [Fact]
    public void Sigmoid_is_exact_to_four_units() =>
        Check("sigmoid", -80, 80, 4, x => 1 / (1 + Math.Exp(-x)), CpuMath.Sigmoid, GpuMath.Sigmoid);

    [Fact]
    public void Log_is_exact_to_three_units()
    {
        Check("log", 1e-30, 1e-20, 3, Math.Log, null, GpuMath.Log);
        Check("log", 1, 1e5, 3, Math.Log, null, GpuMath.Log);
    }

    [Theory]
    [InlineData(float.NegativeInfinity, 0f, -1f, -1f)]
    [InlineData(float.PositiveInfinity, float.PositiveInfinity, 1f, 1f)]
    [InlineData(float.NaN, float.NaN, float.NaN, float.NaN)]
    [InlineData(0f, 1f, 0f, 0f)]
    [InlineData(-200f, 0f, -1f, -1f)]
    [InlineData(89f, float.PositiveInfinity, 1f, 1f)]
    public void Ends_of_the_range_are_right(float x, float exp, float tanh, float erf)
    {
        var v = Vector256.Create(x);
        Assert.Equal(exp, CpuMath.Exp(v)[3]);
        Assert.Equal(tanh, CpuMath.Tanh(v)[3]);
        Assert.Equal(erf, CpuMath.Erf(v)[3]);
        Assert.Equal(exp, GpuMath.Exp(x));
        Assert.Equal(tanh, GpuMath.Tanh(x));
        Assert.Equal(erf, GpuMath.Erf(x));
    }

    private static void Check(
        string what, double from, double to, double units, Func<double, double> exact,
        Func<Vector256<float>, Vector256<float>>? vector, Func<float, float> scalar)
    {
        const int N = 200_000;
        var worst = (Units: 0.0, At: 0f);
        for (var i = 0; i <= N; i++)
        {
            var x = (float)(from + ((to - from) * i / N));
            var expected = exact(x);
            var unit = Math.ScaleB(1, Math.Max(-149, Math.ILogB(expected == 0 ? 1e-300 : expected) - 23));
            var error = Math.Abs(scalar(x) - expected) / unit;
            if (vector is not null) error = Math.Max(error, Math.Abs(vector(Vector256.Create(x))[5] - expected) / unit);
            if (error > worst.Units) worst = (error, x);
        }

        Assert.True(worst.Units <= units, $"{what}: off by {worst.Units:F2} units at {worst.At:R}, allowed {units}");
    }
}
