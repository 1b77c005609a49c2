using System.Collections.Concurrent;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// An engine that works word by word: a cutter says where words end, and words seen before are looked up instead of
/// merged again. Text repeats its words, so this decides the speed. Safe for several threads; results do not depend on
/// what is in the cache.
/// </summary>
internal abstract class WordEngine : ITokenEngine
{
    private const int LongestCached = 64;
    private const int MostCached = 1 << 17;
    private readonly ConcurrentDictionary<string, int[]> _seen = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, int[]>.AlternateLookup<ReadOnlySpan<char>> _lookup;
    private readonly Splitter _inner;
    private readonly Splitter? _outer;
    private int _count;

    /// <param name="inner">Cuts the text, or each piece of <paramref name="outer"/> as if it stood alone.</param>
    /// <param name="outer">Cuts first, where a tokenizer has two stages.</param>
    private protected WordEngine(Splitter inner, Splitter? outer = null)
    {
        _inner = inner;
        _outer = outer;
        _lookup = _seen.GetAlternateLookup<ReadOnlySpan<char>>();
    }

    /// <inheritdoc/>
    public void Encode(string text, bool first, List<int> ids)
    {
        ReadOnlySpan<char> rest = Prepare(text, first);
        while (rest.Length > 0)
        {
            var stretch = rest[..(_outer?.Next(rest, 0) ?? rest.Length)];
            rest = rest[stretch.Length..];
            for (var at = 0; at < stretch.Length;)
            {
                var end = _inner.Next(stretch, at);
                Word(stretch[at..end], ids);
                at = end;
            }
        }
    }

    /// <summary>The last changes of the text before it is cut.</summary>
    private protected abstract string Prepare(string text, bool first);

    /// <summary>The ids of one word.</summary>
    private protected abstract int[] Merge(ReadOnlySpan<char> word);

    private void Word(ReadOnlySpan<char> word, List<int> ids)
    {
        if (word.Length > LongestCached)
        {
            ids.AddRange(Merge(word));
            return;
        }

        if (!_lookup.TryGetValue(word, out var known))
        {
            known = Merge(word);
            if (Volatile.Read(ref _count) < MostCached && _lookup.TryAdd(word, known)) Interlocked.Increment(ref _count);
        }

        ids.AddRange(known);
    }
}
