using IlgpuSae.Tokenizers;
using Xunit;

namespace IlgpuSae.Tests.Tokenizers;

/// <summary>Expected pieces follow from the patterns by hand; | stands between pieces.</summary>
public sealed class SplitterTests
{
    [Theory]
    [InlineData("Hello world's end", "Hello| world|'s| end")]
    [InlineData("  two  spaces ", " | two| | spaces| ")]
    [InlineData("we'll I'M they've", "we|'ll| I|'|M| they|'ve")]
    [InlineData("x12 345!?", "x|12| 345|!?")]
    [InlineData("a\n\n b\t", "a|\n\n| b|\t")]
    [InlineData("a \nb", "a| |\n|b")]
    [InlineData("''s", "''|s")]
    [InlineData("\u00A0x", "\u00A0|x")]
    [InlineData("e\u0301t", "e|\u0301|t")] // a combining mark is no letter
    [InlineData("𐐷's 𝟘2024 𝔸b", "𐐷|'s| 𝟘2024| 𝔸b")] // letters and digits beyond U+FFFF
    [InlineData("😀😀 ok", "😀😀| ok")]
    public void Gpt2(string text, string pieces) => Assert.Equal(pieces, Cut(new Gpt2Splitter(), text));

    [Theory]
    [InlineData("Hello world'S end", "Hello| world|'S| end")]
    [InlineData("a'ſ b", "a|'ſ| b")]
    [InlineData("x12345 678!?\n\ny", "x|123|45| |678|!?\n\n|y")]
    [InlineData("(word) \"q\"", "(word|)| \"|q|\"")]
    [InlineData("a \r\n \n  b", "a| \r\n \n| | b")]
    [InlineData("  ", "  ")]
    [InlineData("\tx\n", "\tx|\n")]
    [InlineData("'hello", "'hello")]
    [InlineData("𝟘2024𐐷", "𝟘20|24|𐐷")]
    [InlineData("  12", " | |12")]
    public void Llama3(string text, string pieces) => Assert.Equal(pieces, Cut(new Cl100kSplitter(3), text));

    [Fact]
    public void Qwen2_takes_digits_one_by_one() => Assert.Equal("x|1|2|3| y", Cut(new Cl100kSplitter(1), "x123 y"));

    [Fact]
    public void Digits_alone_or_in_runs()
    {
        Assert.Equal("a |1|2|½| b", Cut(new DigitSplitter(alone: true), "a 12½ b"));
        Assert.Equal("a |12½| b", Cut(new DigitSplitter(alone: false), "a 12½ b"));
    }

    [Fact]
    public void Words_begin_at_metaspaces()
    {
        Assert.Equal("a|▁b|▁|▁c|▁", Cut(new MetaspaceSplitter(), "a▁b▁▁c▁"));
        Assert.Equal("a|▁b|▁▁c|▁", Cut(new MetaspaceRunSplitter(), "a▁b▁▁c▁"));
    }

    private static string Cut(Splitter splitter, string text)
    {
        var pieces = new List<string>();
        for (var at = 0; at < text.Length;)
        {
            var end = splitter.Next(text, at);
            pieces.Add(text[at..end]);
            at = end;
        }

        return string.Join('|', pieces);
    }
}
