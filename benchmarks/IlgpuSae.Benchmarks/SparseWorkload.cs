using IlgpuSae.Tensors;

namespace IlgpuSae.Benchmarks;

/// <summary>Tensors of an SAE and a batch: normal activations, weights as at the start of training, a random pattern.</summary>
internal sealed class SparseWorkload : IDisposable
{
    public SparseWorkload(int rows, int dIn, int dSae, int active, int threads = 0)
    {
        Device = threads == 0 ? new CpuDevice() : new CpuDevice(threads);
        Scope = new TensorScope(Device);
        X = Normal([rows, dIn], 1, 1);
        WEnc = Normal([dSae, dIn], 2, 1 / MathF.Sqrt(dIn));
        WDec = Normal([dSae, dIn], 3, 1 / MathF.Sqrt(dIn));
        BEnc = Scope.Zeros([dSae]);
        BDec = Scope.Zeros([dIn]);
        Features = Pattern(rows, dSae, active);
    }

    public CpuDevice Device { get; }

    public TensorScope Scope { get; }

    public Tensor X { get; }

    public Tensor WEnc { get; }

    public Tensor WDec { get; }

    public Tensor BEnc { get; }

    public Tensor BDec { get; }

    /// <summary>Exactly the given number of active features a row, uniformly drawn.</summary>
    public SparseFeatures Features { get; }

    public Tensor[] Parameters => [WEnc, WDec, BEnc, BDec];

    public Tensor Normal(Shape shape, int seed, float scale)
    {
        var random = new Random(seed);
        var values = new float[shape.Count];
        for (var i = 0; i < values.Length; i++)
            values[i] = scale * (float)(Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble()));
        return Scope.From<float>(values, shape);
    }

    public void Dispose()
    {
        Scope.Dispose();
        Device.Dispose();
    }

    private SparseFeatures Pattern(int rows, int dSae, int active)
    {
        var random = new Random(4);
        var offsets = new int[rows + 1];
        var indices = new int[rows * active];
        for (var r = 0; r < rows; r++)
        {
            offsets[r + 1] = (r + 1) * active;
            var chosen = new SortedSet<int>();
            while (chosen.Count < active) chosen.Add(random.Next(dSae));
            chosen.CopyTo(indices, r * active);
        }

        return new SparseFeatures(dSae, Scope.From<int>(offsets, [rows + 1]), Scope.From<int>(indices, [indices.Length]), Normal([indices.Length], 5, 1));
    }
}
