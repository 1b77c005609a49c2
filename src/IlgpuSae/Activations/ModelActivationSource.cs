using IlgpuSae.Kernels;
using IlgpuSae.Models;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Activations;

/// <summary>How <see cref="ModelActivationSource"/> reads a model.</summary>
public sealed record ModelActivationOptions
{
    /// <summary>Full name of the hook.</summary>
    public required string HookName { get; init; }

    /// <summary>One head of a hook that has heads; null: all, side by side.</summary>
    public int? HookHeadIndex { get; init; }

    /// <summary>Contexts the model runs at once.</summary>
    public int BatchSizePrompts { get; init; } = 32;

    /// <summary>Positions whose activations are taken.</summary>
    public PositionSlice Positions { get; init; } = PositionSlice.All;

    /// <summary>Token ids whose activations are left out.</summary>
    public IReadOnlyList<int> ExcludedTokens { get; init; } = [];

    /// <summary>Whether the tokens begin again when they end.</summary>
    public bool Wrap { get; init; } = true;
}

/// <summary>
/// Activations of a language model on running text: contexts go through the model up to the hook and no further, and
/// every kept token's activation is one row, in the order of the text.
/// </summary>
public sealed class ModelActivationSource : IActivationSource, IDisposable
{
    private readonly HookedTransformer _model;
    private readonly TokenSource _tokens;
    private readonly ModelActivationOptions _options;
    private readonly int[] _positions;
    private readonly HashSet<int> _excluded;
    private readonly int _parts;
    private Tensor? _rows;
    private int _next;
    private int _emptyBatches;

    /// <summary>Creates a source; model and tokens stay the caller's.</summary>
    /// <param name="model">The model.</param>
    /// <param name="tokens">What it reads.</param>
    /// <param name="options">Which activations.</param>
    /// <exception cref="InvalidInputException">No such hook or head, or contexts longer than the model's.</exception>
    public ModelActivationSource(HookedTransformer model, TokenSource tokens, ModelActivationOptions options)
    {
        var point = model.Hooks[options.HookName];
        if (point.Width == 0) throw new InvalidInputException($"hook_name: {point} belongs to pairs of tokens, not to tokens; choose a hook of the residual stream, an MLP or attn.hook_z");
        if (tokens.ContextSize > model.Spec.NCtx)
            throw new InvalidInputException($"context_size: {tokens.ContextSize} tokens are more than the model's context of {model.Spec.NCtx} (n_ctx)");
        if (options.BatchSizePrompts < 1) throw new InvalidInputException($"store_batch_size_prompts: {options.BatchSizePrompts} is not at least 1");
        (_model, _tokens, _options) = (model, tokens, options);
        _positions = options.Positions.Positions(tokens.ContextSize);
        _excluded = [.. options.ExcludedTokens];
        _parts = 1;
        if (options.HookHeadIndex is { } head)
        {
            if (point.Axes.Count != 4) throw new InvalidInputException($"hook_head_index: {head}, but {point} has no heads");
            _parts = point.Axes[2];
            if (head < 0 || head >= _parts) throw new InvalidInputException($"hook_head_index: {head}, but {point.Name} has {_parts} heads (0 to {_parts - 1})");
        }

        Width = point.Width / _parts;
    }

    /// <inheritdoc/>
    public int Width { get; }

    /// <summary>Tokens run through the model so far.</summary>
    public long TokensRun { get; private set; }

    /// <inheritdoc/>
    /// <exception cref="InvalidInputException">The corpus is empty, a token is out of range, or every token is excluded.</exception>
    public Tensor? Next(TensorScope scope, int rows)
    {
        while (_rows is null || _next == _rows.Shape[0])
        {
            _rows?.Dispose();
            _rows = null;
            if (!Run(scope.Device)) return null;
        }

        var n = Math.Min(rows, _rows.Shape[0] - _next);
        var part = scope.New([n, Width]);
        using var view = _rows.Slice(_next, n);
        part.CopyFrom(view);
        _next += n;
        return part;
    }

    /// <summary>Gives back the rows that were not asked for yet.</summary>
    public void Dispose()
    {
        _rows?.Dispose();
        _rows = null;
    }

    /// <summary>One batch of contexts through the model.</summary>
    private bool Run(Device device)
    {
        var ids = _tokens.NextBatch(_options.BatchSizePrompts, _options.Wrap);
        if (ids.Length == 0) return false;
        using var scope = new TensorScope(device);
        var contexts = ids.Length / _tokens.ContextSize;
        var tokens = scope.From<int>(ids, [contexts, _tokens.ContextSize]);
        var activation = _model.Activations(scope, tokens, _options.HookName)[_options.HookName];
        TokensRun += ids.Length;
        _next = 0;
        var kept = Kept(ids, contexts);
        if (kept.Length == 0 && ++_emptyBatches > 100)
            throw new InvalidInputException($"exclude_special_tokens: {_options.ExcludedTokens.Count} excluded ids leave no token of {TokensRun}; exclude fewer");
        if (kept.Length > 0) _emptyBatches = 0;
        var table = Reshape.As(scope, activation, [ids.Length * _parts, Width]);
        _rows = kept.Length == ids.Length && _parts == 1
            ? Copy(table)
            : scope.Keep(GatherRows.Forward(scope, table, scope.From<int>(kept, [kept.Length])));
        return true;
    }

    /// <summary>Rows of the kept tokens in the table of all rows.</summary>
    private int[] Kept(int[] ids, int contexts)
    {
        var kept = new List<int>(ids.Length);
        for (var c = 0; c < contexts; c++)
        {
            foreach (var p in _positions)
            {
                var token = (c * _tokens.ContextSize) + p;
                if (!_excluded.Contains(ids[token])) kept.Add((token * _parts) + (_options.HookHeadIndex ?? 0));
            }
        }

        return [.. kept];
    }

    private static Tensor Copy(Tensor table)
    {
        var copy = new Tensor(table.Device, table.Shape);
        copy.CopyFrom(table);
        return copy;
    }
}
