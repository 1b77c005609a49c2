namespace IlgpuSae.Tensors;

/// <summary>
/// Owner of the tensors of one piece of work on one device. When it ends, their memory goes back to the device's
/// pool, so a loop that opens a scope a step allocates nothing after its first step. Not thread-safe.
/// </summary>
/// <param name="device">Where the scope's tensors live.</param>
public sealed class TensorScope(Device device) : IDisposable
{
    private readonly HashSet<Tensor> _owned = new(ReferenceEqualityComparer.Instance);
    private bool _ended;

    /// <summary>Where the scope's tensors live.</summary>
    public Device Device { get; } = device;

    /// <summary>Receives every differentiable operation whose result is born here; null: no gradients.</summary>
    public IRecorder? Recorder { get; set; }

    /// <summary>A new tensor with undefined content.</summary>
    /// <param name="shape">Its shape.</param>
    /// <param name="type">Its element type.</param>
    public Tensor New(Shape shape, DType type = DType.F32)
    {
        ObjectDisposedException.ThrowIf(_ended, this);
        return Own(new Tensor(Device, shape, type));
    }

    /// <summary>A new tensor of zeros.</summary>
    /// <param name="shape">Its shape.</param>
    /// <param name="type">Its element type.</param>
    public Tensor Zeros(Shape shape, DType type = DType.F32)
    {
        var t = New(shape, type);
        t.Clear();
        return t;
    }

    /// <summary>A new tensor holding a copy of <paramref name="values"/>.</summary>
    /// <param name="values">Row-major content, exactly <paramref name="shape"/>'s count.</param>
    /// <param name="shape">Its shape.</param>
    /// <exception cref="ShapeException">The counts differ.</exception>
    public Tensor From<T>(ReadOnlySpan<T> values, Shape shape) where T : unmanaged
    {
        var t = New(shape, DTypes.Of<T>());
        t.CopyFrom(values);
        return t;
    }

    /// <summary>Makes the scope the owner of a tensor born elsewhere.</summary>
    /// <param name="tensor">The tensor; it must have no other owner.</param>
    /// <returns><paramref name="tensor"/>.</returns>
    public Tensor Own(Tensor tensor)
    {
        ObjectDisposedException.ThrowIf(_ended, this);
        _owned.Add(tensor);
        return tensor;
    }

    /// <summary>Takes a tensor out of the scope: it outlives it and the caller disposes of it.</summary>
    /// <param name="tensor">A tensor this scope owns.</param>
    /// <returns><paramref name="tensor"/>.</returns>
    public Tensor Keep(Tensor tensor)
    {
        _owned.Remove(tensor);
        return tensor;
    }

    /// <summary>Ends a tensor's life before the scope's end, to bound memory.</summary>
    /// <param name="tensor">A tensor this scope owns.</param>
    public void Release(Tensor tensor)
    {
        if (_owned.Remove(tensor)) tensor.Dispose();
    }

    /// <summary>Ends the scope: gives back the memory of every tensor still owned.</summary>
    public void Dispose()
    {
        if (_ended) return;
        _ended = true;
        foreach (var t in _owned) t.Dispose();
        _owned.Clear();
    }
}
