using System.Text;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// Hugging Face's decoders, one after another: each turns the list of tokens' texts into another such list, and what
/// the last leaves is put together.
/// </summary>
/// <param name="vocabulary">The tokens.</param>
/// <param name="steps">The decoders.</param>
internal sealed class DecoderChain(Vocabulary vocabulary, IReadOnlyList<DecoderStep> steps) : ITokenDecoder
{
    /// <inheritdoc/>
    public string Decode(ReadOnlySpan<int> ids)
    {
        var texts = new List<string>(ids.Length);
        foreach (var id in ids)
            if (vocabulary.Piece(id) is { } piece) texts.Add(piece);
        foreach (var step in steps) texts = step(texts);
        return string.Concat(texts);
    }
}

/// <summary>One decoder.</summary>
internal delegate List<string> DecoderStep(List<string> tokens);

/// <summary>The decoders that tokenizer.json names (tokenizers/src/decoders and pre_tokenizers/metaspace.rs).</summary>
internal static class Decoders
{
    /// <summary>Byte-level spelling back to text; all tokens become one.</summary>
    public static List<string> ByteLevel(List<string> tokens) =>
        [Encoding.UTF8.GetString([.. tokens.SelectMany(Tokenizers.ByteLevel.Bytes)])];

    /// <summary>&lt;0xXX&gt; to text: a run that is valid UTF-8 is its characters, any other U+FFFD for each byte.</summary>
    public static List<string> ByteFallback(List<string> tokens)
    {
        var result = new List<string>(tokens.Count);
        var run = new List<byte>();
        foreach (var token in tokens)
        {
            if (PieceDecoder.ByteOf(token) is >= 0 and var b)
            {
                run.Add((byte)b);
                continue;
            }

            Flush();
            result.Add(token);
        }

        Flush();
        return result;

        void Flush()
        {
            if (run.Count == 0) return;
            byte[] bytes = [.. run];
            if (System.Text.Unicode.Utf8.IsValid(bytes)) result.Add(Encoding.UTF8.GetString(bytes));
            else result.AddRange(Enumerable.Repeat("\uFFFD", bytes.Length));
            run.Clear();
        }
    }

    /// <summary>All tokens become one.</summary>
    public static List<string> Fuse(List<string> tokens) => [string.Concat(tokens)];

    /// <summary>A literal in every token.</summary>
    public static DecoderStep Replace(string pattern, string content) => tokens => tokens.ConvertAll(t => t.Replace(pattern, content, StringComparison.Ordinal));

    /// <summary>Up to so many of a character at both ends of every token.</summary>
    public static DecoderStep Strip(char content, int start, int stop) => tokens => tokens.ConvertAll(t =>
    {
        int from = 0, to = t.Length;
        while (from < Math.Min(start, t.Length) && t[from] == content) from++;
        while (t.Length - to < stop && to > from && t[to - 1] == content) to--;
        return t[from..to];
    });

    /// <summary>▁ to spaces; those that the encoder put in front go.</summary>
    public static DecoderStep Metaspace(bool prepends) => tokens =>
    {
        var result = new List<string>(tokens.Count);
        for (var i = 0; i < tokens.Count; i++)
            result.Add((i == 0 && prepends ? tokens[i].Replace("▁", "", StringComparison.Ordinal) : tokens[i].Replace('▁', ' ')));
        return result;
    };

    /// <summary>Continuations join, other tokens get a space before them.</summary>
    /// <param name="prefix">The mark of continuations.</param>
    /// <param name="cleanup">Whether spaces before punctuation and in contractions go.</param>
    public static DecoderStep WordPiece(string prefix, bool cleanup) => tokens =>
    {
        var result = new List<string>(tokens.Count);
        for (var i = 0; i < tokens.Count; i++)
        {
            var t = i == 0 ? tokens[i] : tokens[i].StartsWith(prefix, StringComparison.Ordinal) ? tokens[i][prefix.Length..] : " " + tokens[i];
            result.Add(cleanup ? Clean(t) : t);
        }

        return result;
    };

    private static string Clean(string t)
    {
        foreach (var (from, to) in (ReadOnlySpan<(string, string)>)[(" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")])
            t = t.Replace(from, to, StringComparison.Ordinal);
        return t;
    }
}
