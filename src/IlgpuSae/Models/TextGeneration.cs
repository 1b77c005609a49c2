using IlgpuSae.Tokenizers;

namespace IlgpuSae.Models;

/// <summary>New text of one row of a generation.</summary>
/// <param name="Row">The row.</param>
/// <param name="Text">What is certain since the row's last piece: whole characters, and nothing that may yet become a stop string.</param>
/// <param name="Token">The token that made it certain; null at the row's end.</param>
/// <param name="Finished">Why the row ended with this piece.</param>
public sealed record TextPiece(int Row, string Text, int? Token, FinishReason Finished);

/// <summary>Generation of text: tokens become characters as they are made, and strings end it.</summary>
public static class TextGeneration
{
    /// <summary>Continues prompts as text, piece by piece.</summary>
    /// <param name="model">The model.</param>
    /// <param name="tokenizer">Its tokenizer.</param>
    /// <param name="prompts">Token ids of the prompts, of any lengths.</param>
    /// <param name="options">How.</param>
    /// <param name="stopStrings">A row ends before any of these; they are not part of its text.</param>
    /// <param name="stop">Ends the generation between two tokens.</param>
    /// <returns>The pieces, computed as they are enumerated. A row's pieces put together are its new text.</returns>
    /// <exception cref="InvalidInputException">As <see cref="Generation.Stream"/>, or an empty stop string.</exception>
    public static IEnumerable<TextPiece> StreamText(
        this HookedTransformer model, Tokenizer tokenizer, IReadOnlyList<int[]> prompts, GenerationOptions options,
        IReadOnlyList<string>? stopStrings = null, CancellationToken stop = default)
    {
        var strings = stopStrings ?? [];
        if (strings.Any(s => s.Length == 0)) throw new InvalidInputException("generate: a stop string is empty");
        var rows = prompts.Select(p => new RowText(tokenizer, p, strings)).ToArray();
        // Errors are thrown here, not at the first piece.
        var steps = model.Stream(prompts, options with { EndsAfter = (row, token) => rows[row].Add(token) }, stop);
        return Pieces(steps, rows);
    }

    /// <summary>Continues prompts as text.</summary>
    /// <param name="model">The model.</param>
    /// <param name="tokenizer">Its tokenizer.</param>
    /// <param name="prompts">Token ids of the prompts, of any lengths.</param>
    /// <param name="options">How.</param>
    /// <param name="stopStrings">A row ends before any of these; they are not part of its text.</param>
    /// <param name="stop">Ends the generation between two tokens.</param>
    /// <returns>Each row's new text, and why it ended.</returns>
    /// <exception cref="InvalidInputException">As <see cref="StreamText"/>.</exception>
    public static (string Text, FinishReason Finished)[] GenerateText(
        this HookedTransformer model, Tokenizer tokenizer, IReadOnlyList<int[]> prompts, GenerationOptions options,
        IReadOnlyList<string>? stopStrings = null, CancellationToken stop = default)
    {
        var texts = prompts.Select(_ => new System.Text.StringBuilder()).ToArray();
        var finished = new FinishReason[prompts.Count];
        foreach (var piece in model.StreamText(tokenizer, prompts, options, stopStrings, stop))
        {
            texts[piece.Row].Append(piece.Text);
            finished[piece.Row] = piece.Finished;
        }

        return [.. texts.Zip(finished, (t, f) => (t.ToString(), f))];
    }

    private static IEnumerable<TextPiece> Pieces(IEnumerable<GenerationStep> steps, RowText[] rows)
    {
        foreach (var step in steps)
        {
            for (var r = 0; r < rows.Length; r++)
            {
                if (step.Tokens[r] is not { } token) continue;
                var ended = step.Finished[r] != FinishReason.None;
                yield return new TextPiece(r, rows[r].Take(ended), token, step.Finished[r]);
            }
        }
    }

    /// <summary>The text of one row: what has been given out, and what may yet be part of a stop string.</summary>
    private sealed class RowText
    {
        private readonly StreamingDecoder _decoder;
        private readonly IReadOnlyList<string> _stops;
        private string _held = "";
        private bool _stopped;

        internal RowText(Tokenizer tokenizer, int[] prompt, IReadOnlyList<string> stops)
        {
            _decoder = new StreamingDecoder(tokenizer);
            _stops = stops;
            // The prompt decides about a leading space of what follows; its own text is not new.
            foreach (var id in prompt) _decoder.Add(id);
        }

        /// <summary>Takes the next token; true if the text now holds a stop string.</summary>
        internal bool Add(int token)
        {
            _held += _decoder.Add(token);
            var at = _stops.Select(s => _held.IndexOf(s, StringComparison.Ordinal)).Where(i => i >= 0).DefaultIfEmpty(-1).Min();
            if (at < 0) return false;
            _held = _held[..at];
            _stopped = true;
            return true;
        }

        /// <summary>What is certain; at the row's end everything.</summary>
        internal string Take(bool all)
        {
            if (all && !_stopped) _held += _decoder.End();
            var keep = all ? 0 : Enumerable.Range(1, _held.Length).Where(n => _stops.Any(s => n < s.Length && s.StartsWith(_held[^n..], StringComparison.Ordinal))).DefaultIfEmpty(0).Max();
            var text = _held[..^keep];
            _held = _held[^keep..];
            return text;
        }
    }
}
