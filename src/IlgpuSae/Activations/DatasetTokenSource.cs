using System.Globalization;
using IlgpuSae.Datasets;
using IlgpuSae.Tokenizers;

namespace IlgpuSae.Activations;

/// <summary>A data set's share in a mix.</summary>
/// <param name="Data">The data set.</param>
/// <param name="Weight">Its share of the tokens, in proportion to the others'.</param>
public sealed record DatasetPart(Dataset Data, double Weight = 1);

/// <summary>Which rows of the data sets are used: those for training or those held out. Which is which depends on a row's place alone.</summary>
/// <param name="HeldOutFraction">Share of the rows that is held out, 0 to 1.</param>
/// <param name="HeldOut">Whether those are used; else the others.</param>
public sealed record DatasetSplit(double HeldOutFraction, bool HeldOut);

/// <summary>
/// Contexts from data sets. Text and conversations are tokenised without BOS and packed by <see cref="TokenPacker"/>;
/// rows of token ids are contexts as they are, cut to <c>context_size</c>. Several data sets are mixed row by row: next
/// is always the one whose tokens, in proportion to its weight, are fewest; one that ends before the others begins
/// again, and the mix ends when each has ended once.
/// </summary>
public sealed class DatasetTokenSource : TokenSource
{
    /// <summary>Up to this many tokens are kept from the first time round: 64 MB.</summary>
    private const long MostKept = 16_000_000;
    private const int RowsAhead = 64;
    private const int CharsAhead = 2_000_000;

    private readonly IReadOnlyList<DatasetPart> _parts;
    private readonly Tokenizer? _tokenizer;
    private readonly TokenPacker _packer;
    private readonly DatasetSplit? _split;
    private readonly bool? _addBos;
    private readonly List<string> _notes = [];
    private List<(int[] Context, TokenPosition After)>? _kept;
    private TokenPosition _after = new();
    private bool _warned;

    /// <summary>Creates a source.</summary>
    /// <param name="parts">At least one data set.</param>
    /// <param name="tokenizer">The model's tokenizer; null: all data sets must hold token ids.</param>
    /// <param name="packing">Context size and special tokens.</param>
    /// <param name="split">Which rows are used; null: all.</param>
    /// <param name="addBos">Whether texts are encoded with BOS: false for SAELens' way, null for what the tokenizer's files say.</param>
    /// <exception cref="InvalidInputException">No data set, a weight or share out of range, or text without a tokenizer.</exception>
    public DatasetTokenSource(IReadOnlyList<DatasetPart> parts, Tokenizer? tokenizer, PackingOptions packing, DatasetSplit? split = null, bool? addBos = false)
        : base(packing.ContextSize)
    {
        ArgumentNullException.ThrowIfNull(parts);
        if (parts.Count == 0) throw new InvalidInputException("there is no data set to read; give at least one");
        foreach (var part in parts)
        {
            if (!(part.Weight > 0 && double.IsFinite(part.Weight))) throw new InvalidInputException($"{part.Data.Path}: its weight {part.Weight.ToString(CultureInfo.InvariantCulture)} is not a positive number");
            if (tokenizer is null && part.Data.Kind != DataColumnKind.Tokens) throw new InvalidInputException($"{part.Data.Path}: column \"{part.Data.Column}\" has to be tokenised; give a tokenizer");
        }

        if (split is { HeldOutFraction: not (>= 0 and <= 1) }) throw new InvalidInputException($"holdout_fraction: {split.HeldOutFraction} is not a share between 0 and 1");
        (_parts, _tokenizer, _split, _addBos) = (parts, tokenizer, split, addBos);
        _packer = new TokenPacker(packing);
    }

    /// <inheritdoc/>
    public override string Name => string.Join(", ", _parts.Select(p => p.Data.Path));

    /// <inheritdoc/>
    public override IReadOnlyList<string> Notes => [.. _notes, .. _parts.Select(p => p.Data.MalformedNote).OfType<string>()];

