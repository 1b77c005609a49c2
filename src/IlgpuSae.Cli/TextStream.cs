using IlgpuSae.Tokenizers;

namespace IlgpuSae.Cli;

/// <summary>Shows text while its tokens are made. A character whose bytes are not all there yet waits for the rest.</summary>
internal sealed class TextStream(Tokenizer tokenizer, TextWriter output)
{
    private int _shown;

    /// <summary>Writes what is new of the text of all tokens so far.</summary>
    public void Show(List<int> ids)
    {
        var text = tokenizer.Decode([.. ids], skipSpecial: true);
        var whole = text.Length;
        while (whole > _shown && text[whole - 1] == '\uFFFD') whole--;
        if (whole <= _shown) return;
        output.Write(text.AsSpan(_shown, whole - _shown));
        output.Flush();
        _shown = whole;
    }
}
