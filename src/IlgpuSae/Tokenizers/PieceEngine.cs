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
    private readonly int[]? _bytes;
    private readonly int? _unknown;
    private readonly bool _fuseUnknown;
    private readonly Func<string, bool, string> _prepare;

    /// <param name="path">The tokenizer's file, for messages.</param>
    /// <param name="vocabulary">The model's own tokens.</param>
    /// <param name="merges">Pairs, the most urgent first.</param>
    /// <param name="byteFallback">Whether unknown code points become byte tokens.</param>
    /// <param name="unknown">The token of what remains unknown; null: such text is refused.</param>
    /// <param name="fuseUnknown">Whether neighbouring unknown code points share one unknown token.</param>
    /// <param name="splitter">Cuts the text into pieces that no token crosses.</param>
    /// <param name="prepare">The pre-tokenizer's changes of the text, given whether it begins the input.</param>
    /// <exception cref="InvalidFileException">A merge of tokens that do not exist.</exception>
    public PieceEngine(
        string path,
        IReadOnlyDictionary<string, int> vocabulary,
        IReadOnlyList<(string Left, string Right)> merges,
        bool byteFallback,
        int? unknown,
        bool fuseUnknown,
        Splitter splitter,
        Func<string, bool, string> prepare)
        : base(splitter)
    {
        Merges.Check(path, vocabulary, merges);
        _vocabulary = new Dictionary<string, int>(vocabulary, StringComparer.Ordinal);
        for (var rank = 0; rank < merges.Count; rank++)
        {
            var (left, right) = merges[rank];
            _merger.Add(vocabulary[left], vocabulary[right], rank, vocabulary[left + right]);
        }

        if (byteFallback)
        {
            var bytes = Enumerable.Range(0, 256).Select(b => vocabulary.TryGetValue($"<0x{b:X2}>", out var id) ? id : -1).ToArray();
            _bytes = bytes;
        }

        _unknown = unknown;
        _fuseUnknown = fuseUnknown;
        _prepare = prepare;
    }

    /// <inheritdoc/>
    private protected override string Prepare(string text, bool first) => _prepare(text, first);

    /// <inheritdoc/>
    private protected override int[] Merge(ReadOnlySpan<char> piece)
    {
        var symbols = new List<int>(piece.Length);
        Span<byte> utf8 = stackalloc byte[4];
        var lookup = _vocabulary.GetAlternateLookup<ReadOnlySpan<char>>();
        var afterUnknown = false;
        while (piece.Length > 0)
        {
            Rune.DecodeFromUtf16(piece, out var rune, out var used);
            if (lookup.TryGetValue(piece[..used], out var id))
            {
                symbols.Add(id);
                afterUnknown = false;
            }
            else if (!AddBytes(utf8[..rune.EncodeToUtf8(utf8)], symbols))
            {
                if (_unknown is not { } unknown) throw new InvalidInputException($"the vocabulary has no token for {Say.Quote(rune.ToString())} (U+{rune.Value:X4}), which the text contains");
                if (!(afterUnknown && _fuseUnknown)) symbols.Add(unknown);
                afterUnknown = true;
            }
            else
            {
                afterUnknown = false;
            }

            piece = piece[used..];
        }

        return _merger.Merge(symbols);
    }

    private bool AddBytes(ReadOnlySpan<byte> utf8, List<int> symbols)
    {
        if (_bytes is null) return false;
        foreach (var b in utf8)
            if (_bytes[b] < 0) return false;
        foreach (var b in utf8) symbols.Add(_bytes[b]);
        return true;
    }
}
