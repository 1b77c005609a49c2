using System.Diagnostics;
using System.Runtime.ExceptionServices;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Runs;

/// <summary>
/// One stream of activations for several trainings that take turns: each sees the batches it would see alone, and every
/// batch is made once. A training that asks for a batch first lets the others have theirs, so one batch is kept.
/// </summary>
internal sealed class SharedStream : IDisposable
{
    private readonly IActivationSource _source;
    private readonly Turns _turns;
    private readonly Stopwatch _clock = new();
    private readonly Dictionary<(int BatchRows, ColumnBlock? Columns), double?> _norms = [];
    private readonly Dictionary<int, TimeSpan> _madeBy = [];
    private Tensor? _batch;
    private long _number = -1;
    private bool _ended;
    private ExceptionDispatchInfo? _failure;

    /// <summary>Shares a source.</summary>
    /// <param name="source">Where rows come from, of all hooks side by side; it stays the caller's.</param>
    /// <param name="turns">The order of the trainings.</param>
    public SharedStream(IActivationSource source, Turns turns) => (_source, _turns) = (source, turns);

    /// <summary>Time it took to make activations.</summary>
    public TimeSpan Elapsed => _clock.Elapsed;

    /// <summary>The part of it that fell into one training's turns.</summary>
    /// <param name="consumer">Its number.</param>
    public TimeSpan MadeBy(int consumer) => _madeBy.GetValueOrDefault(consumer);

    /// <summary>What one training sees.</summary>
    /// <param name="consumer">Its number in the turns.</param>
    public IActivationSource View(int consumer) => new Consumer(this, consumer);

    /// <summary>Gives the last batch's memory back.</summary>
    public void Dispose()
    {
        _batch?.Dispose();
        _batch = null;
    }

    private Tensor? Batch(Device device, long number, int rows)
    {
        if (number == _number + 1)
        {
            Dispose();
            _number = number;
            if (_ended) return null;
            _clock.Start();
            try
            {
                using var scope = new TensorScope(device);
                if (_source.Next(scope, rows) is { } batch) _batch = scope.Keep(batch);
                else _ended = true;
            }
            catch (Exception e)
            {
                _failure = ExceptionDispatchInfo.Capture(e);
            }

            _clock.Stop();
        }

        // What fails for one fails for all.
        _failure?.Throw();

        return number == _number ? _batch : throw new InvalidOperationException($"batch {number} was asked for when {_number} was the last");
    }

    private double? MeanNorm(Device device, int batchRows, ColumnBlock? columns)
    {
        if (_norms.TryGetValue((batchRows, columns), out var known)) return known;
        _clock.Start();
        var norm = _source.MeanNorm(device, batchRows, columns);
        _clock.Stop();
        return _norms[(batchRows, columns)] = norm;
    }

    private sealed class Consumer(SharedStream stream, int number) : IActivationSource
    {
        private long _next;

        public int Width => stream._source.Width;

        public IReadOnlyList<ColumnBlock> Blocks => stream._source.Blocks;

        public Tensor? Next(TensorScope scope, int rows)
        {
            stream._turns.Pass(number);
            // A view: no one writes into rows.
            var before = stream.Elapsed;
            var made = stream.Batch(scope.Device, _next++, rows);
            stream._madeBy[number] = stream.MadeBy(number) + (stream.Elapsed - before);
            return made is { } batch ? scope.Own(batch.Slice(0, batch.Shape[0])) : null;
        }

        public double? MeanNorm(Device device, int batchRows, ColumnBlock? columns = null) => stream.MeanNorm(device, batchRows, columns);
    }
}