    /// <inheritdoc/>
    public override TokenPosition Position => _after with { Wraps = Wraps, Served = Served, InPass = base.Position.InPass };

    /// <inheritdoc/>
    public override IEnumerable<int[]> Contexts() => _kept is { } kept ? Again(kept) : Pass(null);

    private protected override IEnumerable<int[]> From(TokenPosition position)
    {
        if (position.Parts.Count > 0 && position.Parts.Count != _parts.Count) throw new InvalidInputException($"{Name}: the place to go on from is in a mix of {position.Parts.Count} data sets, not {_parts.Count}");
        _after = position;
        return Pass(position);
    }

    private IEnumerable<int[]> Again(List<(int[] Context, TokenPosition After)> kept)
    {
        foreach (var (context, after) in kept)
        {
            _after = after;
            yield return context;
        }

        _after = new TokenPosition();
    }

    private IEnumerable<int[]> Pass(TokenPosition? from)
    {
        if (from?.Parts.Count == 0) from = null;
        var readers = _parts.Select((p, i) => new Reader(this, p, from?.Parts[i])).ToArray();
        List<(int[], TokenPosition)>? kept = from is null ? [] : null;
        try
        {
            var begun = new List<int>(from?.Begun ?? []);
            var (current, offset) = (from?.Current ?? -1, from?.Offset ?? 0);
            while (true)
            {
                var turn = current >= 0 ? current : Turn(readers);
                if (turn < 0) break;
                if (readers[turn].Take() is not { } row)
                {
                    if (current >= 0) throw new InvalidFileException(_parts[turn].Data.Path, "ends before the row to go on from; the data have changed");
                    continue;
                }

                foreach (var (context, used) in Pack(turn, row, begun, offset))
                {
                    _after = new TokenPosition
                    {
                        Parts = [.. readers.Select((r, i) => r.Position(i == turn && used < row.Tokens.Length))],
                        Current = used < row.Tokens.Length ? turn : -1,
                        Offset = used < row.Tokens.Length ? used : 0,
                        Begun = begun.Count == 0 ? [] : begun.ToArray(),
                    };
                    if (kept is not null && (kept.Count + 1L) * ContextSize > MostKept) kept = null;
                    kept?.Add((context, _after));
                    yield return context;
                }

                (current, offset) = (-1, 0);
            }

            _kept ??= kept;
            _after = new TokenPosition();
        }
        finally
        {
            foreach (var r in readers) r.Dispose();
        }
    }

    /// <summary>Whose row is next; -1: every data set has ended.</summary>
    private int Turn(Reader[] readers)
    {
        if (readers.All(r => r.Ended)) return -1;
        var best = 0;
        for (var i = 1; i < readers.Length; i++)
            if (readers[i].Tokens / _parts[i].Weight < readers[best].Tokens / _parts[best].Weight) best = i;
        return best;
    }

    private IEnumerable<(int[] Context, int Used)> Pack(int part, Row row, List<int> begun, int offset)
    {
        if (_parts[part].Data.Kind != DataColumnKind.Tokens) return _packer.Add(begun, row.Tokens, offset);
        if (row.Tokens.Length < ContextSize) throw new InvalidFileException(_parts[part].Data.Path, $"a row has {row.Tokens.Length} tokens, fewer than context_size = {ContextSize}; use a smaller context_size");
        if (row.Tokens.Length > ContextSize && !_warned)
        {
            _warned = true;
            _notes.Add($"{_parts[part].Data.Path}: rows of {row.Tokens.Length} tokens are cut to context_size = {ContextSize}");
        }

        return [(row.Tokens[..ContextSize], row.Tokens.Length)];
    }

