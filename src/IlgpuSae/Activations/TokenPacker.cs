namespace IlgpuSae.Activations;

/// <summary>
/// Packs token sequences of any length into contexts of exactly <see cref="PackingOptions.ContextSize"/> tokens, as
/// SAELens 6.18 does (<c>tokenization_and_batching</c>): sequences follow one another, special tokens that would
/// stand twice side by side stand once, a long sequence goes on in the next context, and the last, incomplete context
/// is dropped. Unlike there, a begin-batch token of id 0 counts as given and an empty sequence is passed over, in
/// both modes.
/// </summary>
/// <remarks>
/// Where the tokens put in front of a sequence do not fit any more into a context, those that do not fit are lost:
/// the sequence goes on in the next context as if it had begun. That is the original's behaviour as well.
/// </remarks>
public sealed class TokenPacker
{
    private readonly PackingOptions _options;

    /// <summary>Creates a packer.</summary>
    /// <param name="options">Context size and special tokens.</param>
    /// <exception cref="InvalidInputException">The context has no room for a token of the text.</exception>
    public TokenPacker(PackingOptions options)
    {
        options.Validate();
        _options = options;
    }

    /// <summary>Packs the sequences lazily: a context is made as soon as its last token is known.</summary>
    /// <param name="sequences">Token ids, one array a document.</param>
    /// <returns>Contexts [context_size], each a new array.</returns>
    public IEnumerable<int[]> Pack(IEnumerable<int[]> sequences) =>
        _options.DisableConcatSequences ? FirstTokens(sequences) : Concatenate(sequences);

    /// <summary>Packs one sequence behind what is there already.</summary>
    /// <param name="context">The context begun so far; holds the begun one afterwards.</param>
    /// <param name="tokens">The sequence.</param>
    /// <param name="offset">Where in it to go on; 0: it begins.</param>
    /// <returns>The contexts that become full, each with how many tokens of the sequence are used up by then.</returns>
    internal IEnumerable<(int[] Context, int Offset)> Add(List<int> context, int[] tokens, int offset = 0)
    {
        if (_options.DisableConcatSequences)
        {
            foreach (var first in FirstTokens([tokens])) yield return (first, tokens.Length);
            yield break;
        }

        var size = _options.ContextSize;
        var prefix = new List<int>(2);
        var start = offset == 0;
        while (offset < tokens.Length)
        {
            MakePrefix(prefix, tokens[offset], start, contextIsEmpty: context.Count == 0);
            var room = size - context.Count;
            var taken = Math.Min(Math.Max(room - prefix.Count, 0), tokens.Length - offset);
            for (var i = 0; i < Math.Min(room, prefix.Count); i++) context.Add(prefix[i]);
            context.AddRange(tokens.AsSpan(offset, taken));
            offset += taken;
            start = false;
            if (context.Count < size) continue;
            var full = context.ToArray();
            context.Clear();
            yield return (full, offset);
        }
    }

    private IEnumerable<int[]> Concatenate(IEnumerable<int[]> sequences)
    {
        var context = new List<int>(_options.ContextSize);
        foreach (var tokens in sequences)
            foreach (var (full, _) in Add(context, tokens))
                yield return full;
    }

    /// <summary>The special tokens that go before the next token: [batch or separator] [sequence].</summary>
    private void MakePrefix(List<int> prefix, int first, bool start, bool contextIsEmpty)
    {
        prefix.Clear();
        if (start && _options.BeginSequenceToken is { } bs && first != bs)
        {
            prefix.Add(bs);
            first = bs;
        }

        var lead = contextIsEmpty ? _options.BeginBatchToken : _options.SequenceSeparatorToken;
        if (lead is { } token && first != token) prefix.Insert(0, token);
    }

    private IEnumerable<int[]> FirstTokens(IEnumerable<int[]> sequences)
    {
        var size = _options.ContextSize;
        var first = _options.BeginSequenceToken ?? _options.BeginBatchToken;
        foreach (var tokens in sequences)
        {
            if (tokens.Length == 0) continue;
            if (first is { } token && tokens[0] != token)
            {
                if (tokens.Length >= size - 1) yield return [token, .. tokens.AsSpan(0, size - 1)];
            }
            else if (tokens.Length >= size)
            {
                yield return tokens[..size];
            }
        }
    }
}
