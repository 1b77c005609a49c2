using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>Rows that lie in memory, handed out in order; at their end they start again at the top or end.</summary>
/// <param name="table">F32 [n, width] on any device; it stays the caller's.</param>
/// <param name="repeat">Whether to start again at the top; batches are then always full.</param>
public sealed class RowSource(Tensor table, bool repeat = true) : IActivationSource
{
    private int _next;

    /// <inheritdoc/>
    public int Width => table.Shape.Last;

    /// <inheritdoc/>
    public Tensor? Next(TensorScope scope, int rows)
    {
        var all = table.Shape[0];
        if (all == 0 || (!repeat && _next == all)) return null;
        var batch = scope.New([repeat ? rows : Math.Min(rows, all - _next), Width]);
        for (var done = 0; done < batch.Shape[0];)
        {
            var n = Math.Min(batch.Shape[0] - done, all - _next);
            using (var from = table.Slice(_next, n))
            using (var to = batch.Slice(done, n))
            {
                to.CopyFrom(from);
            }

            done += n;
            _next += n;
            if (repeat && _next == all) _next = 0;
        }

        return batch;
    }

    /// <inheritdoc/>
    public double? MeanNorm(Device device, int batchRows, ColumnBlock? columns = null)
    {
        var sum = 0.0;
        for (var at = 0; at < table.Shape[0]; at += batchRows)
        {
            using var scope = new TensorScope(device);
            using var slice = table.Slice(at, Math.Min(batchRows, table.Shape[0] - at));
            var batch = scope.New(slice.Shape);
            batch.CopyFrom(slice);
            if (columns is { } block && block.Width != Width) batch = Columns.Take(scope, batch, block.First, block.Width);
            foreach (var norm in RowNorm.L2(scope, batch).ToArray<float>()) sum += norm;
        }

        return sum / table.Shape[0];
    }
}
