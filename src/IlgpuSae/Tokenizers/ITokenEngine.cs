namespace IlgpuSae.Tokenizers;

/// <summary>The model proper of a tokenizer: text without added tokens to ids.</summary>
internal interface ITokenEngine
{
    /// <summary>Appends the ids of a text.</summary>
    /// <param name="text">Normalized; not empty, without lone surrogates.</param>
    /// <param name="first">Whether nothing of the input stood before it.</param>
    /// <param name="ids">Receives the ids.</param>
    /// <exception cref="InvalidInputException">The vocabulary cannot express the text.</exception>
    void Encode(string text, bool first, List<int> ids);
}

/// <summary>The way back: tokens to text.</summary>
internal interface ITokenDecoder
{
    /// <summary>The text of a sequence of tokens; unknown ids give nothing.</summary>
    string Decode(ReadOnlySpan<int> ids);
}
