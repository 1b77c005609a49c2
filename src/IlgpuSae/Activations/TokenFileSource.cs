using IlgpuSae.Files;

namespace IlgpuSae.Activations;

/// <summary>
/// Contexts from a safetensors file of token ids, made by a tokenizer before: tensor <c>tokens</c>, any integer type.
/// [rows, length]: every row is one context; longer rows are cut to <c>context_size</c>, shorter ones refused.
/// [n]: one long text, cut into contexts side by side, its incomplete tail dropped. Nothing is put in front.
/// </summary>
public sealed class TokenFileSource : TokenSource
{
    private readonly SafetensorsFile _file;
    private readonly string _tensor;
    private readonly long _rowLength;
    private readonly long _first;
    private readonly long _count;
    private readonly List<string> _notes = [];

    /// <summary>Opens a token file.</summary>
    /// <param name="path">The safetensors file.</param>
    /// <param name="contextSize">Tokens in a context; null: the rows' own length.</param>
    /// <param name="contexts">Which contexts are used, as a slice over them; null: all.</param>
    /// <param name="tensor">Name of the tensor.</param>
    /// <exception cref="InvalidFileException">Missing, damaged, without such a tensor, or its shape does not fit.</exception>
    public TokenFileSource(string path, int? contextSize = null, PositionSlice? contexts = null, string tensor = "tokens")
        : this(SafetensorsFile.Open(path), path, contextSize, contexts ?? PositionSlice.All, tensor)
    {
    }

    private TokenFileSource(SafetensorsFile file, string path, int? contextSize, PositionSlice contexts, string tensor)
        : base(SizeOf(file, path, tensor, contextSize))
    {
        _file = file;
        _tensor = tensor;
        Name = path;
        var shape = file[tensor].Shape;
        _rowLength = shape.Count == 2 ? shape[1] : ContextSize;
        var all = shape.Count == 2 ? shape[0] : shape[0] / ContextSize;
        if (shape.Count == 2 && _rowLength > ContextSize)
            _notes.Add($"{path}: rows of {_rowLength} tokens are cut to context_size = {ContextSize}");
        if (shape.Count == 1 && shape[0] % ContextSize != 0)
            _notes.Add($"{path}: the last {shape[0] % ContextSize} tokens do not fill a context and are dropped");
        (_first, _count) = Range(contexts, all, path);
    }

    /// <inheritdoc/>
    public override string Name { get; }

    /// <inheritdoc/>
    public override IReadOnlyList<string> Notes => _notes;

    /// <summary>Number of contexts in one epoch.</summary>
    public long Count => _count;

    /// <inheritdoc/>
    public override IEnumerable<int[]> Contexts()
    {
        var ids = new long[ContextSize];
        for (var row = _first; row < _first + _count; row++)
        {
            _file.ReadInt64(_tensor, ids, row * _rowLength);
            var context = new int[ids.Length];
            for (var i = 0; i < ids.Length; i++)
            {
                context[i] = ids[i] is >= 0 and <= int.MaxValue
                    ? (int)ids[i]
                    : throw new InvalidFileException(Name, $"tensor \"{_tensor}\" holds {ids[i]} at row {row}, position {i}: no token id");
            }

            yield return context;
        }
    }

    private protected override void Close() => _file.Dispose();

    private static int SizeOf(SafetensorsFile file, string path, string tensor, int? wanted)
    {
        try
        {
            var shape = file[tensor].Shape;
            if (shape.Count is not (1 or 2))
                throw new InvalidFileException(path, $"tensor \"{tensor}\" has {shape.Count} axes; token ids are [contexts, length] or [length]");
            if (wanted is < 1) throw new InvalidInputException($"context_size: {wanted} is not at least 1");
            if (shape.Count == 1) return wanted ?? throw new InvalidInputException($"{path}: tensor \"{tensor}\" is one long text of {shape[0]} tokens; say how long its contexts are with context_size");
            var size = wanted ?? (shape[1] is > 0 and <= int.MaxValue ? (int)shape[1] : throw new InvalidFileException(path, $"tensor \"{tensor}\" has rows of {shape[1]} tokens"));
            return size <= shape[1] ? size : throw new InvalidFileException(path, $"its rows have {shape[1]} tokens, fewer than context_size = {size}; use a smaller context_size");
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    private static (long First, long Count) Range(PositionSlice slice, long all, string path)
    {
        if (slice.Step != 1) throw new InvalidInputException($"contexts: {slice} has a step; give a plain range START:STOP");
        var first = Clip(slice.Start ?? 0, all);
        var stop = Clip(slice.Stop ?? all, all);
        if (slice.Stop is { } wanted && wanted > all) throw new InvalidInputException($"contexts: {slice} reaches beyond the {all} contexts of {path}");
        if (stop <= first && all > 0) throw new InvalidInputException($"contexts: {slice} selects none of the {all} contexts of {path}");
        return (first, Math.Max(0, stop - first));
    }

    private static long Clip(long index, long size) => Math.Clamp(index < 0 ? index + size : index, 0, size);
}
