namespace IlgpuSae.Activations;

/// <summary>
/// Token contexts of one length, one after another, starting again at the first when they end. Each time round is an
/// epoch, which is counted.
/// </summary>
public abstract class TokenSource : IDisposable
{
    private IEnumerator<int[]>? _pass;
    private bool _passIsEmpty;
    private long _inPass;

    private protected TokenSource(int contextSize) => ContextSize = contextSize;

    /// <summary>Tokens in every context.</summary>
    public int ContextSize { get; }

    /// <summary>How often the end was reached and the source began again.</summary>
    public int Wraps { get; private set; }

    /// <summary>Contexts served so far.</summary>
    public long Served { get; private set; }

    /// <summary>What the user ought to know about the source: rows cut, tails dropped. One sentence each.</summary>
    public virtual IReadOnlyList<string> Notes => [];

    /// <summary>Where the tokens come from, for messages.</summary>
    public abstract string Name { get; }

    /// <summary>The contexts once, from the first to the last.</summary>
    /// <returns>Arrays of <see cref="ContextSize"/> token ids.</returns>
    public abstract IEnumerable<int[]> Contexts();

    /// <summary>The next context.</summary>
    /// <param name="wrap">Whether to begin again at the end.</param>
    /// <returns>[<see cref="ContextSize"/>] token ids; null at the end if not to begin again.</returns>
    /// <exception cref="InvalidInputException">The source does not hold a single context.</exception>
    public int[]? Next(bool wrap = true)
    {
        if (_pass is null)
        {
            _pass = Contexts().GetEnumerator();
            _passIsEmpty = true;
        }

        while (!_pass.MoveNext())
        {
            if (_passIsEmpty) throw new InvalidInputException($"{Name}: the corpus holds no context of {ContextSize} tokens; use more text or a smaller context_size");
            if (!wrap) return null;
            _pass.Dispose();
            _pass = Contexts().GetEnumerator();
            _passIsEmpty = true;
            _inPass = 0;
            Wraps++;
        }

        _passIsEmpty = false;
        Served++;
        _inPass++;
        return _pass.Current;
    }

    /// <summary>The next contexts side by side.</summary>
    /// <param name="count">How many are wanted, at least 1.</param>
    /// <param name="wrap">Whether to begin again at the end.</param>
    /// <returns>Row-major [1..count, <see cref="ContextSize"/>] token ids; empty at the end.</returns>
    /// <exception cref="InvalidInputException">The source does not hold a single context.</exception>
    public int[] NextBatch(int count, bool wrap = true)
    {
        var batch = new List<int>(count * ContextSize);
        for (var i = 0; i < count && Next(wrap) is { } context; i++) batch.AddRange(context);
        return [.. batch];
    }

    /// <summary>The place behind the last context served, to the token; <see cref="Resume"/> goes back to it.</summary>
    public virtual TokenPosition Position => new() { Wraps = Wraps, Served = Served, InPass = _inPass };

    /// <summary>Goes to a place in the same data, read the same way: the next context is the one that followed it.</summary>
    /// <param name="position">A <see cref="Position"/> of an equal source.</param>
    /// <exception cref="InvalidInputException">The data end before the place.</exception>
    public void Resume(TokenPosition position)
    {
        ArgumentNullException.ThrowIfNull(position);
        Rewind();
        _pass = From(position).GetEnumerator();
        _passIsEmpty = position.InPass == 0;
        (Wraps, Served, _inPass) = (position.Wraps, position.Served, position.InPass);
    }

    /// <summary>The rest of a pass. Sources that cannot go to a place count their way to it.</summary>
    private protected virtual IEnumerable<int[]> From(TokenPosition position)
    {
        var passed = 0L;
        foreach (var context in Contexts())
            if (passed++ >= position.InPass) yield return context;
        if (passed < position.InPass) throw new InvalidInputException($"{Name}: holds {passed} contexts, but the place to go on from lies behind {position.InPass}; the data have changed");
    }

    /// <summary>Starts again at the first context without counting an epoch.</summary>
    public void Rewind()
    {
        _pass?.Dispose();
        _pass = null;
        _inPass = 0;
    }

    /// <summary>Closes files.</summary>
    public void Dispose()
    {
        _pass?.Dispose();
        Close();
        GC.SuppressFinalize(this);
    }

    private protected virtual void Close()
    {
    }
}
