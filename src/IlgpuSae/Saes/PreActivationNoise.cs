using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>
/// Normal noise of deviation <c>noise_scale</c> on the pre-activations, as SAELens had before version 6. Element
/// (row, feature) of a step is Philox' by (seed, step, place), so it is the same on every device and can be made anew
/// for some features alone.
/// </summary>
internal static class PreActivationNoise
{
    /// <summary>The noise of a step.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="config">Its <c>noise_scale</c>.</param>
    /// <param name="step">Seed and number.</param>
    /// <param name="shape">[n, d_sae].</param>
    public static Tensor Of(TensorScope scope, TrainingSaeConfig config, TrainingStep step, Shape shape)
    {
        var noise = scope.New(shape);
        RandomFill.Normal(noise, step.Seed, RandomUses.Noise(step.Index), 0, (float)config.NoiseScale);
        return noise;
    }

    /// <summary>Adds a step's noise to the pre-activations of some features.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="config">Its <c>noise_scale</c>; 0 returns <paramref name="pre"/>.</param>
    /// <param name="step">Seed and number.</param>
    /// <param name="pre">F32 [n, features.Length].</param>
    /// <param name="features">Which features.</param>
    public static Tensor AddTo(TensorScope scope, TrainingSaeConfig config, TrainingStep step, Tensor pre, ReadOnlySpan<int> features)
    {
        if (config.NoiseScale == 0) return pre;
        var n = pre.Shape[0];
        var all = new float[(long)n * config.DSae];
        using (var cpu = new CpuDevice(1))
        using (var whole = new Tensor(cpu, [n, config.DSae]))
        {
            RandomFill.Normal(whole, step.Seed, RandomUses.Noise(step.Index), 0, (float)config.NoiseScale);
            whole.CopyTo<float>(all);
        }

        var some = new float[pre.Count];
        for (var r = 0; r < n; r++)
            for (var i = 0; i < features.Length; i++) some[(r * features.Length) + i] = all[((long)r * config.DSae) + features[i]];
        return Add.Sum(scope, pre, scope.From<float>(some, pre.Shape));
    }
}
