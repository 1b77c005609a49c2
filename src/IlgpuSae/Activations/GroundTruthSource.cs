using System.Collections.Concurrent;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Activations;

/// <summary>
/// Activations whose features are known: rows are sums of few of n_true unit directions. An SAE does its work if its
/// decoder finds the directions and its features fire where they do.
/// </summary>
/// <remarks>
/// Row r is drawn from Philox streams of its own, so rows do not depend on how they are asked for, on the number of
/// threads or on the device, and any row can be had at any time (<see cref="Position"/>).
/// </remarks>
public abstract class GroundTruthSource : IActivationSource
{
    /// <summary>A row number no training reaches: rows from here on are held out.</summary>
    public const long HeldOut = 1L << 48;

    private const int Piece = 64;
    private readonly ConcurrentBag<RowDraft> _drafts = [];
    private float[] _values = [];

    private protected GroundTruthSource(SyntheticConfig config)
    {
        config.Validate();
        Config = config;
    }

    /// <summary>The settings.</summary>
    public SyntheticConfig Config { get; }

    /// <inheritdoc/>
    public int Width => Config.DIn;

    /// <summary>Number of true features, n_true.</summary>
    public int Features => Config.NTrue;

    /// <summary>Number of the next row, at least 0; may be set.</summary>
    public long Position { get; set; }

    /// <summary>The true directions, unit vectors, row-major [n_true, d_in].</summary>
    public abstract ReadOnlySpan<float> Directions { get; }

    /// <summary>How often each true feature is meant to be active, [n_true].</summary>
    public abstract IReadOnlyList<double> Probability { get; }

    /// <summary>Opens the source that settings describe.</summary>
    /// <param name="config">Settings.</param>
    /// <exception cref="InvalidInputException">A setting is out of range.</exception>
    public static GroundTruthSource Open(SyntheticConfig config) => config.Generator switch
    {
        FeatureGenerator.SynthSaeBench => new SynthSaeBench(config),
        _ => new SyntheticSuperposition(config),
    };

    /// <inheritdoc/>
    public Tensor? Next(TensorScope scope, int rows) => Fill(scope, rows, null);

    /// <summary>The next rows and what they are made of.</summary>
    /// <param name="scope">Owns the results.</param>
    /// <param name="rows">How many, at least 1.</param>
    /// <param name="truth">[rows, n_true]: the true features of each row and how strong they are.</param>
    /// <returns>F32 [rows, d_in].</returns>
    public Tensor Next(TensorScope scope, int rows, out SparseFeatures truth)
    {
        var active = new List<(int Feature, float Value)>[rows];
        var x = Fill(scope, rows, active);
        var offsets = new int[rows + 1];
        for (var r = 0; r < rows; r++) offsets[r + 1] = offsets[r] + active[r].Count;
        var all = active.SelectMany(a => a).ToArray();
        truth = new SparseFeatures(Features, scope.From<int>(offsets, [rows + 1]), scope.From<int>(Array.ConvertAll(all, a => a.Feature), [all.Length]),
            scope.From<float>(Array.ConvertAll(all, a => a.Value), [all.Length]));
        return x;
    }

    /// <summary>How many of the true directions a decoder holds.</summary>
    /// <param name="decoder">F32 [d_sae, d_in].</param>
    /// <exception cref="ShapeException">Its width is not d_in.</exception>
    public FeatureRecovery Recovery(Tensor decoder)
    {
        if (decoder.Shape.Rank != 2 || decoder.Shape[1] != Width) throw new ShapeException($"recovery: the decoder is {decoder.Shape}, the true directions are [{Features}, {Width}]");
        return FeatureRecovery.Of(Directions, decoder.ToArray<float>(), Width);
    }

    /// <summary>Writes one row.</summary>
    /// <param name="number">The row's number.</param>
    /// <param name="row">[d_in], zero.</param>
    /// <param name="draft">Scratch; its list receives the active features in ascending order.</param>
    private protected abstract void Row(long number, Span<float> row, RowDraft draft);

    private Tensor Fill(TensorScope scope, int rows, List<(int Feature, float Value)>[]? active)
    {
        if (_values.Length != (long)rows * Width) _values = new float[(long)rows * Width];
        Array.Clear(_values);
        var values = _values;
        var first = Position;
        Position += rows;
        void Rows(long from, long to)
        {
            if (!_drafts.TryTake(out var draft)) draft = new RowDraft(Features);
            for (var r = from; r < to; r++)
            {
                draft.Active.Clear();
                Row(first + r, values.AsSpan((int)r * Width, Width), draft);
                if (active is not null) active[r] = [.. draft.Active];
            }

            _drafts.Add(draft);
        }

        if (scope.Device is CpuDevice cpu) cpu.Pool.ForRange(rows, Piece, Rows);
        else Parallel.For(0, (rows + Piece - 1) / Piece, p => Rows(p * (long)Piece, Math.Min(rows, (p + 1L) * Piece)));
        return scope.From<float>(values, [rows, Width]);
    }

    /// <summary>What one worker needs to write rows, reused from row to row.</summary>
    private protected sealed class RowDraft(int features)
    {
        /// <summary>The row's active features.</summary>
        public List<(int Feature, float Value)> Active { get; } = [];

        /// <summary>One number a feature.</summary>
        public float[] PerFeature { get; } = new float[features];

        /// <summary>One more number a feature.</summary>
        public uint[] Words { get; } = new uint[features + 3];
    }
}
