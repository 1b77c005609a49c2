using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Activations;

/// <summary>
/// Mixes rows of a source so that one batch holds rows of many texts. The buffer is filled, shuffled, and all but a
/// share of it (half) is served; then what is left is filled up again and shuffled anew. Its size is in rows (tokens), as SAELens meant
/// it: <c>n_batches_in_buffer</c> x <c>store_batch_size_prompts</c> x positions (SAELens 6.18 leaves the prompts out).
/// </summary>
/// <remarks>
/// Random order is Philox's by (seed, number of the refill), so it is the same on every device and thread count,
/// and for rows of any width: several hooks side by side are mixed as each alone would be.
/// Without shuffling the rows keep their order and the buffer only cuts them into full batches.
/// </remarks>
public sealed class MixingBuffer : IActivationSource, IDisposable
{
    private readonly IActivationSource _source;
    private readonly int _capacity;
    private readonly int _serve;
    private readonly ulong _seed;
    private readonly bool _shuffle;
    private Tensor? _store;
    private int[] _order = [];
    private int _served;
    private bool _sourceEnded;
    private uint _refills;

    /// <summary>Creates a buffer.</summary>
    /// <param name="source">Where rows come from.</param>
    /// <param name="capacity">Rows it holds, at least 1.</param>
    /// <param name="seed">Seed of the shuffling.</param>
    /// <param name="shuffle">Whether rows are mixed.</param>
    /// <param name="keep">Share of the buffer kept for the next mix, [0, 1); 0: each fill is served to its end.</param>
    /// <exception cref="InvalidInputException"><paramref name="capacity"/> or <paramref name="keep"/> is out of range.</exception>
    public MixingBuffer(IActivationSource source, int capacity, ulong seed, bool shuffle = true, double keep = 0.5)
    {
        if (!(keep is >= 0 and < 1)) throw new InvalidInputException($"activations_mixing_fraction: {keep} is not in [0, 1)");
        if (capacity < 1) throw new InvalidInputException($"mixing buffer: {capacity} tokens; it must hold at least 1 (n_batches_in_buffer)");
        _source = source;
        _capacity = capacity;
        _seed = seed;
        _shuffle = shuffle;
        _serve = Math.Max(1, capacity - (int)(capacity * keep));
    }

    /// <inheritdoc/>
    public int Width => _source.Width;

    /// <inheritdoc/>
    public IReadOnlyList<ColumnBlock> Blocks => _source.Blocks;

    /// <inheritdoc/>
    public double? MeanNorm(Device device, int batchRows, ColumnBlock? columns = null) => _source.MeanNorm(device, batchRows, columns);

    /// <inheritdoc/>
    /// <exception cref="InvalidInputException">A batch is larger than the buffer.</exception>
    public Tensor? Next(TensorScope scope, int rows)
    {
        if (rows > _capacity)
        {
            throw new InvalidInputException(
                $"mixing buffer: a batch of {rows} tokens is larger than the buffer of {_capacity}; raise n_batches_in_buffer or lower train_batch_size_tokens");
        }

        // At least one batch is served between refills; at the source's end everything.
        var serve = Math.Max(_serve, rows);
        if (!_sourceEnded && _served + rows > Math.Min(serve, _order.Length)) Refill(scope.Device);
        var n = Math.Min(rows, _order.Length - _served);
        if (n == 0) return null;
        var indices = scope.From<int>(_order.AsSpan(_served, n), [n]);
        _served += n;
        return GatherRows.Forward(scope, _store!, indices);
    }

    /// <summary>Gives the buffer's memory back.</summary>
    public void Dispose()
    {
        _store?.Dispose();
        _store = null;
    }

    private void Refill(Device device)
    {
        using var scope = new TensorScope(device);
        var store = new Tensor(device, [_capacity, Width]);
        var count = _order.Length - _served;
        if (count > 0)
        {
            var kept = GatherRows.Forward(scope, _store!, scope.From<int>(_order.AsSpan(_served), [count]));
            Put(store, 0, kept);
            scope.Release(kept);
        }

        _store?.Dispose();
        _store = store;
        while (count < _capacity)
        {
            using var chunkScope = new TensorScope(device);
            if (_source.Next(chunkScope, _capacity - count) is not { } chunk)
            {
                _sourceEnded = true;
                break;
            }

            Put(store, count, chunk);
            count += chunk.Shape[0];
        }

        _order = _shuffle ? Philox.Permutation(count, _seed, RandomStreams.Order(_refills)) : [.. Enumerable.Range(0, count)];
        _served = 0;
        _refills++;
    }

    private static void Put(Tensor store, int row, Tensor rows)
    {
        using var part = store.Slice(row, rows.Shape[0]);
        part.CopyFrom(rows);
    }
}
