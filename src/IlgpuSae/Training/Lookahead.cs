using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Training;

/// <summary>
/// A source whose first batches can be looked at before they are trained on: they are kept and handed out again.
/// </summary>
/// <param name="source">The source; it stays the caller's.</param>
internal sealed class Lookahead(IActivationSource source) : IActivationSource, IDisposable
{
    private readonly Queue<Tensor> _kept = new();

    /// <inheritdoc/>
    public int Width => source.Width;

    /// <summary>The rows that come next, whole batches of them.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="rows">How many at least, if the source has them.</param>
    /// <param name="batch">Rows a batch, as they will be asked for.</param>
    /// <param name="cancellation">Stops between two batches.</param>
    /// <returns>F32 [n, <see cref="Width"/>]; null if there are none.</returns>
    public Tensor? Peek(TensorScope scope, int rows, int batch, CancellationToken cancellation)
    {
        var count = _kept.Sum(t => t.Shape[0]);
        while (count < rows && !cancellation.IsCancellationRequested)
        {
            using var step = new TensorScope(scope.Device);
            if (source.Next(step, batch) is not { } x) break;
            _kept.Enqueue(step.Keep(x));
            count += x.Shape[0];
        }

        if (count == 0) return null;
        var all = scope.New([count, Width]);
        var at = 0;
        foreach (var t in _kept)
        {
            using var part = all.Slice(at, t.Shape[0]);
            part.CopyFrom(t);
            at += t.Shape[0];
        }

        return all;
    }

    /// <inheritdoc/>
    public Tensor? Next(TensorScope scope, int rows) => _kept.TryDequeue(out var first) ? scope.Own(first) : source.Next(scope, rows);

    /// <inheritdoc/>
    public double? MeanNorm(Device device, int batchRows, ColumnBlock? columns = null) => source.MeanNorm(device, batchRows, columns);

    /// <summary>Gives back the batches that were not asked for.</summary>
    public void Dispose()
    {
        foreach (var t in _kept) t.Dispose();
        _kept.Clear();
    }
}
