using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>One step of generation.</summary>
/// <param name="Position">Context position of the new tokens.</param>
/// <param name="Tokens">The new token of each row; null for rows that had ended before.</param>
public sealed record GenerationStep(int Position, IReadOnlyList<int?> Tokens);

/// <summary>Generation of tokens with a model.</summary>
public static class Generation
{
    /// <summary>Continues prompts.</summary>
    /// <param name="model">The model.</param>
    /// <param name="prompts">Token ids, rows of equal length, at least one token each.</param>
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
    /// <param name="prompts">Token ids, rows of equal length, at least one token each.</param>
    /// <param name="options">How.</param>
    /// <param name="stop">Ends the generation between two tokens.</param>
    /// <returns>The steps, computed as they are enumerated; ends when all rows have ended.</returns>
    /// <exception cref="InvalidInputException">Bad prompts or options, or no room for the new tokens in the context; thrown at once.</exception>
    public static IEnumerable<GenerationStep> Stream(
        this HookedTransformer model, IReadOnlyList<int[]> prompts, GenerationOptions options, CancellationToken stop = default)
    {
        options.Validate();
        if (prompts.Count == 0) throw new InvalidInputException("generate: no prompt was given");
        var length = prompts[0].Length;
        for (var r = 0; r < prompts.Count; r++)
        {
            if (prompts[r].Length != length)
                throw new InvalidInputException($"generate: prompt {r} has {prompts[r].Length} tokens, prompt 0 has {length}; prompts of one batch have equal length");
        }

        if (length == 0) throw new InvalidInputException("generate: the prompt is empty; begin with the BOS token at least");
        var room = model.Spec.NCtx - length;
        if (room < 1)
            throw new InvalidInputException($"generate: the prompt's {length} tokens leave no room in the context of {model.Spec.NCtx} (n_ctx)");
        if (options.MaxNewTokens > room)
        {
            throw new InvalidInputException($"generate: {length} prompt tokens and {options.MaxNewTokens} new ones exceed the context of {model.Spec.NCtx} (n_ctx); "
                + $"ask for at most {room} new tokens");
        }

        return Steps(model, prompts, options, options.MaxNewTokens ?? room, stop);
    }

    private static IEnumerable<GenerationStep> Steps(
        HookedTransformer model, IReadOnlyList<int[]> prompts, GenerationOptions options, int count, CancellationToken stop)
    {
        int batch = prompts.Count, length = prompts[0].Length;
        using var cache = options.UseCache ? new KeyValueCache(model, batch, length + count) : null;
        var pass = new ForwardOptions { Hooks = options.Hooks, Cache = cache };
        var rows = prompts.Select(p => p.ToList()).ToArray();
        var ended = new bool[batch];
        for (var n = 0; n < count && !Array.TrueForAll(ended, e => e); n++)
        {
            stop.ThrowIfCancellationRequested();
            using var scope = new TensorScope(model.Device);
            var seen = cache?.Length ?? 0;
            var tokens = HookedTransformer.Tokens(scope, rows.Select(r => r.Skip(seen).ToArray()).ToList());
            var logits = model.LastLogits(scope, tokens, pass).ToArray<float>();
            var made = new int?[batch];
            for (var r = 0; r < batch; r++)
            {
                // A row that has ended goes on being fed its last token, so that the batch stays whole.
                if (ended[r])
                {
                    rows[r].Add(rows[r][^1]);
                    continue;
                }

                var token = Sampler.Draw(logits.AsSpan(r * model.Spec.DVocab, model.Spec.DVocab), options, r, n);
                rows[r].Add(token);
                made[r] = token;
                ended[r] = options.StopTokens.Contains(token);
            }

            yield return new GenerationStep(length + n, made);
        }
    }
}
