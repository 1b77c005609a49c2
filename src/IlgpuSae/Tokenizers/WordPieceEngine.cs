using System.Text;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// WordPiece (BERT): a word is its longest beginning that is a token, then the longest continuation (marked by a
/// prefix, ##) and so on; a word that does not come out, or is too long, is unknown as a whole.
/// </summary>
internal sealed class WordPieceEngine : WordEngine
{
    private readonly Dictionary<string, int> _vocabulary;
    private readonly int _unknown;
    private readonly string _continuing;
    private readonly int _longestWord;

    /// <param name="vocabulary">The model's own tokens.</param>
    /// <param name="unknown">The unknown token.</param>
    /// <param name="continuing">What marks a token that continues a word.</param>
    /// <param name="longestWord">Most code points in a word.</param>
    /// <param name="stages">Cut the text into words.</param>
    public WordPieceEngine(IReadOnlyDictionary<string, int> vocabulary, int unknown, string continuing, int longestWord, params SplitStage[] stages)
        : base(stages)
    {
        _vocabulary = new Dictionary<string, int>(vocabulary, StringComparer.Ordinal);
        (_unknown, _continuing, _longestWord) = (unknown, continuing, longestWord);
    }

    /// <inheritdoc/>
    private protected override int[] Merge(ReadOnlySpan<char> word, List<int>? lengths)
    {
        var ids = new List<int>();
        var runes = 0;
        foreach (var _ in word.EnumerateRunes()) runes++;
        for (var at = 0; at < word.Length && runes <= _longestWord;)
        {
            var end = word.Length;
            int id;
            while (!_vocabulary.TryGetValue((at > 0 ? _continuing : "") + word[at..end].ToString(), out id) && end > at)
                end -= char.IsLowSurrogate(word[end - 1]) ? 2 : 1;
            if (end <= at) break;
            ids.Add(id);
            lengths?.Add(Encoding.UTF8.GetByteCount(word[at..end]));
            at = end;
            if (at == word.Length) return [.. ids];
        }

        lengths?.Clear();
        lengths?.Add(Encoding.UTF8.GetByteCount(word));
        return [_unknown];
    }
}
