using System.Runtime.InteropServices;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// Text of a growing sequence of tokens, piece by piece as it becomes certain: a character whose bytes are spread over
/// several tokens is held back until it is whole. The pieces put together are the sequence decoded at once,
/// save that what was given out cannot be taken back when a later byte spoils a run of byte tokens.
/// </summary>
public sealed class StreamingDecoder
{
    private readonly Tokenizer _tokenizer;
    private readonly bool _skipSpecial;
    private readonly List<int> _ids = [];
    private int _given;

    /// <summary>Starts at the beginning of a text.</summary>
    /// <param name="tokenizer">Whose tokens they are.</param>
    /// <param name="skipSpecial">Whether to leave out special tokens.</param>
    public StreamingDecoder(Tokenizer tokenizer, bool skipSpecial = true)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        _tokenizer = tokenizer;
        _skipSpecial = skipSpecial;
    }

    /// <summary>Takes the next token.</summary>
    /// <param name="id">The token.</param>
    /// <returns>The text that is certain since the last call; often one token's, sometimes none.</returns>
    /// <exception cref="InvalidInputException">A negative id.</exception>
    public string Add(int id)
    {
        if (_skipSpecial && _tokenizer.IsSpecial(id)) return "";
        _ids.Add(id);
        var text = Text();
        return text.Length <= _given || text[^1] == '\uFFFD' ? "" : Give(text);
    }

    /// <summary>Ends the text.</summary>
    /// <returns>What was held back: an unfinished character shows as U+FFFD.</returns>
    public string End() => Give(Text());

    private string Text() => _tokenizer.Decode(CollectionsMarshal.AsSpan(_ids));

    /// <summary>
    /// Forgets all tokens but the last few, which are context: they decide about a leading space and belong to the same
    /// run of bytes. As many are kept as decode by themselves to the end of the text so far.
    /// </summary>
    private string Give(string text)
    {
        var news = text[_given..];
        for (var keep = 1; keep <= _ids.Count; keep++)
        {
            var context = _tokenizer.Decode(CollectionsMarshal.AsSpan(_ids)[^keep..]);
            if (keep < _ids.Count && (context.Length == 0 || !text.EndsWith(context, StringComparison.Ordinal))) continue;
            _ids.RemoveRange(0, _ids.Count - keep);
            _given = context.Length;
            break;
        }

        return news;
    }
}
