using System.Text;
using IlgpuSae.Files;
using Package = Microsoft.ML.Tokenizers;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// Byte-level byte-pair encoding (GPT-2, GPT-NeoX, Llama 3, Qwen2): our splitter cuts, Microsoft.ML.Tokenizers merges.
/// Special tokens never reach it.
/// </summary>
internal sealed class ByteLevelEngine : WordEngine
{
    private readonly Package.BpeTokenizer _merger;
    private readonly bool[] _missingBytes;
    private readonly bool _prefixSpace;
    private readonly Dictionary<string, int>? _wholeWords;

    /// <param name="path">The tokenizer's file, for messages.</param>
    /// <param name="vocabulary">The model's own tokens, spelled in <see cref="ByteLevel"/>'s characters.</param>
    /// <param name="merges">Pairs, the most urgent first.</param>
    /// <param name="inner">Cuts the text into pieces that no token crosses.</param>
    /// <param name="outer">Cuts before <paramref name="inner"/>, if anything does.</param>
    /// <param name="prefixSpace">Whether a space is put before text that does not begin with one.</param>
    /// <param name="ignoreMerges">Whether a piece that is a token as a whole is taken without merging (Llama 3).</param>
    /// <exception cref="InvalidFileException">A merge of tokens that do not exist.</exception>
    public ByteLevelEngine(
        string path,
        IReadOnlyDictionary<string, int> vocabulary,
        IReadOnlyList<(string Left, string Right)> merges,
        Splitter inner,
        Splitter? outer = null,
        bool prefixSpace = false,
        bool ignoreMerges = false)
        : base(inner, outer)
    {
        _prefixSpace = prefixSpace;
        _missingBytes = [.. Enumerable.Range(0, 256).Select(b => !vocabulary.ContainsKey(ByteLevel.Spell((byte)b).ToString()))];
        if (ignoreMerges) _wholeWords = new Dictionary<string, int>(vocabulary, StringComparer.Ordinal);
        Merges.Check(path, vocabulary, merges);
        try
        {
            _merger = Package.BpeTokenizer.Create(new Package.BpeOptions(vocabulary)
            {
                ByteLevel = true,
                Merges = merges.Select(m => $"{m.Left} {m.Right}"),
            });
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            // The package sees foreign data here and may throw anything.
            throw new InvalidFileException(path, $"cannot be used as a byte-pair model: {AtomicFile.OneLine(e.Message)}", e);
        }
    }

    /// <inheritdoc/>
    private protected override string Prepare(string text, bool first) => _prefixSpace && text[0] != ' ' ? ' ' + text : text;

    /// <inheritdoc/>
    private protected override int[] Merge(ReadOnlySpan<char> word)
    {
        if (_wholeWords is not null && _wholeWords.TryGetValue(ByteLevel.Spell(word), out var id)) return [id];
        // The package drops what it cannot spell.
        foreach (var b in Encoding.UTF8.GetBytes(word.ToArray()))
            if (_missingBytes[b]) throw new InvalidInputException($"the vocabulary has no token for the byte 0x{b:X2} (spelled {Say.Quote(ByteLevel.Spell(b).ToString())}), which the text contains");
        return [.. _merger.EncodeToIds(word, considerPreTokenization: false)];
    }
}

/// <summary>The merge list of a byte-pair tokenizer.</summary>
internal static class Merges
{
    /// <summary>Both halves and the result of every merge must be tokens.</summary>
    /// <exception cref="InvalidFileException">One is not.</exception>
    public static void Check(string path, IReadOnlyDictionary<string, int> vocabulary, IReadOnlyList<(string Left, string Right)> merges)
    {
        for (var i = 0; i < merges.Count; i++)
        {
            var (left, right) = merges[i];
            foreach (var part in (string[])[left, right, left + right])
                if (!vocabulary.ContainsKey(part)) throw new InvalidFileException(path, $"merge {i} of {Say.Quote(left)} and {Say.Quote(right)} needs the token {Say.Quote(part)}, which the vocabulary lacks");
        }
    }

    /// <summary>A pair listed twice counts where it is listed last, as in Hugging Face's tokenizers.</summary>
    public static List<(string Left, string Right)> WithoutRepeats(IReadOnlyList<(string Left, string Right)> merges)
    {
        var seen = new HashSet<(string, string)>();
        var kept = new List<(string Left, string Right)>(merges.Count);
        for (var i = merges.Count - 1; i >= 0; i--)
            if (seen.Add(merges[i])) kept.Add(merges[i]);
        kept.Reverse();
        return kept;
    }
}
