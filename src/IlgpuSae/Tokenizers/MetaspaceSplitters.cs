namespace IlgpuSae.Tokenizers;

/// <summary>A piece begins at each ▁: Hugging Face's Metaspace.</summary>
internal sealed class MetaspaceSplitter : Splitter
{
    /// <inheritdoc/>
    public override int Next(ReadOnlySpan<char> text, int at)
    {
        var next = text[(at + 1)..].IndexOf('▁');
        return next < 0 ? text.Length : at + 1 + next;
    }
}

/// <summary>
/// A piece begins at each run of ▁. Not a rule of any tokenizer: where no token has a ▁ behind another character, no
/// merge can cross such a place, so that cutting there changes nothing but the time it takes.
/// </summary>
internal sealed class MetaspaceRunSplitter : Splitter
{
    /// <summary>Whether a token has no place where this splitter would cut.</summary>
    public static bool NeverCuts(string token) => token.AsSpan().TrimStart('▁').IndexOf('▁') < 0;

    /// <inheritdoc/>
    public override int Next(ReadOnlySpan<char> text, int at)
    {
        while (at < text.Length && text[at] == '▁') at++;
        var next = text[at..].IndexOf('▁');
        return next < 0 ? text.Length : at + next;
    }
}

/// <summary>The whole text is one piece.</summary>
internal sealed class NoSplitter : Splitter
{
    /// <inheritdoc/>
    public override int Next(ReadOnlySpan<char> text, int at) => text.Length;
}
