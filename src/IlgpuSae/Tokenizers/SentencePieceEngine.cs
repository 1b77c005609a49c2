using System.Text;
using IlgpuSae.Files;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// SentencePiece models, id for id as Google's library. Models that cannot be followed exactly are refused.
/// </summary>
internal static class SentencePieceEngines
{
    /// <summary>The engine of a model.</summary>
    /// <param name="model">The model.</param>
    /// <param name="prefixOnlyFirst">See <see cref="SentencePieceText"/>.</param>
    /// <exception cref="InvalidFileException">A model of a kind that is not followed exactly.</exception>
    public static ITokenEngine Create(SentencePieceModel model, bool prefixOnlyFirst)
    {
        Refuse(model, model.ModelType is not (1 or 2), $"is a SentencePiece model of type {model.ModelType} (words or characters), only 1 (Unigram) and 2 (BPE) are known");
        Refuse(model, model.WhitespaceAsSuffix, "has white space behind words (treat_whitespace_as_suffix), which is not known");
        Refuse(model, !model.EscapeWhitespaces, "leaves spaces unescaped (escape_whitespaces = false), which is not known");
        for (var id = 0; id < model.Pieces.Count; id++)
        {
            var (text, kind, score) = model.Pieces[id];
            Refuse(model, kind == PieceKind.Unused && model.ModelType == 2, $"has the unused piece {Say.Quote(text)}, which is not known here; use the model's tokenizer.json");
            Refuse(model, kind is < PieceKind.Normal or > PieceKind.Byte, $"has the piece {Say.Quote(text)} of the unknown kind {(int)kind}");
            Refuse(model, (kind == PieceKind.Byte && PieceDecoder.ByteOf(text) < 0) || (kind is PieceKind.Normal or PieceKind.UserDefined && (text.Length == 0 || !float.IsFinite(score))), $"has the impossible piece {Say.Quote(text)}, number {id}");
        }

        var bytes = model.Pieces.Where(p => p.Kind == PieceKind.Byte).Select(p => p.Text).Distinct().Count();
        Refuse(model, model.ByteFallback && bytes != 256, $"has {bytes} pieces for bytes, expected 256");
        Refuse(model, !model.ByteFallback && !(model.UnkId >= 0 && model.UnkId < model.Pieces.Count), "has neither byte fallback nor an unknown piece");
        var own = new PrefixMatcher(Of(model, PieceKind.UserDefined));
        var change = new SentencePieceText(model, own, prefixOnlyFirst);
        if (model.ModelType == 2) return new SentencePieceEngine(model, own, change);
        var best = model.Pieces.Where(p => p.Kind == PieceKind.Normal).Select(p => p.Score).DefaultIfEmpty(0).Max();
        // What the user defined outweighs everything it could be made of (unigram_model.cc, EncodeOptimized).
        var scores = Of(model, PieceKind.Normal).Select(p => (p.Key, (double)model.Pieces[p.Value].Score, p.Value))
            .Concat(Of(model, PieceKind.UserDefined).Select(p => (p.Key, Encoding.UTF8.GetByteCount(p.Key) * best - 0.1, p.Value)));
        var lowest = model.Pieces.Where(p => p.Kind == PieceKind.Normal).Select(p => p.Score).DefaultIfEmpty(0).Min();
        return new UnigramEngine(scores, lowest, model.ByteFallback ? Bytes(model) : null, model.UnkId, single: true, new SplitStage(new NoSplitter(), change));
    }

    /// <summary>Ids by text, of one kind of piece.</summary>
    public static Dictionary<string, int> Of(SentencePieceModel model, PieceKind kind)
    {
        var ids = new Dictionary<string, int>(StringComparer.Ordinal);
        for (var id = 0; id < model.Pieces.Count; id++)
            if (model.Pieces[id].Kind == kind) ids[model.Pieces[id].Text] = id;
        return ids;
    }

    /// <summary>The byte pieces.</summary>
    public static ByteTokens Bytes(SentencePieceModel model) => new(Of(model, PieceKind.Byte));

    /// <summary>Refuses a model.</summary>
    public static void Refuse(SentencePieceModel model, bool when, string problem)
    {
        if (when) throw new InvalidFileException(model.Path, problem);
    }
}

