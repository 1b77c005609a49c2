using System.Text;
using CsCheck;
using IlgpuSae.Tokenizers;
using Xunit;
using Package = Microsoft.ML.Tokenizers;

namespace IlgpuSae.Tests.Tokenizers;

/// <summary>
/// Byte-level BPE against two encoders that share nothing with ours: the definition in a few slow lines, and
/// Microsoft.ML.Tokenizers; over vocabularies that the test trains itself.
/// </summary>
public sealed class OracleTests : IDisposable
{
    private const string Corpus = "the cat's hat, the bat's mat; that 12 rats at 1212 gnats: été déjà «straße» 日本語 日本 😀😀 \t\n\n    spaces  and\r\n  tabs";
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Ids_are_those_of_the_definition_and_of_the_package()
    {
        var merges = Train(Corpus, 120);
        var vocabulary = new Dictionary<string, int>();
        for (var b = 0; b < 256; b++) vocabulary[ByteLevel.Spell((byte)b).ToString()] = b;
        foreach (var (l, r) in merges) vocabulary.TryAdd(l + r, vocabulary.Count);
        _folder.Write("vocab.json", System.Text.Json.JsonSerializer.Serialize(vocabulary));
        _folder.Write("merges.txt", string.Join('\n', merges.Select(m => $"{m.Left} {m.Right}")));
        var ours = Tokenizer.Load(_folder.Path);
        var package = Package.BpeTokenizer.Create(new Package.BpeOptions(vocabulary) { ByteLevel = true, Merges = merges.Select(m => $"{m.Left} {m.Right}") });
        var rank = merges.Select((m, i) => (m, i)).ToDictionary(p => p.m, p => p.i);
        var text = Gen.OneOf(
            Gen.String[Gen.Char[Corpus.Where(c => !char.IsSurrogate(c)).ToArray().AsSpan().ToString()], 0, 60],
            Gen.Char["at '日\n"].Array[0, 200].Select(c => new string(c)),
            Gen.Select(Gen.Char["at 12"], Gen.Int[0, 300], (c, n) => new string(c, n)),
            Gen.String[0, 30]);
        text.Sample(t =>
        {
            var clean = Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(t));
            var words = Words(clean);
            var ids = ours.Encode(t);
            Assert.Equal(words.SelectMany(w => Naive(w, rank)).Select(p => vocabulary[p]), ids);
            Assert.Equal(words.SelectMany(w => package.EncodeToIds(w, considerPreTokenization: false)), ids);
        }, seed: "0000KvVvyQR3", iter: 1500, threads: 1);
    }

    [Fact]
    public void Words_of_any_length_are_merged_as_short_ones_are()
    {
        // The search through few symbols and the heap for many must agree; 24 symbols are the border.
        var merger = new PairMerger();
        for (var i = 0; i < 6; i++)
            for (var j = 0; j < 6; j++)
                if ((i * 7 + j * 3) % 4 != 0) merger.Add(i, j, (i * 5 + j * 11) % 9, (i + 2 * j) % 6);
        Gen.Int[0, 5].List[0, 24].Sample(symbols =>
        {
            var lengths = Enumerable.Repeat(1, symbols.Count).ToList();
            var few = merger.Merge([.. symbols], lengths);
            // The same symbols behind a barrier that nothing merges with, long enough for the heap.
            var barrier = Enumerable.Repeat(99, 25).ToList();
            var manyLengths = Enumerable.Repeat(1, symbols.Count + 25).ToList();
            var many = merger.Merge([.. barrier, .. symbols], manyLengths);
            Assert.Equal(few, many.Skip(25));
            Assert.Equal(lengths.Take(few.Length), manyLengths.Skip(25));
            Assert.Equal(symbols.Count, lengths.Take(few.Length).Sum());
        }, seed: "0000KvVvyQR3", iter: 2000, threads: 1);
    }

    private static List<string> Words(string text)
    {
        var splitter = new Gpt2Splitter();
        var words = new List<string>();
        for (var at = 0; at < text.Length;)
        {
            var end = splitter.Next(text, at);
            words.Add(text[at..end]);
            at = end;
        }

        return words;
    }

    /// <summary>The definition: while a pair may merge, all of the most urgent pair do, from the left.</summary>
    private static List<string> Naive(string word, Dictionary<(string, string), int> rank)
    {
        var parts = ByteLevel.Spell(word).Select(c => c.ToString()).ToList();
        while (true)
        {
            var best = Enumerable.Range(0, Math.Max(0, parts.Count - 1)).Select(i => (parts[i], parts[i + 1])).Where(rank.ContainsKey).OrderBy(p => rank[p]).FirstOrDefault();
            if (best.Item1 is null) return parts;
            for (var i = 0; i + 1 < parts.Count; i++)
            {
                if ((parts[i], parts[i + 1]) != best) continue;
                parts[i] += parts[i + 1];
                parts.RemoveAt(i + 1);
            }
        }
    }

    /// <summary>Byte-pair training in its plainest form: the most frequent pair becomes a token, of equals the least.</summary>
    private static List<(string Left, string Right)> Train(string corpus, int count)
    {
        var words = Words(corpus).Select(w => ByteLevel.Spell(w).Select(c => c.ToString()).ToList()).ToList();
        var merges = new List<(string Left, string Right)>();
        while (merges.Count < count)
        {
            var pairs = words.SelectMany(w => w.Zip(w.Skip(1))).GroupBy(p => p).OrderByDescending(g => g.Count()).ThenBy(g => g.Key.First + g.Key.Second, StringComparer.Ordinal).FirstOrDefault();
            if (pairs is null) return merges;
            merges.Add(pairs.Key);
            foreach (var w in words)
                for (var i = 0; i + 1 < w.Count; i++)
                    if ((w[i], w[i + 1]) == pairs.Key)
                    {
                        w[i] += w[i + 1];
                        w.RemoveAt(i + 1);
                    }
        }

        return merges;
    }
}
