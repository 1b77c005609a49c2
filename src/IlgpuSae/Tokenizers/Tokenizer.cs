using System.Text;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// Text to token ids and back, exactly as the Hugging Face tokenizer of the same folder does it. Safe to use from
/// several threads.
/// </summary>
public abstract partial class Tokenizer
{
    private readonly TokenizerSpecials _specials;

    private protected Tokenizer(TokenizerSpecials specials) => _specials = specials;

    /// <summary>One more than the largest id. A model's d_vocab may be larger: padding rows without tokens.</summary>
    public abstract int VocabularySize { get; }

    /// <summary>Id of the token that begins a text; null when the tokenizer has none.</summary>
    public int? BosToken => _specials.Bos;

    /// <summary>Id of the token that ends a text; null when the tokenizer has none.</summary>
    public int? EosToken => _specials.Eos;

    /// <summary>Id of the token that fills up short texts; null when the tokenizer has none.</summary>
    public int? PadToken => _specials.Pad;

    /// <summary>Id of the token for what the vocabulary cannot express; null when the tokenizer has none.</summary>
    public int? UnkToken => _specials.Unk;

    /// <summary>Id of the token between two texts; null when the tokenizer has none.</summary>
    public int? SepToken => _specials.Sep;

    /// <summary>Whether <see cref="Encode(string, bool?)"/> begins with <see cref="BosToken"/> unless told otherwise (LLaMA: yes; GPT-2: no).</summary>
    public bool AddsBos => _specials.AddBos;

    /// <summary>Chooses and reads a folder's tokenizer: tokenizer.json, or vocab.json and merges.txt, or tokenizer.model.</summary>
    /// <param name="folder">A Hugging Face model folder.</param>
    /// <exception cref="InvalidFileException">No tokenizer, a damaged one, or of a kind that is not known (the message names it).</exception>
    public static Tokenizer Load(string folder) => TokenizerLoader.Load(folder);

    /// <summary>Token ids of a text. Special tokens written in the text become their ids, as in Hugging Face's tokenizers.</summary>
    /// <param name="text">Any text; lone surrogates count as U+FFFD. The empty text has no tokens but BOS.</param>
    /// <param name="addBos">Whether <see cref="BosToken"/> comes first; null: as the tokenizer's files say.</param>
    /// <exception cref="InvalidInputException">BOS is wanted but the tokenizer has none, or the vocabulary cannot express the text.</exception>
    public int[] Encode(string text, bool? addBos = null)
    {
        ArgumentNullException.ThrowIfNull(text);
        var sink = new TokenSink();
        Fill(WithoutLoneSurrogates(text), addBos, sink);
        return [.. sink.Ids];
    }

    /// <summary>Token ids of UTF-8 text; bytes that are no valid UTF-8 count as U+FFFD, one for each longest part of a character, as Python decodes with errors="replace".</summary>
    /// <param name="utf8">The text; a byte-order mark is text like any other.</param>
    /// <param name="addBos">Whether <see cref="BosToken"/> comes first; null: as the tokenizer's files say.</param>
    /// <exception cref="InvalidInputException">BOS is wanted but the tokenizer has none, or the vocabulary cannot express the text.</exception>
    public int[] Encode(ReadOnlySpan<byte> utf8, bool? addBos = null) => Encode(Encoding.UTF8.GetString(utf8), addBos);

    /// <summary>The tokens of a text with the part of the text that each stands for. The ids are those of <see cref="Encode(string, bool?)"/>.</summary>
    /// <param name="text">Any text; lone surrogates count as U+FFFD.</param>
    /// <param name="addBos">Whether <see cref="BosToken"/> comes first; null: as the tokenizer's files say.</param>
    /// <exception cref="InvalidInputException">BOS is wanted but the tokenizer has none, or the vocabulary cannot express the text.</exception>
    public IReadOnlyList<TokenSpan> EncodeWithOffsets(string text, bool? addBos = null)
    {
        ArgumentNullException.ThrowIfNull(text);
        text = WithoutLoneSurrogates(text);
        var sink = new TokenSink(text);
        Fill(text, addBos, sink);
        return sink.Spans!;
    }

