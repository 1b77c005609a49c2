using IlgpuSae.Kernels;

namespace IlgpuSae.Activations;

/// <summary>
/// The hierarchy of true features: trees whose roots are the first features, children following level by level, so that
/// a parent comes before its children and a parent's children lie side by side. Features that are left over stand alone.
/// </summary>
internal sealed class FeatureForest
{
    private readonly int[] _firstChild;
    private readonly int[] _children;
    private readonly int[] _parent;
    private readonly bool[] _exclusive;

    /// <summary>Builds the trees.</summary>
    /// <param name="config">Settings, valid.</param>
    public FeatureForest(SyntheticConfig config)
    {
        var n = config.NTrue;
        (_firstChild, _children, _parent, _exclusive) = (new int[n], new int[n], new int[n], new bool[n]);
        Array.Fill(_parent, -1);
        Roots = Math.Min(config.TotalRootNodes, n);
        int next = Roots, level = 0;
        var eligible = new List<int>();
        for (var (from, to) = (0, Roots); level < config.MaxDepth && from < to; level++)
        {
            for (var p = from; p < to; p++)
            {
                _firstChild[p] = next;
                _children[p] = Math.Min(config.BranchingFactor, n - next);
                for (var c = next; c < next + _children[p]; c++) _parent[c] = p;
                next += _children[p];
                if (_children[p] >= 2 && level >= config.MutuallyExclusiveMinDepth && level <= (config.MutuallyExclusiveMaxDepth ?? level)) eligible.Add(p);
            }

            (from, to) = (to, next);
        }

        InTrees = next;
        var order = Philox.Permutation(eligible.Count, config.Seed, RandomStreams.Exclusion);
        foreach (var i in order.Take((int)(eligible.Count * config.MutuallyExclusivePortion))) _exclusive[eligible[i]] = true;
    }

    /// <summary>Number of trees: features 0 .. this - 1 are their roots.</summary>
    public int Roots { get; }

    /// <summary>Features in trees; the others stand alone.</summary>
    public int InTrees { get; }

    /// <summary>Where a feature's children begin, and how many there are.</summary>
    public (int First, int Count) Children(int feature) => (_firstChild[feature], _children[feature]);

    /// <summary>A feature's parent; -1 for roots and features that stand alone.</summary>
    public int Parent(int feature) => _parent[feature];

    /// <summary>Whether at most one of a feature's children fires.</summary>
    public bool IsExclusive(int feature) => _exclusive[feature];

    /// <summary>
    /// How often features have to be drawn so that about the wanted share is left: a child's probability is divided by
    /// its parent's, and multiplied by 1 + (sum of its exclusive siblings') / (its parent's); at most 1.
    /// </summary>
    /// <param name="wanted">Probability of each feature.</param>
    public double[] Compensate(double[] wanted)
    {
        var drawn = (double[])wanted.Clone();
        for (var p = 0; p < InTrees; p++)
        {
            var (first, count) = Children(p);
            var all = wanted.AsSpan(first, count).ToArray().Sum();
            for (var c = first; c < first + count; c++)
            {
                drawn[c] /= wanted[p];
                if (IsExclusive(p)) drawn[c] *= 1 + (Math.Max(0, all - wanted[c]) / wanted[p]);
                drawn[c] = Math.Min(1, drawn[c]);
            }
        }

        return drawn;
    }
}
