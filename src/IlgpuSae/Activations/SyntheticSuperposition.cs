using IlgpuSae.Kernels;

namespace IlgpuSae.Activations;

/// <summary>
/// The plain source of known features: n_true unit directions in d_in dimensions, more than d_in, so that they
/// overlap; each row is the sum of a few of them with positive magnitudes. Feature i is active with probability
/// p_i = min(1, c (i + 1)^-power_law), c such that mean_active are active on average. Elhage et al. 2022, "Toy Models
/// of Superposition".
/// </summary>
/// <remarks>Directions are normal, scaled to unit length.</remarks>
public sealed class SyntheticSuperposition : GroundTruthSource
{
    private readonly float[] _directions;
    private readonly double[] _probability;

    /// <summary>Draws the directions.</summary>
    /// <param name="config">Settings.</param>
    /// <exception cref="InvalidInputException">A setting is out of range.</exception>
    public SyntheticSuperposition(SyntheticConfig config) : base(config)
    {
        _directions = DrawDirections(config);
        _probability = Probabilities(config);
    }

    /// <inheritdoc/>
    public override ReadOnlySpan<float> Directions => _directions;

    /// <inheritdoc/>
    public override IReadOnlyList<double> Probability => _probability;

    /// <summary>Unit vectors, [n_true, d_in]: normal numbers, scaled.</summary>
    internal static float[] DrawDirections(SyntheticConfig config)
    {
        var directions = new float[(long)config.NTrue * config.DIn];
        for (var j = 0; j < config.NTrue; j++) Direction(config, j, directions.AsSpan(j * config.DIn, config.DIn));
        return directions;
    }

    /// <summary>One row: the sum of its active features. Word j of the row's stream decides feature j.</summary>
    private protected override void Row(long number, Span<float> row, RowDraft draft)
    {
        var stream = RandomStreams.Row(number);
        var draws = new Philox(Config.Seed, stream, position: (ulong)Config.NTrue + 3 & ~3UL);
        Span<uint> words = stackalloc uint[4];
        var group = new Group(Config);
        for (var j = 0; j < Config.NTrue; j++)
        {
            if ((j & 3) == 0) (words[0], words[1], words[2], words[3]) = Philox.Block(Config.Seed, stream, (ulong)j >> 2);
            var u = (words[j & 3] >> 8) * (1f / (1 << 24));
            if (!group.IsActive(j, u, _probability, ref draws)) continue;
            var magnitude = (float)(1 + (Config.MagnitudeSpread * ((2.0 * draws.NextSingle()) - 1)));
            var direction = _directions.AsSpan(j * Width, Width);
            for (var i = 0; i < row.Length; i++) row[i] += magnitude * direction[i];
            draft.Active.Add((j, magnitude));
        }

        if (Config.NoiseStd == 0) return;
        for (var i = 0; i < row.Length; i++) row[i] += (float)(Config.NoiseStd * draws.NextNormal());
    }

    private static void Direction(SyntheticConfig config, int feature, Span<float> direction)
    {
        var draws = new Philox(config.Seed, RandomStreams.Direction(feature));
        double squares = 0;
        foreach (ref var v in direction)
        {
            v = (float)draws.NextNormal();
            squares += (double)v * v;
        }

        var factor = 1 / Math.Sqrt(squares);
        foreach (ref var v in direction) v = (float)(v * factor);
    }

    /// <summary>p_i = min(1, c (i + 1)^-a) with their sum equal to mean_active, by bisection on c.</summary>
    private static double[] Probabilities(SyntheticConfig config)
    {
        var weights = new double[config.NTrue];
        for (var i = 0; i < weights.Length; i++) weights[i] = Math.Pow(i + 1, -config.PowerLaw);
        double Sum(double c) => weights.Sum(w => Math.Min(1, c * w));
        double low = 0, high = config.MeanActive;
        while (Sum(high) < config.MeanActive && high < 1e30) high *= 2;
        for (var k = 0; k < 100; k++)
        {
            var middle = (low + high) / 2;
            if (Sum(middle) < config.MeanActive) low = middle;
            else high = middle;
        }

        return [.. weights.Select(w => Math.Min(1, high * w))];
    }

    /// <summary>How the features of a row's current group hang together.</summary>
    private struct Group(SyntheticConfig config)
    {
        private float _shared;
        private bool _parentIsActive;

        /// <summary>Whether a feature is active, given its own uniform number; features come in ascending order.</summary>
        public bool IsActive(int feature, float u, double[] probability, ref Philox draws)
        {
            var place = config.Groups == FeatureGroups.None ? 0 : feature % config.GroupSize;
            switch (config.Groups)
            {
                case FeatureGroups.Hierarchical when place > 0:
                    // Among the rows with the parent, so that over all rows the feature keeps its own probability.
                    return _parentIsActive && u < probability[feature] / probability[feature - place];
                case FeatureGroups.Correlated when place > 0:
                    // Half of the time a member follows its group's number, which leaves how often it is active.
                    return (draws.NextUInt32() < 1u << 31 ? _shared : u) < probability[feature];
                default:
                    _shared = u;
                    return _parentIsActive = u < probability[feature];
            }
        }
    }
}
