using System.Text;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// Unigram language models (T5, XLM-R, ALBERT): of all ways to put a word together from pieces, the one whose scores
/// add up to the most; of equals the one found first, from short pieces to long ones. What no piece covers is
/// unknown, at the lowest score less 10; unknown neighbours are one.
/// </summary>
/// <remarks>
/// EncodeOptimized of sentencepiece's unigram_model.cc, which sums in single precision, and of Hugging Face's
/// unigram/model.rs, which sums in double.
/// </remarks>
internal sealed class UnigramEngine : WordEngine
{
    private const double UnknownPenalty = 10;
    private readonly Dictionary<long, int> _children = [];
    private readonly List<(int Id, double Score)> _nodes = [(-1, 0)];
    private readonly double _unknownScore;
    private readonly ByteTokens? _bytes;
    private readonly int? _unknown;
    private readonly bool _single;

    /// <param name="pieces">Texts, scores and ids.</param>
    /// <param name="lowest">The lowest score of a piece.</param>
    /// <param name="bytes">Tokens for the bytes of unknown text; null: it is <paramref name="unknown"/>.</param>
    /// <param name="unknown">The unknown token; null: unknown text is refused.</param>
    /// <param name="single">Whether sums are rounded to single precision.</param>
    /// <param name="stages">Cut the text into words.</param>
    public UnigramEngine(IEnumerable<(string Text, double Score, int Id)> pieces, double lowest, ByteTokens? bytes, int? unknown, bool single, params SplitStage[] stages)
        : base(stages)
    {
        foreach (var (text, score, id) in pieces)
        {
            if (text.Length == 0) continue;
            var node = 0;
            foreach (var c in text)
            {
                var key = (long)node << 16 | c;
                if (!_children.TryGetValue(key, out var child))
                {
                    _children[key] = child = _nodes.Count;
                    _nodes.Add((-1, 0));
                }

                node = child;
            }

            _nodes[node] = (id, score);
        }

        _unknownScore = Round(lowest - UnknownPenalty, single);
        (_bytes, _unknown, _single) = (bytes, unknown, single);
    }

    /// <inheritdoc/>
    private protected override int[] Merge(ReadOnlySpan<char> word, List<int>? lengths)
    {
        var n = word.Length;
        var best = new (double Score, int From, int Id)[n + 1];
        for (var i = 1; i <= n; i++) best[i].From = -1;
        for (var at = 0; at < n;)
        {
            Rune.DecodeFromUtf16(word[at..], out _, out var one);
            var here = best[at].Score;
            var single = false; // whether a piece is this one code point
            var node = 0;
            for (var end = at; end < n && _children.TryGetValue((long)node << 16 | word[end], out node);)
            {
                var (id, score) = _nodes[node];
                end++;
                if (id < 0) continue;
                Offer(end, score + here, at, id);
                single |= end == at + one;
            }

            if (!single) Offer(at + one, Round(_unknownScore + here, _single), at, -1);
            at += one;
        }

        return Path(word, best, lengths);

        void Offer(int end, double score, int from, int id)
        {
            if (best[end].From < 0 || score > best[end].Score) best[end] = (Round(score, _single), from, id);
        }
    }

    private static double Round(double score, bool single) => single ? (float)score : score;

    private int[] Path(ReadOnlySpan<char> word, (double Score, int From, int Id)[] best, List<int>? lengths)
    {
        var path = new List<(int From, int End, int Id)>();
        for (var end = word.Length; end > 0; end = best[end].From) path.Add((best[end].From, end, best[end].Id));
        path.Reverse();
        var ids = new List<int>(path.Count);
        for (var i = 0; i < path.Count; i++)
        {
            var (from, end, id) = path[i];
            while (id < 0 && i + 1 < path.Count && path[i + 1].Id < 0) end = path[++i].End;
            if (id < 0 && AddBytes(word[from..end], ids, lengths)) continue;
            if (id < 0 && _unknown is null) throw new InvalidInputException($"the vocabulary has no token for {Files.Say.Quote(word[from..end].ToString())}, which the text contains");
            ids.Add(id < 0 ? _unknown!.Value : id);
            lengths?.Add(Encoding.UTF8.GetByteCount(word[from..end]));
        }

        return [.. ids];
    }

    /// <summary>The bytes of unknown text, if there is a token for each of them.</summary>
    private bool AddBytes(ReadOnlySpan<char> text, List<int> ids, List<int>? lengths)
    {
        if (_bytes is null) return false;
        var (count, counted) = (ids.Count, lengths?.Count ?? 0);
        foreach (var rune in text.EnumerateRunes())
        {
            if (_bytes.Add(rune, ids, lengths)) continue;
            ids.RemoveRange(count, ids.Count - count);
            lengths?.RemoveRange(counted, lengths.Count - counted);
            return false;
        }

        return true;
    }
}
