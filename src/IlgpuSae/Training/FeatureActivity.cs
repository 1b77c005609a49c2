using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Training;

/// <summary>Which features fire how often: what decides which count as dead, and the saved sparsity.</summary>
public sealed class FeatureActivity
{
    private readonly int[] _counts;
    private readonly int[] _dead;

    /// <summary>Nothing has fired yet, and nothing is overdue.</summary>
    /// <param name="dSae">Number of features.</param>
    public FeatureActivity(int dSae)
    {
        _counts = new int[dSae];
        _dead = new int[dSae];
        StepsSinceFired = new int[dSae];
        Frequencies = new long[dSae];
    }

    /// <summary>Steps since each feature last fired, [d_sae].</summary>
    public int[] StepsSinceFired { get; }

    /// <summary>Rows on which each feature fired in the current window, [d_sae].</summary>
    public long[] Frequencies { get; }

    /// <summary>Rows seen in the current window.</summary>
    public long WindowSamples { get; set; }

    /// <summary>Features silent for more steps than <paramref name="window"/>, ascending; valid until the next call.</summary>
    /// <param name="window">Steps.</param>
    public ReadOnlyMemory<int> Dead(int window)
    {
        var n = 0;
        for (var j = 0; j < StepsSinceFired.Length; j++)
            if (StepsSinceFired[j] > window) _dead[n++] = j;
        return _dead.AsMemory(0, n);
    }

    /// <summary>Starts a new window of frequencies.</summary>
    public void StartWindow()
    {
        Array.Clear(Frequencies);
        WindowSamples = 0;
    }

    /// <summary>Counts a batch.</summary>
    /// <param name="scope">For the counts.</param>
    /// <param name="features">[n, d_sae].</param>
    /// <returns>Number of features of the batch that are not zero.</returns>
    public long Count(TensorScope scope, SparseFeatures features)
    {
        FeatureCounts.Of(scope, features).CopyTo<int>(_counts);
        var all = 0L;
        for (var j = 0; j < _counts.Length; j++)
        {
            var n = _counts[j];
            StepsSinceFired[j] = n > 0 ? 0 : StepsSinceFired[j] + 1;
            Frequencies[j] += n;
            all += n;
        }

        WindowSamples += features.Rows;
        return all;
    }

    /// <summary>log10(frequency + 1e-10) of each feature in the current window.</summary>
    public float[] LogSparsity() =>
        [.. Frequencies.Select(n => (float)Math.Log10((WindowSamples == 0 ? 0 : (double)n / WindowSamples) + 1e-10))];
}
