using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>One step of generation.</summary>
/// <param name="Position">Context position of the new tokens, of the longest row's.</param>
/// <param name="Tokens">The new token of each row; null for rows that had ended before.</param>
public sealed record GenerationStep(int Position, IReadOnlyList<int?> Tokens)
{
    /// <summary>Why each row ended with or before this step.</summary>
    public IReadOnlyList<FinishReason> Finished { get; init; } = [];
}

/// <summary>Generation of tokens with a model.</summary>
public static class Generation
{
    /// <summary>Continues prompts.</summary>
    /// <param name="model">The model.</param>
    /// <param name="prompts">Token ids, at least one a row. Shorter rows are padded on the left, which changes none of their numbers.</param>
    /// <param name="options">How.</param>
    /// <param name="stop">Ends the generation between two tokens.</param>
    /// <returns>Prompt and new tokens of each row, the stop token included.</returns>
    /// <exception cref="InvalidInputException">Bad prompts or options, or no room for the new tokens in the context.</exception>
    public static int[][] Generate(this HookedTransformer model, IReadOnlyList<int[]> prompts, GenerationOptions options, CancellationToken stop = default)
    {
        var rows = prompts.Select(p => p.ToList()).ToList();
        foreach (var step in model.Stream(prompts, options, stop))
            for (var r = 0; r < rows.Count; r++)
                if (step.Tokens[r] is { } token) rows[r].Add(token);
        return rows.Select(r => r.ToArray()).ToArray();
    }

    /// <summary>Continues prompts and hands out each token as soon as it is there.</summary>
    /// <param name="model">The model.</param>
    /// <param name="prompts">Token ids, at least one a row. Shorter rows are padded on the left, which changes none of their numbers.</param>
    /// <param name="options">How.</param>
    /// <param name="stop">Ends the generation between two tokens.</param>
    /// <returns>The steps, computed as they are enumerated; ends when all rows have ended.</returns>
    /// <exception cref="InvalidInputException">Bad prompts or options, or no room for the new tokens in the context; thrown at once.</exception>
    public static IEnumerable<GenerationStep> Stream(
        this HookedTransformer model, IReadOnlyList<int[]> prompts, GenerationOptions options, CancellationToken stop = default)
    {
        options.Validate();
        if (prompts.Count == 0) throw new InvalidInputException("generate: no prompt was given");
        var empty = prompts.ToList().FindIndex(p => p.Length == 0);
        if (empty >= 0)
        {
            throw new InvalidInputException(prompts.Count == 1 ? "generate: the prompt is empty; begin with the BOS token at least"
                : $"generate: prompt {empty} is empty; begin with the BOS token at least");
        }

        int length = prompts.Max(p => p.Length), context = model.Spec.NCtx;
        var room = context - length;
        if (room < 1 && (options.Overflow != ContextOverflow.Slide || length > context))
            throw new InvalidInputException($"generate: the prompt's {length} tokens leave no room in the context of {context} (n_ctx)");
        if (options.MaxNewTokens > room && options.Overflow == ContextOverflow.Refuse)
        {
            throw new InvalidInputException($"generate: {length} prompt tokens and {options.MaxNewTokens} new ones exceed the context of {context} (n_ctx); "
                + $"ask for at most {room} new tokens");
        }

        var count = options.Overflow == ContextOverflow.Slide ? options.MaxNewTokens!.Value : Math.Min(options.MaxNewTokens ?? room, room);
        return new Run(model, prompts, options, count).Steps(stop);
    }

    /// <summary>One generation. The window is what the model sees: the rows' ends, aligned on the right.</summary>
    private sealed class Run
    {
        private readonly HookedTransformer _model;
        private readonly GenerationOptions _options;
        private readonly int _count;
        private readonly List<int>[] _rows;
        private readonly FinishReason[] _finished;
        private readonly int[] _padding;
        private int _width;

        internal Run(HookedTransformer model, IReadOnlyList<int[]> prompts, GenerationOptions options, int count)
        {
            _model = model;
            _options = options;
            _count = count;
            _rows = [.. prompts.Select(p => p.ToList())];
            _finished = new FinishReason[prompts.Count];
            _padding = new int[prompts.Count];
            Window(prompts.Max(p => p.Length));
        }

        internal IEnumerable<GenerationStep> Steps(CancellationToken stop)
        {
            int batch = _rows.Length, context = _model.Spec.NCtx, length = _width;
            using var cache = _options.UseCache ? new KeyValueCache(_model, batch, Math.Min(context, length + _count)) : null;
            for (var n = 0; n < _count && Array.Exists(_finished, f => f == FinishReason.None); n++)
            {
                stop.ThrowIfCancellationRequested();
                if (_width > context)
                {
                    Window(Math.Max(1, context / 2));
                    cache?.Truncate(0);
                }

                var logits = Next(cache);
                var made = new int?[batch];
                for (var r = 0; r < batch; r++)
                {
                    // A row that has ended goes on being fed its last token, so that the batch stays whole.
                    var token = _rows[r][^1];
                    if (_finished[r] == FinishReason.None)
                    {
                        token = Sampler.Draw(logits.AsSpan(r * _model.Spec.DVocab, _model.Spec.DVocab), _options, r, n, _rows[r]);
                        made[r] = token;
                        _finished[r] = Reason(r, token, n);
                    }

                    _rows[r].Add(token);
                }

                _width++;
                yield return new GenerationStep(length + n, made) { Finished = [.. _finished] };
            }
        }

        /// <summary>Logits of the next token of every row, [batch * d_vocab].</summary>
        private float[] Next(KeyValueCache? cache)
        {
            using var scope = new TensorScope(_model.Device);
            var seen = cache?.Length ?? 0;
            var tokens = HookedTransformer.Tokens(scope, [.. _rows.Select((row, r) => Enumerable.Range(seen, _width - seen)
                .Select(i => i < _padding[r] ? 0 : row[row.Count - _width + i]).ToArray())]);
            var pass = new ForwardOptions { Hooks = _options.Hooks, Cache = cache, Padding = seen == 0 && _padding.Any(p => p > 0) ? _padding : [] };
            return _model.LastLogits(scope, tokens, pass).ToArray<float>();
        }

        private FinishReason Reason(int row, int token, int n)
        {
            // The text is told every token, so that it can be shown as it grows.
            var ended = _options.EndsAfter?.Invoke(row, token) == true;
            if (_options.StopTokens.Contains(token)) return FinishReason.StopToken;
            if (ended) return FinishReason.StopString;
            if (n + 1 < _count) return FinishReason.None;
            return _options.MaxNewTokens == n + 1 ? FinishReason.Length : FinishReason.ContextFull;
        }

        /// <summary>Lets the model see the last <paramref name="width"/> tokens of every row, or all it has.</summary>
        private void Window(int width)
        {
            _width = Math.Min(width, _rows.Max(r => r.Count));
            for (var r = 0; r < _rows.Length; r++) _padding[r] = Math.Max(0, _width - _rows[r].Count);
        }
    }
}
