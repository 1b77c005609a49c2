using IlgpuSae.Kernels;

namespace IlgpuSae.Models;

/// <summary>
/// Draws a token from logits on the host, in double. Order: repetition penalty, temperature, frequency penalty, then
/// top-k, then top-p over what is left, as transformers and TransformerLens do; ties keep the lower id. The draw is
/// Philox(seed, row, step): nothing else matters.
/// </summary>
internal static class Sampler
{
    /// <param name="logits">Of every token.</param>
    /// <param name="options">How.</param>
    /// <param name="row">The row of the batch.</param>
    /// <param name="step">New tokens the row had before.</param>
    /// <param name="seen">The row's tokens so far, for the penalties.</param>
    internal static int Draw(ReadOnlySpan<float> logits, GenerationOptions options, int row, int step, IReadOnlyList<int>? seen = null)
    {
        var scores = new double[logits.Length];
        for (var i = 0; i < scores.Length; i++)
        {
            if (float.IsNaN(logits[i])) throw new IlgpuSaeException($"generate: the logit of token {i} is not a number (row {row}, new token {step})");
            scores[i] = logits[i];
        }

        Penalize(scores, options, seen ?? []);
        var best = 0;
        for (var i = 0; i < scores.Length; i++)
            if (scores[i] > scores[best]) best = i;
        if (options.Temperature == 0 || options.TopK == 1) return best;
        var top = scores[best];
        var weights = new double[scores.Length];
        for (var i = 0; i < weights.Length; i++) weights[i] = Math.Exp(scores[i] - top);
        var kept = Keep(weights, options);
        double total = 0;
        foreach (var i in kept) total += weights[i];
        // Two words a step make the 53 bits of a double in [0, 1).
        var random = new Philox(options.Seed, options.FirstRow + (ulong)row, 2 * (ulong)step);
        var u = (((ulong)random.NextUInt32() << 21) ^ (random.NextUInt32() >> 11)) * (1.0 / (1UL << 53)) * total;
        foreach (var i in kept)
        {
            u -= weights[i];
            if (u < 0) return i;
        }

        return kept[^1];
    }

    /// <summary>The ids one may draw, likeliest first where anything is cut off.</summary>
    internal static int[] Keep(double[] weights, GenerationOptions options)
    {
        var ids = Enumerable.Range(0, weights.Length).ToArray();
        if (options.TopK == 0 && options.TopP == 1) return ids;
        Array.Sort(ids, (a, b) => weights[a] != weights[b] ? weights[b].CompareTo(weights[a]) : a.CompareTo(b));
        if (options.TopK > 0 && options.TopK < ids.Length) ids = ids[..options.TopK];
        if (options.TopP == 1) return ids;
        double total = 0;
        foreach (var i in ids) total += weights[i];
        double sum = 0;
        for (var n = 0; n < ids.Length; n++)
        {
            sum += weights[ids[n]];
            if (sum >= options.TopP * total) return ids[..(n + 1)];
        }

        return ids;
    }

    /// <summary>Penalties and temperature in place.</summary>
    private static void Penalize(double[] scores, GenerationOptions options, IReadOnlyList<int> seen)
    {
        if (options.RepetitionPenalty != 1)
        {
            foreach (var id in seen.Distinct())
                scores[id] = scores[id] > 0 ? scores[id] / options.RepetitionPenalty : scores[id] * options.RepetitionPenalty;
        }

        if (options.Temperature > 0) for (var i = 0; i < scores.Length; i++) scores[i] /= options.Temperature;
        if (options.FrequencyPenalty != 0) foreach (var id in seen) scores[id] -= options.FrequencyPenalty;
    }
}
