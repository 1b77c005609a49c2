namespace IlgpuSae.Tensors;

/// <summary>
/// A fixed set of threads: the caller and parked workers. Pieces of work are claimed by index as threads get free, so
/// a slow core does not hold the others up; a piece's result must not depend on the thread that ran it.
/// </summary>
internal sealed class WorkerPool : IDisposable
{
    private readonly Thread[] _threads;
    private readonly SemaphoreSlim[] _start;
    private readonly ManualResetEventSlim _done = new(false, 200);
    private readonly Lock _turn = new();
    private readonly ThreadLocal<bool> _inside = new();
    private Action<int, int>? _body;
    private Exception? _failure;
    private int _count;
    private int _next;
    private int _running;
    private volatile bool _stop;

    internal WorkerPool(int threads)
    {
        Threads = threads;
        _threads = new Thread[threads - 1];
        _start = new SemaphoreSlim[threads - 1];
        for (var i = 0; i < _threads.Length; i++)
        {
            var id = i;
            _start[i] = new SemaphoreSlim(0);
            _threads[i] = new Thread(() => Loop(id)) { IsBackground = true, Name = $"ilgpusae-{id + 1}" };
            _threads[i].Start();
        }
    }

    internal int Threads { get; }

    /// <summary>
    /// Runs <paramref name="body"/>(piece, thread) for every piece 0..<paramref name="count"/>-1 and returns when all
    /// are done. <c>thread</c> is below <see cref="Threads"/> and names per-thread scratch. A call from inside a
    /// piece runs its pieces in order on the calling thread, as thread 0 of nothing: nested kernels must not share
    /// per-thread scratch with their caller.
    /// </summary>
    internal void For(int count, Action<int, int> body)
    {
        if (count <= 0) return;
        if (Threads == 1 || count == 1 || _inside.Value)
        {
            for (var i = 0; i < count; i++) body(i, 0);
            return;
        }

        lock (_turn)
        {
            var workers = Math.Min(Threads, count);
            _body = body;
            _count = count;
            _next = 0;
            _running = workers;
            _failure = null;
            _done.Reset();
            for (var i = 0; i < workers - 1; i++) _start[i].Release();
            Work(0);
            _done.Wait();
            _body = null;
            if (_failure is { } failure) System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(failure);
        }
    }

    /// <summary>Runs <paramref name="body"/>(from, to) over 0..<paramref name="length"/> in pieces of a fixed size.</summary>
    internal void ForRange(long length, int piece, Action<long, long> body) =>
        For(checked((int)((length + piece - 1) / piece)), (i, _) =>
        {
            var from = (long)i * piece;
            body(from, Math.Min(length, from + piece));
        });

    public void Dispose()
    {
        _stop = true;
        foreach (var s in _start) s.Release();
        foreach (var t in _threads) t.Join();
    }

    private void Loop(int id)
    {
        while (true)
        {
            _start[id].Wait();
            if (_stop) return;
            Work(id + 1);
        }
    }

    private void Work(int thread)
    {
        _inside.Value = true;
        try
        {
            int i;
            while ((i = Interlocked.Increment(ref _next) - 1) < _count) _body!(i, thread);
        }
        catch (Exception e)
        {
            // The first failure is kept and rethrown on the caller's thread; the remaining pieces are given up.
            Interlocked.CompareExchange(ref _failure, e, null);
            Volatile.Write(ref _next, _count);
        }
        finally
        {
            _inside.Value = false;
            if (Interlocked.Decrement(ref _running) == 0) _done.Set();
        }
    }
}
