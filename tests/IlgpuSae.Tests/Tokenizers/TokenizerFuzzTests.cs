using System.Text;
using CsCheck;
using IlgpuSae.Tokenizers;
using Xunit;

namespace IlgpuSae.Tests.Tokenizers;

/// <summary>Damaged tokenizer files are used or refused, never anything else; and every text survives the round trip.</summary>
public sealed class TokenizerFuzzTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Damaged_json_is_used_or_refused() => Damage("tokenizer.json", Encoding.UTF8.GetBytes(TinyPieces.Json().ToJsonString()));

    [Fact]
    public void Damaged_byte_level_json_is_used_or_refused() => Damage("tokenizer.json", Encoding.UTF8.GetBytes(TinyBpe.Json().ToJsonString()));

    [Fact]
    public void Damaged_models_are_used_or_refused() => Damage("tokenizer.model", TinyPieces.Model());

    [Fact]
    public void Every_text_survives_byte_level_encoding()
    {
        TinyBpe.WriteFolder(_folder);
        var t = Tokenizer.Load(_folder.Path);
        Gen.OneOf(Gen.String, Gen.String[Gen.Char["the a's12 \n\r\té\u0301𐐷中\u0085"], 0, 40]).Sample(text =>
        {
            var clean = Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text)); // lone surrogates become U+FFFD
            var ids = t.Encode(text);
            Assert.Equal(clean, t.Decode(ids));
            var stream = new StreamingDecoder(t, skipSpecial: false);
            Assert.Equal(clean, string.Concat(ids.Select(stream.Add)) + stream.End());
        }, seed: "0000KvVvyQR3", iter: 2000, threads: 1);
    }

    private void Damage(string name, byte[] good)
    {
        var flip = Gen.Select(Gen.Int[0, good.Length - 1], Gen.Byte, (at, value) => Changed(good, at, value));
        var digit = Gen.Select(Gen.Int[0, good.Length - 1], Gen.Char["0123456789-,:[]{}\"▁ "], (at, c) => Changed(good, at, (byte)c));
        var cut = Gen.Int[0, good.Length - 1].Select(n => good[..n]);
        var splice = Gen.Select(Gen.Int[0, good.Length], Gen.Int[0, good.Length], (a, b) => good[..a].Concat(good[b..]).ToArray());
        int used = 0, refused = 0;
        Gen.OneOf(flip, digit, cut, splice).Sample(bytes =>
        {
            _folder.Write(name, bytes);
            try
            {
                var t = Tokenizer.Load(_folder.Path);
                t.Decode(t.Encode("the ab é <s>"));
                used++;
            }
            catch (InvalidInputException e)
            {
                Assert.DoesNotContain('\n', e.Message);
                refused++;
            }
        }, seed: "0000KvVvyQR3", iter: 300, threads: 1);
        Assert.True(used > 5 && refused > 50, $"{used} used, {refused} refused: the damage is not what was meant");
    }

    private static byte[] Changed(byte[] good, int at, byte value)
    {
        var bytes = (byte[])good.Clone();
        bytes[at] = value;
        return bytes;
    }
}
