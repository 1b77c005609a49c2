using System.Buffers;
using System.Text;
using IlgpuSae.Files;
using Package = Microsoft.ML.Tokenizers;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// Byte-level byte-pair encoding (GPT-2, GPT-NeoX, Llama 3, Qwen2): Microsoft.ML.Tokenizers merges the bytes of words as
/// text has them, <see cref="PairMerger"/> those of any length. Special tokens never reach it.
/// </summary>
internal sealed class ByteLevelEngine : WordEngine
{
    /// <summary>The package's time grows with the square of a word's length: longer ones are ours.</summary>
    private const int LongestForPackage = 64;
    private readonly Package.BpeTokenizer _package;
    private readonly PairMerger _merger = new();
    private readonly int[] _bytesOf;
    private readonly int[] _tokenOf = new int[256];
    private readonly Dictionary<string, int>? _wholeWords;

    /// <param name="path">The tokenizer's file, for messages.</param>
    /// <param name="vocabulary">The model's own tokens, spelled in <see cref="ByteLevel"/>'s characters.</param>
    /// <param name="merges">Pairs, the most urgent first.</param>
    /// <param name="ignoreMerges">Whether a word that is a token as a whole is taken without merging (Llama 3).</param>
    /// <param name="stages">Cut the text into words that no token crosses.</param>
    /// <exception cref="InvalidFileException">A merge of tokens that do not exist.</exception>
    public ByteLevelEngine(
        string path,
        IReadOnlyDictionary<string, int> vocabulary,
        IReadOnlyList<(string Left, string Right)> merges,
        bool ignoreMerges,
        params SplitStage[] stages)
        : base(stages)
    {
        for (var b = 0; b < 256; b++) _tokenOf[b] = vocabulary.TryGetValue(ByteLevel.Spell((byte)b).ToString(), out var id) ? id : -1;
        if (ignoreMerges) _wholeWords = new Dictionary<string, int>(vocabulary, StringComparer.Ordinal);
        Merges.Check(path, vocabulary, merges);
        for (var rank = 0; rank < merges.Count; rank++)
        {
            var (left, right) = merges[rank];
            _merger.Add(vocabulary[left], vocabulary[right], rank, vocabulary[left + right]);
        }

        _bytesOf = new int[vocabulary.Count == 0 ? 0 : vocabulary.Values.Max() + 1];
        foreach (var (piece, id) in vocabulary) _bytesOf[id] = piece.Length; // a character a byte
        try
        {
            _package = Package.BpeTokenizer.Create(new Package.BpeOptions(vocabulary)
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
    private protected override int[] Merge(ReadOnlySpan<char> word, List<int>? lengths)
    {
        if (_wholeWords is not null && _wholeWords.TryGetValue(ByteLevel.Spell(word), out var id))
        {
            lengths?.Add(Encoding.UTF8.GetByteCount(word));
            return [id];
        }

        var bytes = ArrayPool<byte>.Shared.Rent(Encoding.UTF8.GetMaxByteCount(word.Length));
        var n = Encoding.UTF8.GetBytes(word, bytes);
        var symbols = new List<int>(n);
        for (var i = 0; i < n; i++)
        {
            var b = bytes[i];
            if (_tokenOf[b] < 0) throw new InvalidInputException($"the vocabulary has no token for the byte 0x{b:X2} (spelled {Say.Quote(ByteLevel.Spell(b).ToString())}), which the text contains");
            symbols.Add(_tokenOf[b]);
        }

        ArrayPool<byte>.Shared.Return(bytes);
        int[] ids = n <= LongestForPackage ? [.. _package.EncodeToIds(word, considerPreTokenization: false)] : _merger.Merge(symbols);
        if (lengths is not null)
            foreach (var token in ids) lengths.Add(_bytesOf[token]);
        return ids;
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
            foreach (var part in (ReadOnlySpan<string>)[left, right, left + right])
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
