namespace IlgpuSae.Tokenizers;

/// <summary>
/// Byte-pair merging: of all neighbouring pairs that may merge, the one of the lowest rank does, of equals the
/// leftmost; again, until none may. By a heap: O(n log n) for n symbols.
/// </summary>
/// <remarks>
/// Ours because the package merges byte-level vocabularies only, and its SentencePiece model takes the rightmost of
/// equals, where Google's takes the leftmost ("llll" with a piece "ll").
/// </remarks>
internal sealed class PairMerger
{
    private readonly Dictionary<(int Left, int Right), (int Rank, int Id)> _merges = [];

    /// <summary>Lets a pair merge; of two ranks for one pair the later call's counts.</summary>
    public void Add(int left, int right, int rank, int result) => _merges[(left, right)] = (rank, result);

    /// <summary>Merges symbols until no pair may.</summary>
    public int[] Merge(List<int> symbols)
    {
        var n = symbols.Count;
        int[] id = [.. symbols], before = new int[n], after = new int[n];
        for (var i = 0; i < n; i++) (before[i], after[i]) = (i - 1, i + 1 < n ? i + 1 : -1);
        // Ordered by rank, then by place. An entry is stale when either half has changed since.
        var heap = new PriorityQueue<(int At, int Left, int Right), (int Rank, int At)>();
        void Offer(int i)
        {
            if (i >= 0 && after[i] >= 0 && _merges.TryGetValue((id[i], id[after[i]]), out var m)) heap.Enqueue((i, id[i], id[after[i]]), (m.Rank, i));
        }

        for (var i = 0; i < n; i++) Offer(i);
        while (heap.TryDequeue(out var pair, out _))
        {
            var (i, j) = (pair.At, after[pair.At]);
            if (id[i] != pair.Left || j < 0 || id[j] != pair.Right) continue;
            id[i] = _merges[(pair.Left, pair.Right)].Id;
            id[j] = -1;
            after[i] = after[j];
            if (after[j] >= 0) before[after[j]] = i;
            Offer(before[i]);
            Offer(i);
        }

        var merged = new List<int>(n);
        for (var i = n > 0 ? 0 : -1; i >= 0; i = after[i]) merged.Add(id[i]);
        return [.. merged];
    }
}
