using System.Text;
using IlgpuSae.Files;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// SentencePiece byte-pair models (LLaMA, Mistral), id for id as Google's library. Models that cannot be followed
/// exactly are refused.
/// </summary>
/// <remarks>
/// Microsoft.ML.Tokenizers 2.0.1 reads these models too, but loses texts of one character, adds the prefix to blank
/// texts and merges from the right where scores are equal.
/// </remarks>
internal sealed class SentencePieceEngine : WordEngine
{
    private readonly SentencePieceModel _model;
    private readonly bool _prefixOnlyFirst;
    private readonly Dictionary<string, int> _normal = new(StringComparer.Ordinal);
    private readonly int[] _bytes = [.. Enumerable.Repeat(-1, 256)];
    private readonly PairMerger _merger = new();

    /// <param name="model">The model.</param>
    /// <param name="prefixOnlyFirst">Whether only the beginning of the input gets the dummy prefix (legacy = false in
    /// tokenizer_config.json) or every stretch of text between special tokens.</param>
    /// <exception cref="InvalidFileException">A model of a kind that is not followed exactly.</exception>
    public SentencePieceEngine(SentencePieceModel model, bool prefixOnlyFirst)
        : base(Cutter(model))
    {
        Refuse(model, model.ModelType != 2, $"is a SentencePiece model of type {model.ModelType} ({(model.ModelType == 1 ? "Unigram" : "words or characters")}), only type 2 (BPE) is known");
        Refuse(model, model.HasCharacterMap, $"normalizes text by the rule {Say.Quote(model.Rule)}, only models without a character map (identity) are known");
        Refuse(model, model.WhitespaceAsSuffix, "has white space behind words (treat_whitespace_as_suffix), which is not known");
        Refuse(model, !model.EscapeWhitespaces, "leaves spaces unescaped (escape_whitespaces = false), which is not known");
        Refuse(model, !model.ByteFallback, "has no byte fallback, which is not known");
        for (var id = 0; id < model.Pieces.Count; id++)
        {
            var (text, kind, score) = model.Pieces[id];
            var value = kind == PieceKind.Byte ? PieceDecoder.ByteOf(text) : (short)-1;
            Refuse(model, kind is PieceKind.UserDefined or PieceKind.Unused, $"has the {(kind == PieceKind.Unused ? "unused" : "user-defined")} piece {Say.Quote(text)}, which is not known here; use the model's tokenizer.json");
            Refuse(model, kind is < PieceKind.Normal or > PieceKind.Byte, $"has the piece {Say.Quote(text)} of the unknown kind {(int)kind}");
            Refuse(model, (kind == PieceKind.Byte && value < 0) || (kind == PieceKind.Normal && (text.Length == 0 || !float.IsFinite(score))), $"has the impossible piece {Say.Quote(text)}, number {id}");
            if (value >= 0) _bytes[value] = id;
            if (kind == PieceKind.Normal) _normal[text] = id;
        }

        var bytes = _bytes.Count(id => id >= 0);
        Refuse(model, bytes != 256, $"has {bytes} pieces for bytes, expected 256");
        _model = model;
        _prefixOnlyFirst = prefixOnlyFirst;
        AddMerges();
    }

    /// <summary>
    /// The normalization of SentencePiece's normalizer.cc without a character map: spaces become ▁, one is put in
    /// front, and, where the model says so, those at both ends and repeated ones vanish.
    /// </summary>
    private protected override string Prepare(string text, bool first)
    {
        if (_model.RemoveExtraWhitespaces) text = text.TrimStart(' ');
        if (text.Length == 0) return "";
        var s = new StringBuilder(text.Length + 1);
        if (_model.AddDummyPrefix && (first || !_prefixOnlyFirst)) s.Append('▁');
        var afterSpace = false;
        foreach (var c in text)
        {
            if (c != ' ' || !afterSpace) s.Append(c == ' ' ? '▁' : c);
            afterSpace = _model.RemoveExtraWhitespaces && c == ' ';
        }

        // Written-out ▁ at the end go too: the rule looks at the normalized text.
        if (_model.RemoveExtraWhitespaces) while (s.Length > 0 && s[^1] == '▁') s.Length--;
        return s.ToString();
    }

    /// <inheritdoc/>
    private protected override int[] Merge(ReadOnlySpan<char> word)
    {
        var symbols = new List<int>(word.Length);
        var lookup = _normal.GetAlternateLookup<ReadOnlySpan<char>>();
        Span<byte> utf8 = stackalloc byte[4];
        while (word.Length > 0)
        {
            Rune.DecodeFromUtf16(word, out var rune, out var used);
            if (lookup.TryGetValue(word[..used], out var id)) symbols.Add(id);
            else foreach (var b in utf8[..rune.EncodeToUtf8(utf8)]) symbols.Add(_bytes[b]);
            word = word[used..];
        }

        return _merger.Merge(symbols);
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
                Refuse(_model, !_normal.ContainsKey(rune.ToString()), $"has the piece {Say.Quote(text)} but none for its character {Say.Quote(rune.ToString())}, which is not known");
        }
    }

    /// <summary>Words may be taken alone when no piece reaches over a space.</summary>
    private static Splitter Cutter(SentencePieceModel model) =>
        model.Pieces.All(p => p.Kind != PieceKind.Normal || MetaspaceRunSplitter.NeverCuts(p.Text)) ? new MetaspaceRunSplitter() : new NoSplitter();

    private static void Refuse(SentencePieceModel model, bool when, string problem)
    {
        if (when) throw new InvalidFileException(model.Path, problem);
    }
}
