using System.Text;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// Text to token ids and back, exactly as the Hugging Face tokenizer of the same folder does it. Safe to use from
/// several threads.
/// </summary>
public abstract class Tokenizer
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

    /// <summary>Whether <see cref="Encode"/> begins with <see cref="BosToken"/> unless told otherwise (LLaMA: yes; GPT-2: no).</summary>
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
        var ids = new List<int>();
        if (addBos ?? AddsBos) ids.Add(BosToken ?? throw new InvalidInputException("the tokenizer has no BOS token; encode without one, or name one in tokenizer_config.json"));
        Append(WithoutLoneSurrogates(text), ids);
        if (addBos is null && _specials.AddEos && EosToken is { } eos) ids.Add(eos);
        return [.. ids];
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

    private protected abstract void Append(string text, List<int> ids);

    private protected abstract string Join(ReadOnlySpan<int> ids);

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
