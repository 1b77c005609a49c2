using CsCheck;
using IlgpuSae.Files;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Files;

/// <summary>Good archives damaged in every way: each is still readable or refused by an InvalidFileException, at the cost of its own size.</summary>
public sealed class ArchiveFuzzTests : IDisposable
{
    private readonly TempFolder _temp = new();

    public static TheoryData<string> Kinds => ["zip", "legacy", "plain", "npz", "deflated npz", "yaml"];

    public void Dispose() => _temp.Dispose();

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Damaged_files_are_read_or_refused(string kind)
    {
        var state = new Dictionary<string, object?>
        {
            ["encoder.weight"] = new TorchTensor(new float[12], [4, 3]),
            ["k"] = new TorchTensor(new[] { 3 }, []),
            ["cfg"] = new TorchObject("sae_lens.config", "Cfg", new() { ["k"] = 3, ["lr"] = 0.5 }),
        };
        var arrays = new Dictionary<string, byte[]> { ["w"] = NumpyFiles.Npy(new TorchTensor(new float[12], [4, 3]), fortran: true), ["b"] = NumpyFiles.Npy(new TorchTensor(new long[2], [2])) };
        var good = kind switch
        {
            "zip" => PyTorchFiles.Zip(state),
            "legacy" => PyTorchFiles.Legacy(state),
            "plain" => PyTorchFiles.Plain(state),
            "npz" => NumpyFiles.Npz(arrays),
            "deflated npz" => NumpyFiles.Npz(arrays, System.IO.Compression.CompressionLevel.Optimal),
            _ => "d_model:\n  value: 3\nlist: [1, 2, \"x\"]\nname: abc\n"u8.ToArray(),
        };
        var position = Gen.Int[0, good.Length - 1];
        var flip = Gen.Select(position, Gen.Byte, (at, value) => Damage(good, at, value));
        var opcode = Gen.Select(position, Gen.Char["(.0N}]tRubcQXKJMsaeh\u0080\u0081\u0085\u008a"], (at, c) => Damage(good, at, (byte)c));
        var cut = position.Select(n => good[..n]);
        var splice = Gen.Select(position, position, (a, b) => good[..a].Concat(good[b..]).ToArray());
        var grow = Gen.Select(position, Gen.Byte.Array[1, 9], (a, extra) => good[..a].Concat(extra).Concat(good[a..]).ToArray());
        int read = 0, refused = 0;
        var before = GC.GetAllocatedBytesForCurrentThread();
        Gen.OneOf(flip, opcode, cut, splice, grow).Sample(bytes =>
        {
            var path = _temp.Write("bad", bytes);
            try
            {
                Read(kind, path);
                read++;
            }
            catch (InvalidFileException e)
            {
                Assert.DoesNotContain('\n', e.Message);
                refused++;
            }
        }, seed: "0000KvVvyQR3", iter: 800, threads: 1);
        Assert.True(read > 5 && refused > 100, $"{read} read, {refused} refused: the damage is not what was meant");
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 800L * 400_000);
    }

    private static void Read(string kind, string path)
    {
        switch (kind)
        {
            case "npz" or "deflated npz":
                using (var npz = NpzFile.Open(path))
                {
                    foreach (var a in npz.Arrays)
                    {
                        if (a.Type is SafetensorsType.F32 or SafetensorsType.F16 or SafetensorsType.BF16 or SafetensorsType.F64) npz.ReadFloat32(a.Name);
                        else npz.ReadInt64(a.Name);
                    }
                }

                break;
            case "yaml":
                YamlConfig.Read(path);
                break;
            default:
                using (var file = PyTorchFile.Open(path))
                {
                    foreach (var t in file.Tensors)
                    {
                        if (t.Type is SafetensorsType.F32 or SafetensorsType.F16 or SafetensorsType.BF16 or SafetensorsType.F64) file.ReadFloat32(t.Name);
                        else file.ReadInt64(t.Name);
                    }
                }

                break;
        }
    }

    private static byte[] Damage(byte[] good, int at, byte value)
    {
        var bytes = (byte[])good.Clone();
        bytes[at] = value;
        return bytes;
    }
}
