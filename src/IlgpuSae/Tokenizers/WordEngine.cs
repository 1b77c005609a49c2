using System.Collections.Concurrent;

namespace IlgpuSae.Tokenizers;

/// <summary>One stage of cutting text into words.</summary>
/// <param name="Splitter">Cuts.</param>
/// <param name="Change">Changes what it is given before that; null: nothing.</param>
internal readonly record struct SplitStage(Splitter Splitter, TextChange? Change = null);

/// <summary>
/// An engine that works word by word: stages cut the text, each what the one before left, as if it stood alone; words
/// seen before are looked up instead of worked out again. Text repeats its words, so this decides the speed. Safe for
/// several threads; results do not depend on what is in the cache.
/// </summary>
internal abstract class WordEngine : ITokenEngine
{
    private readonly ConcurrentBag<WordCache> _caches = [];
    private readonly SplitStage[] _stages;

    /// <param name="stages">At least one.</param>
    private protected WordEngine(params SplitStage[] stages) => _stages = stages;

    /// <inheritdoc/>
    public void Encode(string text, bool first, ReadOnlySpan<Origin> origin, TokenSink sink)
    {
        // Each thread has a cache of its own: a shared one is what keeps threads waiting for each other.
        if (!_caches.TryTake(out var cache)) cache = new WordCache();
        Enter(0, text, first, origin, cache, sink);
        _caches.Add(cache);
    }

    /// <summary>The ids of one word.</summary>
    /// <param name="word">Not empty.</param>
    /// <param name="lengths">Receives how many bytes of the word's UTF-8 each id stands for; null: not wanted.</param>
    private protected abstract int[] Merge(ReadOnlySpan<char> word, List<int>? lengths);

    private void Enter(int stage, string text, bool first, ReadOnlySpan<Origin> origin, WordCache cache, TokenSink sink)
    {
        if (_stages[stage].Change is not { } change) Cut(stage, text, first, origin, cache, sink);
        else if (sink.Spans is null) Cut(stage, change.Apply(text, first), first, [], cache, sink);
        else
        {
            var (changed, from) = change.Trace(text, first, origin);
            Cut(stage, changed, first, from, cache, sink);
        }
    }

    private void Cut(int stage, ReadOnlySpan<char> text, bool first, ReadOnlySpan<Origin> origin, WordCache cache, TokenSink sink)
    {
        var splitter = _stages[stage].Splitter;
        var next = stage + 1;
        var cuts = splitter.Cut(text);
        for (int at = 0, i = 0; at < text.Length; i++)
        {
            var (end, keep) = cuts is null ? (splitter.Next(text, at), true) : cuts[i];
            var piece = text[at..end];
            var from = origin.IsEmpty ? origin : origin[at..end];
            if (!keep) { }
            else if (next == _stages.Length) Word(piece, from, cache, sink);
            else if (_stages[next].Change is null) Cut(next, piece, first && at == 0, from, cache, sink);
            else Enter(next, piece.ToString(), first && at == 0, from, cache, sink);
            at = end;
        }
    }

    private void Word(ReadOnlySpan<char> word, ReadOnlySpan<Origin> origin, WordCache cache, TokenSink sink)
    {
        if (sink.Spans is not null)
        {
            var lengths = new List<int>();
            sink.Add(Merge(word, lengths), lengths, word, origin);
        }
        else if (!WordCache.Takes(word))
        {
            sink.Ids.AddRange(Merge(word, null));
        }
        else if (cache.TryGet(word, out var hash, out var known))
        {
            sink.Ids.AddRange(known);
        }
        else
        {
            var ids = Merge(word, null);
            cache.Add(word, hash, ids);
            sink.Ids.AddRange(ids);
        }
    }
}
