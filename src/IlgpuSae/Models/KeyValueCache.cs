using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>
/// Keys (rotated where the model rotates them) and values of every layer for the tokens seen so far, so that a further
/// token costs one row of work a layer. Memory: 2 * n_layers * batch * tokens * n_kv_heads * d_head numbers of 4 bytes,
/// where tokens grows by doubling as they come, up to the capacity.
/// </summary>
public sealed class KeyValueCache : IDisposable
{
    private const int FirstTokens = 64;
    private readonly Device _device;
    private readonly Tensor[] _keys;
    private readonly Tensor[] _values;
    private readonly int[] _filled;
    private readonly int _heads;
    private readonly int _width;

    /// <summary>An empty cache.</summary>
    /// <param name="model">The model it belongs to.</param>
    /// <param name="batch">Number of sequences.</param>
    /// <param name="capacity">Most tokens a sequence, at most the model's n_ctx; 0: n_ctx.</param>
    /// <exception cref="InvalidInputException">A size is below 1 or above the model's.</exception>
    public KeyValueCache(HookedTransformer model, int batch, int capacity = 0)
    {
        var spec = model.Spec;
        Capacity = capacity == 0 ? spec.NCtx : capacity;
        if (batch < 1) throw new InvalidInputException($"key/value cache: batch {batch} is below 1");
        if (Capacity < 1 || Capacity > spec.NCtx)
            throw new InvalidInputException($"key/value cache: capacity {capacity} is not between 1 and n_ctx {spec.NCtx}");
        Batch = batch;
        _device = model.Device;
        (_heads, _width) = (spec.NKvHeads, spec.DHead);
        _filled = new int[spec.NLayers];
        _keys = new Tensor[spec.NLayers];
        _values = new Tensor[spec.NLayers];
        for (var l = 0; l < spec.NLayers; l++)
        {
            _keys[l] = New(Math.Min(Capacity, FirstTokens));
            _values[l] = New(Math.Min(Capacity, FirstTokens));
        }
    }

    /// <summary>Number of sequences.</summary>
    public int Batch { get; }

    /// <summary>Most tokens a sequence.</summary>
    public int Capacity { get; }

    /// <summary>Tokens held a sequence.</summary>
    public int Length => _filled.Length == 0 ? 0 : _filled[^1];

    /// <summary>How many of each row's tokens, at its beginning, are padding; empty: none. Set by the first pass.</summary>
    public IReadOnlyList<int> Padding { get; private set; } = [];

    /// <summary>Forgets all tokens from <paramref name="length"/> on.</summary>
    /// <param name="length">Tokens to keep, at most <see cref="Length"/>.</param>
    /// <exception cref="InvalidInputException"><paramref name="length"/> is negative or more than are held.</exception>
    public void Truncate(int length)
    {
        if (length < 0 || length > Length) throw new InvalidInputException($"key/value cache: cannot keep {length} of {Length} tokens");
        Array.Fill(_filled, length);
        if (length == 0) Padding = [];
    }

    /// <summary>Gives the memory back.</summary>
    public void Dispose()
    {
        foreach (var t in _keys) t?.Dispose();
        foreach (var t in _values) t?.Dispose();
    }

    /// <summary>The padding of the rows whose first tokens are about to come.</summary>
    internal void Begin(IReadOnlyList<int> padding) => Padding = padding;

    /// <summary>Appends keys and values [batch, pos, n_kv_heads, d_head] of new tokens in one layer.</summary>
    internal void Append(int layer, Tensor keys, Tensor values)
    {
        var at = _filled[layer];
        var end = at + keys.Shape[1];
        Grow(ref _keys[layer], at, end);
        Grow(ref _values[layer], at, end);
        Positions.Write(_keys[layer], keys, at);
        Positions.Write(_values[layer], values, at);
        _filled[layer] = end;
    }

    /// <summary>Keys of one sequence, [1, tokens held less padding, n_kv_heads, d_head]: a view that <paramref name="scope"/> owns.</summary>
    internal Tensor Keys(TensorScope scope, int layer, int sequence) => Held(scope, _keys[layer], sequence, _filled[layer]);

    /// <summary>Values of one sequence, [1, tokens held less padding, n_kv_heads, d_head]: a view that <paramref name="scope"/> owns.</summary>
    internal Tensor Values(TensorScope scope, int layer, int sequence) => Held(scope, _values[layer], sequence, _filled[layer]);

    private Tensor New(int tokens) => new(_device, [Batch, tokens, _heads, _width]);

    /// <summary>Makes room for <paramref name="tokens"/>, of which the first <paramref name="held"/> are kept.</summary>
    private void Grow(ref Tensor all, int held, int tokens)
    {
        var room = all.Shape[1];
        if (tokens <= room) return;
        var larger = New((int)Math.Min(Capacity, Math.Max(tokens, 2L * room)));
        using (var scope = new TensorScope(_device)) Positions.Write(larger, Positions.Slice(scope, all, 0, held), 0);
        all.Dispose();
        all = larger;
    }

    private Tensor Held(TensorScope scope, Tensor all, int sequence, int length)
    {
        using var row = all.Slice(sequence, 1);
        using var flat = row.Reshape([all.Shape[1], _heads, _width]);
        var padding = Padding.Count == 0 ? 0 : Padding[sequence];
        using var held = flat.Slice(padding, length - padding);
        return scope.Own(held.Reshape([1, length - padding, _heads, _width]));
    }
}
