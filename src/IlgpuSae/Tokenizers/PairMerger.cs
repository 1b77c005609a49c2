using System.Runtime.InteropServices;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// Byte-pair merging: of all neighbouring pairs that may merge, the one of the lowest rank does, of equals the
/// leftmost; again, until none may. A few symbols are searched through each time; many go by a heap, in O(n log n).
/// </summary>
/// <remarks>
/// Microsoft.ML.Tokenizers 2.0.1 merges byte-level vocabularies in O(n²), which a text without spaces makes felt (120 kB
/// of one word: 2.4 s), so it gets words of usual length only; and its SentencePiece model takes the rightmost of
/// equals, where Google's takes the leftmost ("llll" with a piece "ll"). The tests compare with it.
/// </remarks>
internal sealed class PairMerger
{
    private const int Few = 24;
    private readonly Dictionary<long, (int Rank, int Id)> _merges = [];

    /// <summary>Lets a pair merge; of two ranks for one pair the later call's counts.</summary>
    public void Add(int left, int right, int rank, int result) => _merges[Key(left, right)] = (rank, result);

    /// <summary>Merges symbols until no pair may.</summary>
    /// <param name="symbols">Symbols; changed.</param>
    /// <param name="lengths">Their lengths, which add up in the result; null: not wanted.</param>
    public int[] Merge(List<int> symbols, List<int>? lengths = null) =>
        symbols.Count <= Few ? MergeFew(CollectionsMarshal.AsSpan(symbols), lengths) : MergeMany(symbols, lengths);

    private static long Key(int left, int right) => (long)left << 32 | (uint)right;

    private int[] MergeFew(Span<int> id, List<int>? lengths)
    {
        // The rank and result of each pair, kept so that each merge looks up two pairs only.
        Span<(int Rank, int Id)> pair = stackalloc (int, int)[Few];
        var n = id.Length;
        for (var i = 0; i + 1 < n; i++) pair[i] = Look(id, i);
        while (n > 1)
        {
            var best = 0;
            for (var i = 1; i + 1 < n; i++)
                if (pair[i].Rank < pair[best].Rank) best = i;
            if (pair[best].Rank == int.MaxValue) break;
            id[best] = pair[best].Id;
            id[(best + 2)..n].CopyTo(id[(best + 1)..]);
            pair[(best + 1)..(n - 1)].CopyTo(pair[best..]);
            if (lengths is not null)
            {
                lengths[best] += lengths[best + 1];
                lengths.RemoveAt(best + 1);
            }

            n--;
            if (best > 0) pair[best - 1] = Look(id, best - 1);
            if (best + 1 < n) pair[best] = Look(id, best);
        }

        return id[..n].ToArray();
    }

    private (int Rank, int Id) Look(Span<int> id, int i) =>
        _merges.TryGetValue(Key(id[i], id[i + 1]), out var merge) ? merge : (int.MaxValue, 0);

    private int[] MergeMany(List<int> symbols, List<int>? lengths)
    {
        var n = symbols.Count;
        int[] id = [.. symbols], before = new int[n], after = new int[n];
        for (var i = 0; i < n; i++) (before[i], after[i]) = (i - 1, i + 1 < n ? i + 1 : -1);
        // Ordered by rank, then by place. An entry is stale when either half has changed since.
        var heap = new PriorityQueue<(int At, int Left, int Right), long>();
        void Offer(int i)
        {
            if (i >= 0 && after[i] >= 0 && _merges.TryGetValue(Key(id[i], id[after[i]]), out var m)) heap.Enqueue((i, id[i], id[after[i]]), (long)m.Rank << 32 | (uint)i);
        }

        for (var i = 0; i < n; i++) Offer(i);
        while (heap.TryDequeue(out var pair, out _))
        {
            var (i, j) = (pair.At, after[pair.At]);
            if (id[i] != pair.Left || j < 0 || id[j] != pair.Right) continue;
            id[i] = _merges[Key(pair.Left, pair.Right)].Id;
            id[j] = -1;
            if (lengths is not null) lengths[i] += lengths[j];
            after[i] = after[j];
            if (after[j] >= 0) before[after[j]] = i;
            Offer(before[i]);
            Offer(i);
        }

        var merged = new List<int>(n);
        var kept = new List<int>();
        for (var i = n > 0 ? 0 : -1; i >= 0; i = after[i])
        {
            merged.Add(id[i]);
            if (lengths is not null) kept.Add(lengths[i]);
        }

        if (lengths is not null) CollectionsMarshal.SetCount(lengths, kept.Count);
        if (lengths is not null) kept.CopyTo(CollectionsMarshal.AsSpan(lengths));
        return [.. merged];
    }
}
