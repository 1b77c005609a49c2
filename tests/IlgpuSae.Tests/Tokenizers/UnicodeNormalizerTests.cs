using IlgpuSae.Tokenizers;
using Xunit;

namespace IlgpuSae.Tests.Tokenizers;

/// <summary>Expected forms from the Unicode Standard Annex 15 and NormalizationTest.txt.</summary>
public sealed class UnicodeNormalizerTests
{
    [Theory]
    [InlineData("e\u0301", "\u00E9", "e\u0301", "\u00E9", "e\u0301")]
    [InlineData("\u212B", "\u00C5", "A\u030A", "\u00C5", "A\u030A")] // a singleton: never comes back
    [InlineData("\uFB01\u2460", "\uFB01\u2460", "\uFB01\u2460", "fi1", "fi1")]
    [InlineData("\u1E9B\u0323", "\u1E9B\u0323", "\u017F\u0323\u0307", "\u1E69", "s\u0323\u0307")] // marks change places
    [InlineData("\uD55C\uAE00", "\uD55C\uAE00", "\u1112\u1161\u11AB\u1100\u1173\u11AF", "\uD55C\uAE00", "\u1112\u1161\u11AB\u1100\u1173\u11AF")]
    [InlineData("\u0915\u093C", "\u0915\u093C", "\u0915\u093C", "\u0915\u093C", "\u0915\u093C")] // excluded from composition
    [InlineData("\u0958", "\u0915\u093C", "\u0915\u093C", "\u0915\u093C", "\u0915\u093C")]
    [InlineData("a\u0315\u0300\u05AE\u0300\u0062", "\u00E0\u05AE\u0300\u0315b", "a\u05AE\u0300\u0300\u0315b", "\u00E0\u05AE\u0300\u0315b", "a\u05AE\u0300\u0300\u0315b")]
    [InlineData("\U0001109B\U000110BA", "\U0001109C", "\U0001109B\U000110BA", "\U0001109C", "\U0001109B\U000110BA")] // beyond U+FFFF; 1109A = 11099 + 110BA, 1109C = 1109B + 110BA
    [InlineData("plain ASCII", "plain ASCII", "plain ASCII", "plain ASCII", "plain ASCII")]
    public void Forms(string text, string nfc, string nfd, string nfkc, string nfkd)
    {
        Assert.Equal(nfc, UnicodeNormalizer.Nfc(text));
        Assert.Equal(nfd, UnicodeNormalizer.Nfd(text));
        Assert.Equal(nfkc, UnicodeNormalizer.Nfkc(text));
        Assert.Equal(nfkd, UnicodeNormalizer.Nfkd(text));
    }
}
