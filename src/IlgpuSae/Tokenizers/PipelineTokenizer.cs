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
    private readonly ChangeSequence _normalizer;
    private readonly ITokenEngine _engine;
    private readonly ITokenDecoder _decoder;

    public PipelineTokenizer(
        Vocabulary vocabulary,
        TokenizerSpecials specials,
        IReadOnlyCollection<AddedToken> added,
        ChangeSequence normalizer,
        ITokenEngine engine,
        ITokenDecoder decoder)
        : base(specials)
    {
        _vocabulary = vocabulary;
        _normalizer = normalizer;
        _raw = new AddedTokens(added.Where(t => !t.Normalized));
        _normalized = new AddedTokens(added.Where(t => t.Normalized), normalizer.Apply);
        _engine = engine;
        _decoder = decoder;
    }

    public override int VocabularySize => _vocabulary.Size;

    public override string? Piece(int id) => _vocabulary.Piece(id);

    public override int? Id(string piece) => _vocabulary.Id(piece);

    private protected override void Append(string text, TokenSink sink)
    {
        Origin[] origin = sink.Spans is null ? [] : [.. Enumerable.Range(0, text.Length).Select(i => new Origin(i, i + 1))];
        var first = true;
        for (var done = 0; ;)
        {
            var token = _raw.Next(text, done, out var start, out var stop);
            if (start > done) Normalize(done == 0 && start == text.Length ? text : text[done..start], origin.Length == 0 ? [] : origin.AsSpan(done, start - done), ref first, sink);
            if (token is null) return;
            sink.Add(token.Id, start, stop);
            first = false;
            done = stop;
        }
    }

    private protected override string Join(ReadOnlySpan<int> ids) => _decoder.Decode(ids);

    private void Normalize(string text, ReadOnlySpan<Origin> origin, ref bool first, TokenSink sink)
    {
        if (origin.IsEmpty) text = _normalizer.Apply(text);
        else (text, origin) = _normalizer.Trace(text, origin);
        for (var done = 0; ;)
        {
            var token = _normalized.Next(text, done, out var start, out var stop);
            if (start > done)
            {
                _engine.Encode(done == 0 && start == text.Length ? text : text[done..start], first, origin.IsEmpty ? origin : origin[done..start], sink);
                first = false;
            }

            if (token is null) return;
            if (origin.IsEmpty) sink.Add(token.Id, 0, 0);
            else sink.Add(token.Id, origin[start].Start, origin[stop - 1].End);
            first = false;
            done = stop;
        }
    }
}
