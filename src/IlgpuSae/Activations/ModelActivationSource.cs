using System.Globalization;
using IlgpuSae.Kernels;
using IlgpuSae.Models;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Activations;

/// <summary>A hook whose activations are taken.</summary>
/// <param name="Name">Its full name.</param>
/// <param name="HeadIndex">One head of a hook that has heads; null: all, side by side.</param>
public readonly record struct ActivationHook(string Name, int? HeadIndex = null);

/// <summary>How <see cref="ModelActivationSource"/> reads a model.</summary>
public sealed record ModelActivationOptions
{
    /// <summary>The hooks, at least one; a row holds their activations of one token side by side, in this order.</summary>
    public required IReadOnlyList<ActivationHook> Hooks { get; init; }

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
/// Activations of a language model on running text: contexts go through the model once, up to the last hook and no
/// further, and every kept token's activations are one row, in the order of the text.
/// </summary>
public sealed class ModelActivationSource : IActivationSource, IDisposable
{
    private readonly HookedTransformer _model;
    private readonly TokenSource _tokens;
    private readonly ModelActivationOptions _options;
    private readonly int[] _positions;
    private readonly HashSet<int> _excluded;
    private readonly int[] _heads;
    private readonly string _names;
    private Tensor? _rows;
    private int _next;
    private int _emptyBatches;

    /// <summary>Creates a source; model and tokens stay the caller's.</summary>
    /// <param name="model">The model.</param>
    /// <param name="tokens">What it reads.</param>
    /// <param name="options">Which activations.</param>
    /// <exception cref="InvalidInputException">No such hook or head, no hook at all, or contexts longer than the model's.</exception>
    public ModelActivationSource(HookedTransformer model, TokenSource tokens, ModelActivationOptions options)
    {
        if (options.Hooks.Count == 0) throw new InvalidInputException("hook_name: missing; name at least one hook");
        if (tokens.ContextSize > model.Spec.NCtx)
            throw new InvalidInputException($"context_size: {tokens.ContextSize} tokens are more than the model's context of {model.Spec.NCtx} (n_ctx)");
        if (options.BatchSizePrompts < 1) throw new InvalidInputException($"store_batch_size_prompts: {options.BatchSizePrompts} is not at least 1");
        (_model, _tokens, _options) = (model, tokens, options);
        _positions = options.Positions.Positions(tokens.ContextSize);
        _excluded = [.. options.ExcludedTokens];
        _heads = [.. options.Hooks.Select(h => Heads(model.Hooks[h.Name], h.HeadIndex))];
        _names = string.Join(',', options.Hooks.Select(h => h.Name).Distinct(StringComparer.Ordinal));
        Blocks = ColumnBlock.SideBySide(options.Hooks.Select((h, i) => (Label(h), model.Hooks[h.Name].Width / _heads[i])));
        Width = Blocks.Sum(b => b.Width);
    }

    /// <summary>The hooks, in the order of the columns.</summary>
    public IReadOnlyList<ActivationHook> Hooks => _options.Hooks;

    /// <inheritdoc/>
    public int Width { get; }

    /// <inheritdoc/>
    /// <remarks>Named after the hooks; of one head, <c>name[head]</c>.</remarks>
    public IReadOnlyList<ColumnBlock> Blocks { get; }

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
        var activations = _model.Activations(scope, tokens, _names);
        TokensRun += ids.Length;
        _next = 0;
        var kept = Kept(ids, contexts);
        if (kept.Length == 0 && ++_emptyBatches > 100)
            throw new InvalidInputException($"exclude_special_tokens: {_options.ExcludedTokens.Count} excluded ids leave no token of {TokensRun}; exclude fewer");
        if (kept.Length > 0) _emptyBatches = 0;
        var parts = _options.Hooks.Select((hook, i) => Rows(scope, activations[hook.Name], i, kept, ids.Length)).ToList();
        if (parts.Count > 1) _rows = scope.Keep(Columns.Join(scope, parts));
        else _rows = kept.Length == ids.Length && _heads[0] == 1 ? Copy(parts[0]) : scope.Keep(parts[0]);
        return true;
    }

    /// <summary>A hook's rows of the kept tokens.</summary>
    private Tensor Rows(TensorScope scope, Tensor activation, int hook, int[] kept, int tokens)
    {
        var (heads, head) = (_heads[hook], _options.Hooks[hook].HeadIndex ?? 0);
        var table = Reshape.As(scope, activation, [tokens * heads, Blocks[hook].Width]);
        if (kept.Length == tokens && heads == 1) return table;
        var rows = heads == 1 ? kept : Array.ConvertAll(kept, token => (token * heads) + head);
        return GatherRows.Forward(scope, table, scope.From<int>(rows, [rows.Length]));
    }

    /// <summary>The kept tokens of a batch, ascending.</summary>
    private int[] Kept(int[] ids, int contexts)
    {
        var kept = new List<int>(ids.Length);
        for (var c = 0; c < contexts; c++)
        {
            foreach (var p in _positions)
            {
                var token = (c * _tokens.ContextSize) + p;
                if (!_excluded.Contains(ids[token])) kept.Add(token);
            }
        }

        return [.. kept];
    }

    /// <summary>Rows a token has in the table of all rows; checks that the hook can be taken.</summary>
    private static int Heads(HookPoint point, int? head)
    {
        if (point.Width == 0) throw new InvalidInputException($"hook_name: {point} belongs to pairs of tokens, not to tokens; choose a hook of the residual stream, an MLP or attn.hook_z");
        if (head is not { } h) return 1;
        if (point.Axes.Count != 4) throw new InvalidInputException($"hook_head_index: {h}, but {point} has no heads");
        var heads = point.Axes[2];
        if (h < 0 || h >= heads) throw new InvalidInputException($"hook_head_index: {h}, but {point.Name} has {heads} heads (0 to {heads - 1})");
        return heads;
    }

    private static string Label(ActivationHook hook) =>
        hook.HeadIndex is { } head ? string.Create(CultureInfo.InvariantCulture, $"{hook.Name}[{head}]") : hook.Name;

    private static Tensor Copy(Tensor table)
    {
        var copy = new Tensor(table.Device, table.Shape);
        copy.CopyFrom(table);
        return copy;
    }
}
