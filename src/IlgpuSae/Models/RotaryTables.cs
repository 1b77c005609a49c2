using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>
/// cos and sin of positions and pairs of rotated dimensions, [positions, rotary_dim / 2]: made for as many positions as
/// were asked for so far, since contexts of 131072 tokens would take a second and 128 MB.
/// </summary>
internal sealed class RotaryTables : IDisposable
{
    private const int FirstPositions = 2048;
    private readonly ModelSpec _spec;
    private readonly Device _device;
    private readonly float[] _frequencies;
    private readonly List<(Tensor Cos, Tensor Sin)> _made = [];

    internal RotaryTables(ModelSpec spec, Device device)
    {
        _spec = spec;
        _device = device;
        _frequencies = Frequencies(spec);
        _made.Add(Make(Math.Min(spec.NCtx, FirstPositions)));
    }

    /// <summary>Tables that hold at least the first <paramref name="positions"/> positions.</summary>
    internal (Tensor Cos, Tensor Sin) For(int positions)
    {
        // Smaller tables stay until the end: a tape may still refer to them. All together they are less than twice the last.
        if (_made[^1].Cos.Shape[0] < positions) _made.Add(Make(Math.Min(_spec.NCtx, Math.Max(positions, 2 * _made[^1].Cos.Shape[0]))));
        return _made[^1];
    }

    /// <summary>Radians a position for each pair, in float as transformers keeps them.</summary>
    internal static float[] Frequencies(ModelSpec spec)
    {
        var f = new float[spec.RotaryDim / 2];
        for (var i = 0; i < f.Length; i++)
        {
            var plain = Math.Pow(spec.RotaryBase, -2.0 * i / spec.RotaryDim);
            f[i] = (float)spec.RotaryScaling.Frequency(plain, i, spec.RotaryDim, spec.RotaryBase);
        }

        return f;
    }

    public void Dispose()
    {
        foreach (var (cos, sin) in _made)
        {
            cos.Dispose();
            sin.Dispose();
        }
    }

    private (Tensor Cos, Tensor Sin) Make(int n)
    {
        var half = _frequencies.Length;
        float[] cos = new float[n * half], sin = new float[n * half];
        var factor = _spec.RotaryScaling.AttentionFactor;
        for (var p = 0; p < n; p++)
        {
            for (var i = 0; i < half; i++)
            {
                // Angles are rounded to float as transformers does: at long contexts this is what the model saw.
                double angle = p * _frequencies[i];
                cos[(p * half) + i] = (float)(Math.Cos(angle) * factor);
                sin[(p * half) + i] = (float)(Math.Sin(angle) * factor);
            }
        }

        Tensor c = new(_device, [n, half]), s = new(_device, [n, half]);
        c.CopyFrom<float>(cos);
        s.CopyFrom<float>(sin);
        return (c, s);
    }
}
