using System.Text;
using IlgpuSae.Files;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// Byte-pair encoding over code points with byte fallback, as tokenizer.json describes LLaMA's, Mistral's and Gemma's
/// tokenizers. A code point without a token becomes the tokens of its bytes.
/// </summary>
internal sealed class PieceEngine : WordEngine
{
    private readonly Dictionary<string, int> _vocabulary;
    private readonly PairMerger _merger = new();
    private readonly ByteTokens? _bytes;
    private readonly int? _unknown;
    private readonly bool _fuseUnknown;
    private readonly bool _ignoreMerges;

    /// <param name="path">The tokenizer's file, for messages.</param>
    /// <param name="vocabulary">The model's own tokens.</param>
    /// <param name="merges">Pairs, the most urgent first.</param>
    /// <param name="byteFallback">Whether unknown code points become byte tokens.</param>
    /// <param name="unknown">The token of what remains unknown; null: such text is refused.</param>
    /// <param name="fuseUnknown">Whether neighbouring unknown code points share one unknown token.</param>
    /// <param name="ignoreMerges">Whether a word that is a token as a whole is taken without merging.</param>
    /// <param name="stages">Cut the text into words that no token crosses.</param>
    /// <exception cref="InvalidFileException">A merge of tokens that do not exist.</exception>
    public PieceEngine(
        string path,
        IReadOnlyDictionary<string, int> vocabulary,
        IReadOnlyList<(string Left, string Right)> merges,
        bool byteFallback,
        int? unknown,
        bool fuseUnknown,
        bool ignoreMerges,
        params SplitStage[] stages)
        : base(stages)
    {
        Merges.Check(path, vocabulary, merges);
        _vocabulary = new Dictionary<string, int>(vocabulary, StringComparer.Ordinal);
        for (var rank = 0; rank < merges.Count; rank++)
        {
            var (left, right) = merges[rank];
            _merger.Add(vocabulary[left], vocabulary[right], rank, vocabulary[left + right]);
        }

        if (byteFallback) _bytes = new ByteTokens(vocabulary);
        _unknown = unknown;
        _fuseUnknown = fuseUnknown;
        _ignoreMerges = ignoreMerges;
    }

    /// <inheritdoc/>
    private protected override int[] Merge(ReadOnlySpan<char> word, List<int>? lengths)
    {
        var symbols = new List<int>(word.Length);
        var lookup = _vocabulary.GetAlternateLookup<ReadOnlySpan<char>>();
        if (_ignoreMerges && lookup.TryGetValue(word, out var whole))
        {
            lengths?.Add(Encoding.UTF8.GetByteCount(word));
            return [whole];
        }

        var afterUnknown = false;
        while (word.Length > 0)
        {
            Rune.DecodeFromUtf16(word, out var rune, out var used);
            var known = lookup.TryGetValue(word[..used], out var id);
            if (known)
            {
                symbols.Add(id);
                lengths?.Add(rune.Utf8SequenceLength);
            }
            else if (_bytes?.Add(rune, symbols, lengths) == true)
            {
                known = true;
            }
            else
            {
                if (_unknown is not { } unknown) throw new InvalidInputException($"the vocabulary has no token for {Say.Quote(rune.ToString())} (U+{rune.Value:X4}), which the text contains");
                if (afterUnknown && _fuseUnknown)
                {
                    if (lengths is not null) lengths[^1] += rune.Utf8SequenceLength;
                }
                else
                {
                    symbols.Add(unknown);
                    lengths?.Add(rune.Utf8SequenceLength);
                }
            }

            afterUnknown = !known;
            word = word[used..];
        }

        return _merger.Merge(symbols, lengths);
    }
}

/// <summary>The tokens &lt;0x00&gt; to &lt;0xFF&gt; that stand for single bytes.</summary>
internal sealed class ByteTokens
{
    private readonly int[] _id;

    /// <param name="vocabulary">The tokens; some bytes may be missing.</param>
    public ByteTokens(IReadOnlyDictionary<string, int> vocabulary) =>
        _id = [.. Enumerable.Range(0, 256).Select(b => vocabulary.TryGetValue($"<0x{b:X2}>", out var id) ? id : -1)];

    /// <summary>Adds the tokens of a code point's bytes, if all of them exist.</summary>
    public bool Add(Rune rune, List<int> ids, List<int>? lengths)
    {
        Span<byte> utf8 = stackalloc byte[4];
        utf8 = utf8[..rune.EncodeToUtf8(utf8)];
        foreach (var b in utf8)
            if (_id[b] < 0) return false;
        foreach (var b in utf8)
        {
            ids.Add(_id[b]);
            lengths?.Add(1);
        }

        return true;
    }
}
