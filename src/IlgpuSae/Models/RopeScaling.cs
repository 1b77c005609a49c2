using System.Text.Json;
using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>
/// How a model's rotary frequencies were changed for contexts longer than it was first trained on. Formulas are those of
/// Hugging Face transformers' modeling_rope_utils.py, which are what the checkpoints were trained or tuned with.
/// </summary>
public abstract record RopeScaling
{
    /// <summary>
    /// Frequencies as they are: theta^(-2i/d). Also what the "dynamic" kind amounts to here: it leaves them alone up
    /// to <c>max_position_embeddings</c>, which is the longest context.
    /// </summary>
    public static RopeScaling None { get; } = new Plain();

    /// <summary>Factor on cos and sin.</summary>
    internal virtual double AttentionFactor => 1;

    /// <summary>The scaled frequency of pair <paramref name="i"/>.</summary>
    internal abstract double Frequency(double plain, int i, int rotaryDim, double theta);

    /// <summary>Reads <c>rope_scaling</c> or the newer <c>rope_parameters</c> of a Hugging Face configuration.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="contextLength">The model's longest context, the default of the original one.</param>
    /// <exception cref="InvalidFileException">An unknown kind, or a missing or impossible number.</exception>
    public static RopeScaling Read(JsonConfig config, int contextLength)
    {
        var r = config.GetObjectOrNull("rope_parameters") ?? config.GetObjectOrNull("rope_scaling");
        return r is null ? None : ReadObject(r, contextLength, config.GetInt("original_max_position_embeddings", 0));
    }

    /// <summary>Reads one description of a scaling; Gemma 3 has one for each kind of layer.</summary>
    /// <param name="r">The object with <c>rope_type</c>.</param>
    /// <param name="contextLength">The model's longest context.</param>
    /// <param name="originalContext">The original context where it stands beside the object (Phi 3); 0: it does not.</param>
    internal static RopeScaling ReadObject(JsonConfig r, int contextLength, int originalContext = 0)
    {
        var kind = r.GetStringOrNull("rope_type") ?? r.GetStringOrNull("type") ?? "default";
        switch (kind)
        {
            case "default" or "dynamic":
                return None;
            case "linear":
                return new Linear(Positive(r, "factor"));
            case "llama3":
                double low = Positive(r, "low_freq_factor"), high = Positive(r, "high_freq_factor");
                if (high <= low) throw r.Wrong("high_freq_factor", $"is {high}, expected more than low_freq_factor {low}");
                return new Llama3(Positive(r, "factor"), low, high, r.GetInt("original_max_position_embeddings"));
            case "yarn":
                var original = r.GetInt("original_max_position_embeddings", contextLength);
                var factor = Optional(r, "factor") ?? (double)contextLength / original;
                if (!(factor > 0)) throw r.Wrong("factor", $"is {factor}, expected more than 0");
                return new Yarn(factor, original, Optional(r, "beta_fast") ?? 32, Optional(r, "beta_slow") ?? 1,
                    Optional(r, "attention_factor") ?? YarnAttention(factor, Optional(r, "mscale"), Optional(r, "mscale_all_dim")),
                    r.GetBool("truncate", true));
            case "longrope" or "su":
                var first = originalContext > 0 ? originalContext : r.GetInt("original_max_position_embeddings", contextLength);
                var growth = originalContext > 0 || !r.Has("factor") ? (double)contextLength / first : Positive(r, "factor");
                return new LongRope(Doubles(r, "short_factor"), first,
                    Optional(r, "attention_factor") ?? (growth <= 1 ? 1 : Math.Sqrt(1 + (Math.Log(growth) / Math.Log(first)))));
            default:
                throw r.Wrong("rope_type", $"is \"{kind}\", which is not known; known: default, linear, dynamic, llama3, longrope, yarn");
        }
    }

    /// <summary>Theta, the base of the wavelengths: in <c>rope_parameters</c> since transformers 5, beside it before.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="missing">What a missing key means.</param>
    /// <exception cref="InvalidFileException">Not a number.</exception>
    public static double ReadTheta(JsonConfig config, double missing) =>
        config.GetObjectOrNull("rope_parameters") is { } r && r.Has("rope_theta") ? r.GetDouble("rope_theta") : config.GetDouble("rope_theta", missing);

    private static double[] Doubles(JsonConfig r, string key)
    {
        if (!r.TryGet(key, out var list) || list.ValueKind != JsonValueKind.Array) throw r.Wrong(key, "is missing or no list, expected a list of numbers");
        return [.. list.EnumerateArray().Select(v => v.ValueKind == JsonValueKind.Number && v.GetDouble() is > 0 and var d ? d : throw r.Wrong(key, $"holds {v}, expected numbers above 0"))];
    }