/// <summary>SentencePiece byte-pair models (LLaMA, Mistral, Gemma).</summary>
/// <remarks>
/// Microsoft.ML.Tokenizers 2.0.1 reads these models too, but loses texts of one character, adds the prefix to blank
/// texts and merges from the right where scores are equal.
/// </remarks>
internal sealed class SentencePieceEngine : WordEngine
{
    private readonly SentencePieceModel _model;
    private readonly Dictionary<string, int> _normal;
    private readonly PrefixMatcher _own;
    private readonly ByteTokens? _bytes;
    private readonly PairMerger _merger = new();

    /// <param name="model">The model, checked.</param>
    /// <param name="own">Its pieces that the user defined: taken first and never merged.</param>
    /// <param name="change">Its normalization.</param>
    public SentencePieceEngine(SentencePieceModel model, PrefixMatcher own, TextChange change)
        : base(new SplitStage(Cutter(model), change))
    {
        _model = model;
        _own = own;
        _normal = SentencePieceEngines.Of(model, PieceKind.Normal);
        if (model.ByteFallback) _bytes = SentencePieceEngines.Bytes(model);
        AddMerges();
    }

    /// <inheritdoc/>
    private protected override int[] Merge(ReadOnlySpan<char> word, List<int>? lengths)
    {
        var symbols = new List<int>(word.Length);
        var lookup = _normal.GetAlternateLookup<ReadOnlySpan<char>>();
        var afterUnknown = false;
        while (word.Length > 0)
        {
            var unknown = false;
            if (_own.Longest(word, out var id) is var used and > 0)
            {
                symbols.Add(id);
                lengths?.Add(Encoding.UTF8.GetByteCount(word[..used]));
            }
            else
            {
                Rune.DecodeFromUtf16(word, out var rune, out used);
                if (lookup.TryGetValue(word[..used], out id))
                {
                    symbols.Add(id);
                    lengths?.Add(rune.Utf8SequenceLength);
                }
                else if (_bytes?.Add(rune, symbols, lengths) != true)
                {
                    unknown = true;
                    if (!afterUnknown) symbols.Add(_model.UnkId);
                    if (!afterUnknown) lengths?.Add(rune.Utf8SequenceLength);
                    else if (lengths is not null) lengths[^1] += rune.Utf8SequenceLength;
                }
            }

            afterUnknown = unknown;
            word = word[used..];
        }

        return _merger.Merge(symbols, lengths);
    }

    /// <summary>Any two pieces whose texts join to a piece may merge, at the rank of the result's score; equal scores, equal ranks.</summary>
    private void AddMerges()
    {
        var scores = _normal.Values.Select(id => _model.Pieces[id].Score).Distinct().OrderDescending().ToArray();
        var rankOf = scores.Select((s, i) => (s, i)).ToDictionary(p => p.s, p => p.i);
        foreach (var (text, id) in _normal)
        {
            for (var cut = 1; cut < text.Length; cut++)
            {
                if (!_normal.TryGetValue(text[..cut], out var left) || !_normal.TryGetValue(text[cut..], out var right)) continue;
                _merger.Add(left, right, rankOf[_model.Pieces[id].Score], id);
            }

            // Google's library starts from code points whether they are pieces or not.
            foreach (var rune in text.EnumerateRunes())
                SentencePieceEngines.Refuse(_model, !_normal.ContainsKey(rune.ToString()), $"has the piece {Say.Quote(text)} but none for its character {Say.Quote(rune.ToString())}, which is not known");
        }
    }

    /// <summary>Words may be taken alone when no piece reaches over a space, and no unknown run of characters can.</summary>
    private static Splitter Cutter(SentencePieceModel model) =>
        model.Pieces.All(p => p.Kind is not (PieceKind.Normal or PieceKind.UserDefined) || MetaspaceRunSplitter.NeverCuts(p.Text))
        && (model.ByteFallback || model.Pieces.Any(p => p is { Kind: PieceKind.Normal, Text: "▁" }))
            ? new MetaspaceRunSplitter() : new NoSplitter();
}
