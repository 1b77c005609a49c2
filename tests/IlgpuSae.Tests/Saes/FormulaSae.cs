using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Tests.Saes;

/// <summary>
/// An SAE and a batch from formulas: d_in 3, d_sae 5, two rows, W_enc[i, j] = sin(1 + 1.7 i + 0.9 j),
/// W_dec[j, i] = cos(0.3 + 1.1 j - 0.8 i) (1 + 0.2 j), b_enc[j] = 0.05 (j - 2), b_dec[i] = 0.1 (i - 1),
/// X[b, i] = 1.5 sin(0.5 + 2.3 b + 1.3 i).
/// </summary>
internal static class FormulaSae
{
    public static TrainingSae Create(TrainingSaeConfig config, Device device)
    {
        var sae = SaeRegistry.Default.CreateForTraining(config, device);
        sae.WEnc.CopyFrom<float>(Fill(15, n => Math.Sin(1 + (1.7 * (n % 3)) + (0.9 * (n / 3)))));
        sae.WDec.CopyFrom<float>(Fill(15, n => Math.Cos(0.3 + (1.1 * (n / 3)) - (0.8 * (n % 3))) * (1 + (0.2 * (n / 3)))));
        if (sae.Parameters.TryGetValue("b_enc", out var bias)) bias.CopyFrom<float>(Fill(5, j => 0.05 * (j - 2)));
        sae.BDec.CopyFrom<float>(Fill(3, i => 0.1 * (i - 1)));
        return sae;
    }

    public static Tensor Input(TensorScope scope) => scope.From<float>([.. Rows().Select(v => (float)v)], [2, 3]);

    public static double[] Rows() => [.. Enumerable.Range(0, 6).Select(n => (double)(float)(1.5 * Math.Sin(0.5 + (2.3 * (n / 3)) + (1.3 * (n % 3)))))];

    public static float[] Fill(int n, Func<int, double> f) => [.. Enumerable.Range(0, n).Select(i => (float)f(i))];
}