    private static double? Optional(JsonConfig r, string key) => r.Has(key) ? r.GetDouble(key) : null;

    private static double YarnAttention(double factor, double? mscale, double? mscaleAllDim)
    {
        double Of(double m) => factor <= 1 ? 1 : (0.1 * m * Math.Log(factor)) + 1;
        return mscale is > 0 && mscaleAllDim is > 0 ? Of(mscale.Value) / Of(mscaleAllDim.Value) : Of(1);
    }

    private static double Positive(JsonConfig r, string key)
    {
        var v = r.GetDouble(key);
        return v > 0 ? v : throw r.Wrong(key, $"is {v}, expected more than 0");
    }

    private sealed record Plain : RopeScaling
    {
        internal override double Frequency(double plain, int i, int rotaryDim, double theta) => plain;
    }

    /// <summary>All frequencies divided by one factor.</summary>
    /// <param name="Factor">How much longer contexts became.</param>
    public sealed record Linear(double Factor) : RopeScaling
    {
        internal override double Frequency(double plain, int i, int rotaryDim, double theta) => plain / Factor;
    }

    /// <summary>Llama 3.1: long wavelengths divided by a factor, short ones kept, a linear passage between.</summary>
    /// <param name="Factor">Divides the frequencies of long wavelengths.</param>
    /// <param name="LowFreqFactor">Wavelengths above original context / this are long.</param>
    /// <param name="HighFreqFactor">Wavelengths below original context / this are short.</param>
    /// <param name="OriginalContext">Context of the original training, tokens.</param>
    public sealed record Llama3(double Factor, double LowFreqFactor, double HighFreqFactor, int OriginalContext) : RopeScaling
    {
        internal override double Frequency(double plain, int i, int rotaryDim, double theta)
        {
            var wavelength = 2 * Math.PI / plain;
            if (wavelength < OriginalContext / HighFreqFactor) return plain;
            if (wavelength > OriginalContext / LowFreqFactor) return plain / Factor;
            var smooth = ((OriginalContext / wavelength) - LowFreqFactor) / (HighFreqFactor - LowFreqFactor);
            return ((1 - smooth) * plain / Factor) + (smooth * plain);
        }
    }

    /// <summary>
    /// LongRoPE (Phi 3; arXiv:2402.13753): a factor a frequency. transformers changes to another list of factors once a
    /// text is longer than the original context, which changes all positions at once; here the context ends there.
    /// </summary>
    /// <param name="ShortFactors">Divide the frequencies within the original context, one a pair of dimensions.</param>
    /// <param name="OriginalContext">Context of the original training, tokens.</param>
    /// <param name="Attention">Factor on cos and sin.</param>
    public sealed record LongRope(IReadOnlyList<double> ShortFactors, int OriginalContext, double Attention) : RopeScaling
    {
        internal override double AttentionFactor => Attention;

        internal override double Frequency(double plain, int i, int rotaryDim, double theta) => i < ShortFactors.Count
            ? plain / ShortFactors[i]
            : throw new InvalidInputException($"longrope: {ShortFactors.Count} short factors for {rotaryDim / 2} pairs of dimensions");
    }

    /// <summary>YaRN (arXiv:2309.00071): interpolated by dimension, with a factor on cos and sin.</summary>
    /// <param name="Factor">Divides the frequencies of slow dimensions.</param>
    /// <param name="OriginalContext">Context of the original training, tokens.</param>
    /// <param name="BetaFast">Dimensions that turn at least so often in the original context stay.</param>
    /// <param name="BetaSlow">Dimensions that turn at most so often are fully interpolated.</param>
    /// <param name="Attention">Factor on cos and sin.</param>
    /// <param name="Truncate">Whether the bounds between the dimensions are rounded outwards.</param>
    public sealed record Yarn(double Factor, int OriginalContext, double BetaFast, double BetaSlow, double Attention, bool Truncate)
        : RopeScaling
    {
        internal override double AttentionFactor => Attention;

        internal override double Frequency(double plain, int i, int rotaryDim, double theta)
        {
            double low = Dimension(BetaFast), high = Dimension(BetaSlow);
            if (Truncate) (low, high) = (Math.Floor(low), Math.Ceiling(high));
            (low, high) = (Math.Max(low, 0), Math.Min(high, rotaryDim - 1));
            if (low == high) high += 0.001;
            var ramp = Math.Clamp((i - low) / (high - low), 0, 1);
            return (plain / Factor * ramp) + (plain * (1 - ramp));

            double Dimension(double rotations) =>
                rotaryDim * Math.Log(OriginalContext / (rotations * 2 * Math.PI)) / (2 * Math.Log(theta));
        }
    }
}
