namespace IlgpuSae.Tokenizers;

/// <summary>The model proper of a tokenizer: text without added tokens to ids.</summary>
internal interface ITokenEngine
{
    /// <summary>Appends the tokens of a text.</summary>
    /// <param name="text">Normalized; not empty, without lone surrogates.</param>
    /// <param name="first">Whether nothing of the input stood before it.</param>
    /// <param name="origin">Where each unit of the text came from; empty unless <paramref name="sink"/> wants places.</param>
    /// <param name="sink">Receives the tokens.</param>
    /// <exception cref="InvalidInputException">The vocabulary cannot express the text.</exception>
    void Encode(string text, bool first, ReadOnlySpan<Origin> origin, TokenSink sink);
}

/// <summary>The way back: tokens to text.</summary>
internal interface ITokenDecoder
{
    /// <summary>The text of a sequence of tokens; unknown ids give nothing.</summary>
    string Decode(ReadOnlySpan<int> ids);
}
