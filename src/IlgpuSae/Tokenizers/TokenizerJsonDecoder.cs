using IlgpuSae.Files;

namespace IlgpuSae.Tokenizers;

/// <summary>The decoder of tokenizer.json.</summary>
internal static class TokenizerJsonDecoder
{
    /// <summary>Reads it.</summary>
    /// <param name="json">The file.</param>
    /// <param name="vocabulary">All tokens.</param>
    /// <param name="byteLevel">Whether the tokens are spelled in byte-level characters.</param>
    /// <exception cref="InvalidFileException">A decoder that is not known, or none where one is needed.</exception>
    public static ITokenDecoder Read(JsonConfig json, Vocabulary vocabulary, bool byteLevel)
    {
        var parts = TokenizerJsonParts.Flatten(json, "decoder", "decoders");
        var types = string.Join(", ", parts.Select(p => p.GetString("type")));
        if (byteLevel)
            return types == "ByteLevel" ? new ByteLevelDecoder(vocabulary) : throw json.Wrong("decoder", $"is {Say.Quote(types)}, expected ByteLevel to go with the ByteLevel pre-tokenizer");
        // Without a decoder Hugging Face joins tokens with spaces, which is the text of no tokenizer.
        if (parts.Count == 0) throw json.Wrong("decoder", "is missing; it is needed to turn tokens into text");
        var strips = types == "Replace, ByteFallback, Fuse, Strip";
        if ((strips || types == "Replace, ByteFallback, Fuse")
            && TokenizerJsonParts.ReplacePattern(parts[0]) == ("▁", " ")
            && (!strips || (parts[3].GetString("content"), parts[3].GetInt("start"), parts[3].GetInt("stop")) == (" ", 1, 0)))
            return new PieceDecoder(vocabulary, verbatim: null, stripLeadingSpace: strips, wholeRuns: true);
        return new DecoderChain(vocabulary, parts.ConvertAll(Step));
    }

    private static DecoderStep Step(JsonConfig part)
    {
        switch (part.GetString("type"))
        {
            case "ByteLevel": return Decoders.ByteLevel;
            case "ByteFallback": return Decoders.ByteFallback;
            case "Fuse": return Decoders.Fuse;
            case "Metaspace": return Decoders.Metaspace(TokenizerJsonParts.PrependScheme(part) != "never");
            case "WordPiece": return Decoders.WordPiece(part.GetStringOrNull("prefix") ?? "##", part.GetBool("cleanup", true));
            case "Replace":
                var (pattern, content) = TokenizerJsonParts.ReplacePattern(part);
                return Decoders.Replace(pattern, content);
            case "Strip":
                var strip = part.GetString("content");
                return strip.Length == 1 ? Decoders.Strip(strip[0], part.GetInt("start"), part.GetInt("stop")) : throw part.Wrong("content", "is not one character");
            default:
                throw part.Wrong("type", $"is the decoder {Say.Quote(part.GetString("type"))}; known are ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip, WordPiece and Sequence");
        }
    }
}