    private bool Uses(DatasetCursor row)
    {
        if (_split is null || _split.HeldOutFraction == 0) return _split is not { HeldOut: true };
        // SplitMix64's finishing step over the row's place: no pattern of the rows can agree with it.
        var h = ((ulong)row.File << 48) + (ulong)row.Row + 0x9E3779B97F4A7C15;
        h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9;
        h = (h ^ h >> 27) * 0x94D049BB133111EB;
        return (h ^ h >> 31) < _split.HeldOutFraction * 18446744073709551616.0 == _split.HeldOut;
    }

    /// <summary>A row's tokens, and the places before and behind it.</summary>
    private sealed record Row(int[] Tokens, DatasetCursor Before, DatasetCursor After);

    /// <summary>Reads a data set some rows ahead, so that they can be tokenised on all cores.</summary>
    private sealed class Reader : IDisposable
    {
        private readonly DatasetTokenSource _source;
        private readonly DatasetPart _part;
        private readonly Queue<Row> _ahead = [];
        private IEnumerator<(DataRow Row, DatasetCursor Before, DatasetCursor After)> _rows;
        private DatasetCursor _next;
        private Row? _last;
        private bool _empty;

        public Reader(DatasetTokenSource source, DatasetPart part, PartPosition? from)
        {
            (_source, _part) = (source, part);
            _next = from?.Next ?? DatasetCursor.Start;
            (Tokens, Ended, _empty) = (from?.Tokens ?? 0, from?.Ended ?? false, from is null);
            _rows = part.Data.Rows(_next).GetEnumerator();
        }

        public long Tokens { get; private set; }

        public bool Ended { get; private set; }

        /// <summary>Where it stands, before the row taken last or behind it.</summary>
        public PartPosition Position(bool before) => before ? new(_last!.Before, Tokens - _last.Tokens.Length, Ended) : new(_next, Tokens, Ended);

        /// <summary>The next row; null: the end, behind which it begins again.</summary>
        public Row? Take()
        {
            if (_ahead.Count == 0) Fill();
            if (_ahead.TryDequeue(out var row))
            {
                (_last, _next, _empty) = (row, row.After, false);
                Tokens += row.Tokens.Length;
                return row;
            }

            if (_empty && _source._parts.Count > 1) throw new InvalidFileException(_part.Data.Path, "holds no row to mix with the other data sets");
            _rows.Dispose();
            _rows = _part.Data.Rows().GetEnumerator();
            (_next, Ended, _empty) = (DatasetCursor.Start, true, true);
            return null;
        }

        public void Dispose() => _rows.Dispose();

        private void Fill()
        {
            var rows = new List<(DataRow Row, DatasetCursor Before, DatasetCursor After)>();
            for (var chars = 0; rows.Count < RowsAhead && chars < CharsAhead && _rows.MoveNext();)
            {
                if (!_source.Uses(_rows.Current.Before)) continue;
                rows.Add(_rows.Current);
                chars += _rows.Current.Row.Text?.Length ?? 0;
            }

            var tokenizer = _source._tokenizer;
            int[][] tokens = _part.Data.Kind switch
            {
                DataColumnKind.Tokens => [.. rows.Select(r => r.Row.Tokens!)],
                DataColumnKind.Text => tokenizer!.EncodeAll([.. rows.Select(r => r.Row.Text!)], _source._addBos),
                _ => [.. rows.Select(r => Conversation(tokenizer!, r.Row, r.Before))],
            };
            for (var i = 0; i < rows.Count; i++) _ahead.Enqueue(new Row(tokens[i], rows[i].Before, rows[i].After));
        }

        private int[] Conversation(Tokenizer tokenizer, DataRow row, DatasetCursor place)
        {
            try
            {
                return tokenizer.EncodeChat(row.Messages!);
            }
            catch (InvalidInputException e) when (e is not InvalidFileException)
            {
                throw new InvalidFileException(_part.Data.Files[place.File], string.Create(CultureInfo.InvariantCulture, $"conversation {place.Row + 1}: {e.Message}"), e);
            }
        }
    }
}
