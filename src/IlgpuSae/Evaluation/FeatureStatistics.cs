namespace IlgpuSae.Evaluation;

/// <summary>Running counts of when features fire. A feature fires where its activation is not zero.</summary>
internal sealed class FeatureStatistics(int features)
{
    private readonly long[] _firings = new long[features];
    private readonly long[] _prompts = new long[features];
    private readonly int[] _lastPrompt = NewLast(features);
    private double _sum;
    private long _active, _rows;

    /// <summary>Adds rows of one batch.</summary>
    /// <param name="offsets">[rows + 1]: where each row's entries start.</param>
    /// <param name="indices">Feature of each entry.</param>
    /// <param name="values">Activation of each entry.</param>
    /// <param name="promptOfRow">[rows]: number of the prompt each row is from, ascending over all calls.</param>
    public void Add(ReadOnlySpan<int> offsets, ReadOnlySpan<int> indices, ReadOnlySpan<float> values, ReadOnlySpan<int> promptOfRow)
    {
        for (var r = 0; r < promptOfRow.Length; r++)
        {
            for (var e = offsets[r]; e < offsets[r + 1]; e++)
            {
                if (values[e] == 0) continue;
                var j = indices[e];
                _active++;
                _sum += values[e];
                _firings[j]++;
                if (_lastPrompt[j] == promptOfRow[r]) continue;
                _lastPrompt[j] = promptOfRow[r];
                _prompts[j]++;
            }
        }

        _rows += promptOfRow.Length;
    }

    /// <summary>Mean number of active features and mean sum of activations a row, and how features are spread.</summary>
    /// <param name="denseAbove">Share of rows above which a feature counts as dense.</param>
    public Sparsity Results(double denseAbove) => new()
    {
        L0 = (double)_active / _rows,
        L1 = _sum / _rows,
        DeadFeatures = _firings.Count(f => f == 0),
        DenseFeatures = _firings.Count(f => f > denseAbove * _rows),
    };

    /// <summary>Share of rows in which each feature fires, [d_sae].</summary>
    public double[] Density() => [.. _firings.Select(f => (double)f / _rows)];

    /// <summary>Rows in which a feature fires a prompt in which it fires at all, [d_sae]; NaN if it never fires.</summary>
    public double[] ConsistentActivation() => [.. _firings.Zip(_prompts, (f, p) => (double)f / p)];

    private static int[] NewLast(int features)
    {
        var last = new int[features];
        Array.Fill(last, -1);
        return last;
    }
}