    /// <summary>Token ids of many texts, on all cores; the result does not depend on how many there are.</summary>
    /// <param name="texts">The texts.</param>
    /// <param name="addBos">Whether <see cref="BosToken"/> comes first; null: as the tokenizer's files say.</param>
    /// <param name="threads">Most threads; 0: one a core.</param>
    /// <returns>One array a text, in the texts' order.</returns>
    /// <exception cref="InvalidInputException">As for one text; of several faulty texts the first is reported.</exception>
    public int[][] EncodeAll(IReadOnlyList<string> texts, bool? addBos = null, int threads = 0)
    {
        ArgumentNullException.ThrowIfNull(texts);
        var result = new int[texts.Count][];
        var failures = new Exception?[texts.Count];
        Parallel.For(0, texts.Count, new ParallelOptions { MaxDegreeOfParallelism = threads > 0 ? threads : Environment.ProcessorCount }, i =>
        {
            try
            {
                result[i] = Encode(texts[i], addBos);
            }
            catch (InvalidInputException e)
            {
                failures[i] = e;
            }
        });
        if (Array.Find(failures, f => f is not null) is { } first) System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(first);
        return result;
    }

    /// <summary>The text of a sequence of tokens. Bytes that are no valid UTF-8 show as U+FFFD.</summary>
    /// <param name="ids">Token ids; those without a token (a model's padding rows) give nothing.</param>
    /// <param name="skipSpecial">Whether to leave out special tokens such as BOS.</param>
    /// <exception cref="InvalidInputException">A negative id.</exception>
    public string Decode(ReadOnlySpan<int> ids, bool skipSpecial = false)
    {
        foreach (var id in ids)
            if (id < 0) throw new InvalidInputException($"token {id} is out of range; the vocabulary has 0..{VocabularySize - 1}");
        if (!skipSpecial) return Join(ids);
        var kept = new List<int>(ids.Length);
        foreach (var id in ids)
            if (!IsSpecial(id)) kept.Add(id);
        return Join(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(kept));
    }

    /// <summary>The text of one token alone, as TransformerLens' to_str_tokens shows it: part of a character gives U+FFFD.</summary>
    /// <param name="id">The token.</param>
    /// <exception cref="InvalidInputException">A negative id.</exception>
    public string TokenString(int id) => Decode([id]);

    /// <summary>The vocabulary's own spelling of a token (<c>Ġthe</c>, <c>▁the</c>, <c>&lt;0x0A&gt;</c>); null for ids without a token.</summary>
    /// <param name="id">The token.</param>
    public abstract string? Piece(int id);

    /// <summary>The id of a vocabulary entry by its own spelling; null when there is none.</summary>
    /// <param name="piece">The spelling, as <see cref="Piece"/> gives it.</param>
    public abstract int? Id(string piece);

    /// <summary>Whether a token is special: BOS, EOS and the like, not text.</summary>
    /// <param name="id">The token.</param>
    public bool IsSpecial(int id) => _specials.All.Contains(id);

    private protected abstract void Append(string text, TokenSink sink);

    private protected abstract string Join(ReadOnlySpan<int> ids);

    private void Fill(string text, bool? addBos, TokenSink sink)
    {
        if (addBos ?? AddsBos) sink.Add(BosToken ?? throw new InvalidInputException("the tokenizer has no BOS token; encode without one, or name one in tokenizer_config.json"), 0, 0);
        Append(text, sink);
        if (addBos is null && _specials.AddEos && EosToken is { } eos) sink.Add(eos, text.Length, text.Length);
    }

    /// <summary>A lone surrogate is no character: every program that reads the text as UTF-8 sees U+FFFD in its place.</summary>
    private static string WithoutLoneSurrogates(string text)
    {
        var i = text.AsSpan().IndexOfAnyInRange('\uD800', '\uDFFF');
        if (i < 0) return text;
        var s = new StringBuilder(text.Length);
        foreach (var rune in text.EnumerateRunes()) s.Append(rune.ToString());
        return s.ToString();
    }
}
