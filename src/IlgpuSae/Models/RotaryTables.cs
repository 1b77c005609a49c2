using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>cos and sin of every position and pair of rotated dimensions, [n_ctx, rotary_dim / 2].</summary>
internal sealed class RotaryTables : IDisposable
{
    internal RotaryTables(ModelSpec spec, Device device)
    {
        int half = spec.RotaryDim / 2, n = spec.NCtx;
        var frequencies = Frequencies(spec);
        float[] cos = new float[n * half], sin = new float[n * half];
        var factor = spec.RotaryScaling.AttentionFactor;
        for (var p = 0; p < n; p++)
        {
            for (var i = 0; i < half; i++)
            {
                // Angles are rounded to float as transformers does: at long contexts this is what the model saw.
                double angle = p * frequencies[i];
                cos[(p * half) + i] = (float)(Math.Cos(angle) * factor);
                sin[(p * half) + i] = (float)(Math.Sin(angle) * factor);
            }
        }

        Cos = new Tensor(device, [n, half]);
        Sin = new Tensor(device, [n, half]);
        Cos.CopyFrom<float>(cos);
        Sin.CopyFrom<float>(sin);
    }

    internal Tensor Cos { get; }

    internal Tensor Sin { get; }

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
        Cos.Dispose();
        Sin.Dispose();
    }
}
