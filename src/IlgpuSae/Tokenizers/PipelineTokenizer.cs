namespace IlgpuSae.Tokenizers;

/// <summary>
/// The stages every tokenizer has: added tokens found in the raw text, the normalizer, added tokens found in the
/// normalized text, the model proper; and the decoder for the way back.
/// </summary>
internal sealed class PipelineTokenizer : Tokenizer
{
    private readonly Vocabulary _vocabulary;
    private readonly AddedTokens _raw;
    private readonly AddedTokens _normalized;
    private readonly Func<string, string> _normalize;
    private readonly ITokenEngine _engine;
    private readonly ITokenDecoder _decoder;

    public PipelineTokenizer(
        Vocabulary vocabulary,
        TokenizerSpecials specials,
        IReadOnlyCollection<AddedToken> added,
        Func<string, string>? normalize,
        ITokenEngine engine,
        ITokenDecoder decoder)
        : base(specials)
    {
        _vocabulary = vocabulary;
        _normalize = normalize ?? (static s => s);
        _raw = new AddedTokens(added.Where(t => !t.Normalized));
        _normalized = new AddedTokens(added.Where(t => t.Normalized), _normalize);
        _engine = engine;
        _decoder = decoder;
    }

    public override int VocabularySize => _vocabulary.Size;

    public override string? Piece(int id) => _vocabulary.Piece(id);

    public override int? Id(string piece) => _vocabulary.Id(piece);

    private protected override void Append(string text, List<int> ids)
    {
        var first = true;
        _raw.Split(text, Outside, Found);

        void Outside(string part)
        {
            var normal = _normalize(part);
            if (normal.Length > 0) _normalized.Split(normal, Plain, Found);
        }

        void Plain(string part)
        {
            _engine.Encode(part, first, ids);
            first = false;
        }

        void Found(int id)
        {
            ids.Add(id);
            first = false;
        }
    }

    private protected override string Join(ReadOnlySpan<int> ids) => _decoder.Decode(ids);
}
