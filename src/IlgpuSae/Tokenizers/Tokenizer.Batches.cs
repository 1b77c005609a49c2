namespace IlgpuSae.Tokenizers;

/// <content>TransformerLens' ways of asking: to_tokens, to_str_tokens, to_single_token.</content>
public abstract partial class Tokenizer
{
    /// <summary>Token ids of a text as TransformerLens' to_tokens gives them: BOS first unless told otherwise, whatever the tokenizer's files say.</summary>
    /// <param name="text">Any text.</param>
    /// <param name="prependBos">Whether <see cref="BosToken"/> comes first.</param>
    /// <exception cref="InvalidInputException">BOS is wanted but the tokenizer has none, or the vocabulary cannot express the text.</exception>
    public int[] ToTokens(string text, bool prependBos = true) => Encode(text, prependBos);

    /// <summary>Token ids of several texts side by side, the shorter ones filled up.</summary>
    /// <param name="texts">At least one text.</param>
    /// <param name="prependBos">Whether <see cref="BosToken"/> comes first.</param>
    /// <param name="padding">Where short texts are filled up. Positions count from the left: a model's answer to the last token of left-padded texts is in the last column.</param>
    /// <param name="maxLength">Longer texts are cut to their first tokens; null: none is.</param>
    /// <exception cref="InvalidInputException">No texts, or the tokenizer has neither PAD nor EOS nor BOS to fill up with.</exception>
    public TokenBatch ToTokens(IReadOnlyList<string> texts, bool prependBos = true, PaddingSide padding = PaddingSide.Right, int? maxLength = null)
    {
        ArgumentNullException.ThrowIfNull(texts);
        if (texts.Count == 0) throw new InvalidInputException("a batch of tokens needs at least one text");
        if (maxLength is < 1) throw new InvalidInputException($"the most tokens of a text are {maxLength}, expected at least 1");
        var rows = EncodeAll(texts, prependBos);
        var lengths = rows.Select(r => Math.Min(r.Length, maxLength ?? int.MaxValue)).ToArray();
        var width = lengths.Max();
        // Without a token of its own for it, TransformerLens fills up with EOS.
        var pad = PadToken ?? EosToken ?? BosToken
            ?? (lengths.All(n => n == width) ? 0 : throw new InvalidInputException("the texts have different lengths, and the tokenizer has no PAD, EOS or BOS token to fill up with; name one in tokenizer_config.json"));
        var ids = new int[rows.Length * width];
        Array.Fill(ids, pad);
        for (var i = 0; i < rows.Length; i++)
            rows[i].AsSpan(0, lengths[i]).CopyTo(ids.AsSpan(i * width + (padding == PaddingSide.Left ? width - lengths[i] : 0)));
        return new TokenBatch { Ids = ids, Rows = rows.Length, Length = width, Lengths = lengths, Padding = padding };
    }

    /// <summary>The text of each token of a text, as TransformerLens' to_str_tokens gives them: part of a character gives U+FFFD.</summary>
    /// <param name="text">Any text.</param>
    /// <param name="prependBos">Whether <see cref="BosToken"/> comes first.</param>
    /// <exception cref="InvalidInputException">BOS is wanted but the tokenizer has none, or the vocabulary cannot express the text.</exception>
    public string[] ToStringTokens(string text, bool prependBos = true) => ToStringTokens(ToTokens(text, prependBos));

    /// <summary>The text of each of several tokens.</summary>
    /// <param name="ids">The tokens.</param>
    /// <exception cref="InvalidInputException">A negative id.</exception>
    public string[] ToStringTokens(ReadOnlySpan<int> ids)
    {
        var result = new string[ids.Length];
        for (var i = 0; i < ids.Length; i++) result[i] = TokenString(ids[i]);
        return result;
    }

    /// <summary>The token that a text is, as TransformerLens' to_single_token gives it.</summary>
    /// <param name="text">A text of exactly one token, such as " Paris" with its space.</param>
    /// <exception cref="InvalidInputException">It is none or several tokens; the message shows them.</exception>
    public int ToSingleToken(string text)
    {
        var ids = ToTokens(text, prependBos: false);
        if (ids.Length == 1) return ids[0];
        var tokens = string.Join(", ", ids.Take(8).Select(i => Files.Say.Quote(TokenString(i)))) + (ids.Length > 8 ? ", …" : "");
        throw new InvalidInputException($"{Files.Say.Quote(text)} is {ids.Length} tokens{(ids.Length > 0 ? $" ({tokens})" : "")}, expected exactly one; mind the space that begins most words' tokens");
    }
}
