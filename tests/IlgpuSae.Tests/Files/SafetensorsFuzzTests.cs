using CsCheck;
using IlgpuSae.Files;
using Xunit;

namespace IlgpuSae.Tests.Files;

/// <summary>Good files damaged in every way: each is either still readable or refused by an InvalidFileException, at the cost of its own size.</summary>
public sealed class SafetensorsFuzzTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Damaged_files_are_read_or_refused()
    {
        new SafetensorsWriter { Metadata = { ["format"] = "pt" } }
            .Add("W_enc", [3, 4], new float[12]).Add("b", [4], new Half[4]).Add("ids", [2], [1L, 2]).Add("none", [0, 5], Array.Empty<double>())
            .Save(_folder["good"]);
        var good = File.ReadAllBytes(_folder["good"]);
        var headerEnd = 8 + good[8..].AsSpan().IndexOf((byte)'}');
        // Most damage goes into the header: that is where lies can be told.
        var position = Gen.OneOf(Gen.Int[0, 7], Gen.Int[8, headerEnd + 200], Gen.Int[0, good.Length - 1]);
        var flip = Gen.Select(position, Gen.Byte, (at, value) => Damage(good, b => b[Math.Min(at, b.Length - 1)] = value));
        var digit = Gen.Select(position, Gen.Char["0123456789-,[]{}\""], (at, c) => Damage(good, b => b[Math.Min(at, b.Length - 1)] = (byte)c));
        var cut = Gen.Int[0, good.Length - 1].Select(n => good[..n]);
        var splice = Gen.Select(Gen.Int[0, good.Length], Gen.Int[0, good.Length], (a, b) => good[..a].Concat(good[b..]).ToArray());
        var grow = Gen.Select(Gen.Int[0, good.Length], Gen.Byte.Array[1, 9], (a, extra) => good[..a].Concat(extra).Concat(good[a..]).ToArray());

        int read = 0, refused = 0;
        var before = GC.GetAllocatedBytesForCurrentThread();
        Gen.OneOf(flip, digit, cut, splice, grow).Sample(bytes =>
        {
            var path = _folder.Write("bad", bytes);
            try
            {
                using var file = SafetensorsFile.Open(path);
                foreach (var t in file.Tensors) file.ReadBytes(t.Name, new byte[t.Bytes]);
                read++;
            }
            catch (InvalidFileException e)
            {
                Assert.DoesNotContain('\n', e.Message);
                refused++;
            }
        }, seed: "0000KvVvyQR3", iter: 3000, threads: 1);
        Assert.True(read > 50 && refused > 500, $"{read} read, {refused} refused: the damage is not what was meant");
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 3000L * 200_000);
    }

    private static byte[] Damage(byte[] good, Action<byte[]> how)
    {
        var bytes = (byte[])good.Clone();
        how(bytes);
        return bytes;
    }
}
