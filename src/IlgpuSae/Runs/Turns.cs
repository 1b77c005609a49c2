using System.Diagnostics;
using System.Runtime.ExceptionServices;
using IlgpuSae.Tensors;

namespace IlgpuSae.Runs;

/// <summary>
/// Several pieces of work on threads of their own, of which exactly one runs at any time: they take turns in a fixed
/// order, so that the result does not depend on the threads. A piece gives the turn away where it says so.
/// </summary>
internal sealed class Turns
{
    private enum State
    {
        Running,
        AtTheGate,
        Done,
    }

    private readonly object _lock = new();
    private readonly State[] _states;
    private readonly Stopwatch[] _clocks;
    private readonly Exception?[] _failures;
    private int _turn;

    /// <summary>Nothing runs yet.</summary>
    /// <param name="count">Pieces of work.</param>
    public Turns(int count)
    {
        _states = new State[count];
        _clocks = [.. Enumerable.Range(0, count).Select(_ => new Stopwatch())];
        _failures = new Exception?[count];
    }

    /// <summary>Time a piece has had the turn.</summary>
    public TimeSpan Active(int piece) => _clocks[piece].Elapsed;

    /// <summary>Runs all pieces to their ends.</summary>
    /// <param name="device">What they compute on.</param>
    /// <param name="work">Given the piece's number.</param>
    /// <returns>What each piece failed with; null where it did not.</returns>
    public IReadOnlyList<Exception?> Run(Device device, Action<int> work)
    {
        var threads = new Thread[_states.Length];
        for (var i = 0; i < threads.Length; i++)
        {
            var piece = i;
            threads[i] = new Thread(() => Piece(device, work, piece)) { IsBackground = true, Name = $"ilgpusae-run-{piece + 1}" };
            threads[i].Start();
        }

        foreach (var thread in threads) thread.Join();
        device.BindThread();
        foreach (var failure in _failures)
            if (failure is not null and not IlgpuSaeException and not OperationCanceledException) ExceptionDispatchInfo.Throw(failure);
        return _failures;
    }

    /// <summary>Lets every other piece have its turn, and waits for the next.</summary>
    /// <param name="piece">The piece that has the turn.</param>
    public void Pass(int piece) => Leave(piece, State.Running);

    /// <summary>Waits until every piece is here or done; then they go on one after another.</summary>
    /// <param name="piece">The piece that has the turn.</param>
    public void Gate(int piece) => Leave(piece, State.AtTheGate);

    private void Piece(Device device, Action<int> work, int piece)
    {
        lock (_lock) Await(piece);
        try
        {
            device.BindThread();
            work(piece);
        }
        catch (Exception e)
        {
            _failures[piece] = e;
        }

        lock (_lock)
        {
            _states[piece] = State.Done;
            GiveAway(piece);
        }
    }

    private void Leave(int piece, State state)
    {
        lock (_lock)
        {
            _states[piece] = state;
            GiveAway(piece);
            Await(piece);
        }
    }

    private void GiveAway(int piece)
    {
        _clocks[piece].Stop();
        if (!_states.Contains(State.Running))
        {
            for (var i = 0; i < _states.Length; i++)
                if (_states[i] == State.AtTheGate) _states[i] = State.Running;
            // From here on in order.
            piece = -1;
        }

        _turn = -1;
        for (var k = 1; k <= _states.Length && _turn < 0; k++)
        {
            var next = (piece + k) % _states.Length;
            if (_states[next] == State.Running) _turn = next;
        }

        Monitor.PulseAll(_lock);
    }

    private void Await(int piece)
    {
        while (_turn != piece) Monitor.Wait(_lock);
        _clocks[piece].Start();
    }
}
