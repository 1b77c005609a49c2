using System.IO.Compression;
using System.Text;
using IlgpuSae.Files;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Files;

/// <summary>NumPy's archives: types, orders, packing; what is refused.</summary>
public sealed class NpzTests : IDisposable
{
    private static readonly float[] Six = [1.5f, -2, 0.25f, 4, 5, -6.125f];
    private readonly TempFolder _temp = new();

    public void Dispose() => _temp.Dispose();

    [Theory]
    [InlineData(CompressionLevel.NoCompression)]
    [InlineData(CompressionLevel.Optimal)]
    public void Arrays_are_read(CompressionLevel level)
    {
        var bf16 = Array.ConvertAll(Six, v => (ushort)(BitConverter.SingleToUInt32Bits(v) >> 16));
        var path = Write(level,
            ("f4", NumpyFiles.Npy(new TorchTensor(Six, [2, 3]))),
            ("f8", NumpyFiles.Npy(new TorchTensor(Array.ConvertAll(Six, v => (double)v), [6]))),
            ("f2", NumpyFiles.Npy(new TorchTensor(Array.ConvertAll(Six, v => (Half)v), [6]))),
            ("bf16", NumpyFiles.Npy(new TorchTensor(bf16, [6]))),
            ("fortran", NumpyFiles.Npy(new TorchTensor(Six, [2, 3]), fortran: true)),
            ("cube", NumpyFiles.Npy(new TorchTensor(Enumerable.Range(0, 24).ToArray(), [2, 3, 4]), fortran: true)),
            ("i8", NumpyFiles.Npy(new TorchTensor(new[] { 1L, -1L << 40 }, [2]))),
            ("scalar", NumpyFiles.Npy(new TorchTensor(new[] { 7f }, []))),
            ("none", NumpyFiles.Npy(new TorchTensor(Array.Empty<float>(), [0, 3]))),
            ("v2", NumpyFiles.Npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2L,), }", BitConverter.GetBytes(0x3f80000040000000), version: 2)));
        using var file = NpzFile.Open(path);
        foreach (var name in new[] { "f4", "f8", "f2", "bf16" }) Assert.Equal(Six, file.ReadFloat32(name));
        Assert.Equal([2L, 3], file["f4"].Shape);
        Assert.Equal([1.5f, 0.25f, 5, -2, 4, -6.125f], file.ReadFloat32("fortran"));
        var cube = file.ReadInt64("cube");
        for (var i = 0; i < 2; i++)
            for (var j = 0; j < 3; j++)
                for (var k = 0; k < 4; k++) Assert.Equal(i + (2 * j) + (6 * k), cube[(((i * 3) + j) * 4) + k]);
        Assert.Equal([1L, -1L << 40], file.ReadInt64("i8"));
        Assert.Equal([7f], file.ReadFloat32("scalar"));
        Assert.Empty(file.ReadFloat32("none"));
        Assert.Equal([2f, 1], file.ReadFloat32("v2"));
    }

    [Theory]
    [InlineData("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "holds pickled Python objects, which could run code; they are never read")]
    [InlineData("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "is of records")]
    [InlineData("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", "big-endian")]
    [InlineData("{'descr': '<U8', 'fortran_order': False, 'shape': (1,), }", "is of type \"<U8\"")]
    [InlineData("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000,), }", "takes 4000000128 bytes with its header, but its entry has 132")]
    [InlineData("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }", "impossible shape")]
    [InlineData("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "is no dictionary")]
    [InlineData("{'descr': '<f4', 'fortran_order': 0, 'shape': (1,), }", "neither True nor False")]
    [InlineData("{'descr': '<f4', 'shape': (1,), }", "fortran_order and shape are expected")]
    [InlineData("__import__('os').system('touch pwned')", "is no dictionary")]
    [InlineData("{'descr': '<f4', 'fortran_order': False, 'shape': ((((((((((1,),),),),),),),),),), }", "is no dictionary")]
    public void Headers_that_are_no_arrays_of_numbers_are_refused(string header, string problem)
    {
        var message = Refused(Write(CompressionLevel.NoCompression, ("w", NumpyFiles.Npy(header, new byte[4]))));
        Assert.Contains(problem, message, StringComparison.Ordinal);
        Assert.Contains("array \"w\"", message, StringComparison.Ordinal);
    }

    [Fact]
    public void Damage_is_found()
    {
        var path = Write(CompressionLevel.NoCompression, ("w", NumpyFiles.Npy(new TorchTensor(Six, [6]))));
        var bytes = File.ReadAllBytes(path);
        Assert.Contains("truncated", Refused(_temp.Write("cut.npz", bytes.AsSpan(0, bytes.Length - 40))), StringComparison.Ordinal);
        // One bit of one weight.
        var at = bytes.AsSpan().IndexOf(BitConverter.GetBytes(-6.125f));
        bytes[at] ^= 1;
        using var file = NpzFile.Open(_temp.Write("bit.npz", bytes));
        Assert.Contains("does not have the checksum", Assert.Throws<InvalidFileException>(() => file.ReadFloat32("w")).Message, StringComparison.Ordinal);
        Assert.Contains("has no array \"W\"; it has \"w\"", Assert.Throws<InvalidFileException>(() => file.ReadFloat32("W")).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_archive_of_something_else_is_refused()
    {
        var zip = new MemoryStream();
        using (var archive = new ZipArchive(zip, ZipArchiveMode.Create, leaveOpen: true)) PyTorchFiles.Entry(archive, "readme.txt", "x"u8.ToArray(), CompressionLevel.NoCompression);
        Assert.Contains("\"readme.txt\", which is no array", Refused(_temp.Write("x.npz", zip.ToArray())), StringComparison.Ordinal);
        Assert.Contains("no zip archive", Refused(_temp.Write("x.npz", "PK\u0003\u0004"u8)), StringComparison.Ordinal);
    }

    [Fact]
    public void Yaml_reads_like_JSON()
    {
        var config = YamlConfig.Parse("c.yaml", Encoding.UTF8.GetBytes("""
            # comment
            d_model:
              desc: null
              value: 2048
            lr: 1e-4
            model_name: Qwen/Qwen3-0.6B
            version: "6.0"
            on: True
            hooks: [a, 'b', 3]
            empty:
            """));
        Assert.Equal(2048, config.GetObject("d_model").GetInt("value"));
        Assert.Equal(1e-4, config.GetDouble("lr"));
        Assert.Equal("Qwen/Qwen3-0.6B", config.GetString("model_name"));
        Assert.Equal("6.0", config.GetString("version"));
        Assert.True(config.GetBool("on"));
        Assert.False(config.Has("empty"));
        Assert.Equal("c.yaml: \"model_name\" in line 6 is the string \"Qwen/Qwen3-0.6B\", expected an integer", Assert.Throws<InvalidFileException>(() => config.GetInt("model_name")).Message);
    }

    [Theory]
    [InlineData("a: &x [1]\nb: *x", "alias")]
    [InlineData("a: !!python/object/apply:os.system [ls]", "tag")]
    [InlineData("- 1", "no mapping")]
    [InlineData("a: [1", "is not valid YAML")]
    [InlineData("a: 1\n---\nb: 2", "more than one document")]
    [InlineData("? [1]\n: 2", "a key that is no text")]
    [InlineData("a: 1\na: 2", "c.yaml")]
    [InlineData("", "c.yaml")]
    public void Yaml_beyond_settings_is_refused(string yaml, string problem)
    {
        var message = Assert.Throws<InvalidFileException>(() => YamlConfig.Parse("c.yaml", Encoding.UTF8.GetBytes(yaml))).Message;
        Assert.Contains(problem, message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', message);
    }

    private string Write(CompressionLevel level, params (string Name, byte[] Array)[] arrays) =>
        _temp.Write("x.npz", NumpyFiles.Npz(arrays.Select(a => KeyValuePair.Create(a.Name, a.Array)), level));

    private static string Refused(string path)
    {
        var message = Assert.Throws<InvalidFileException>(() =>
        {
            using var file = NpzFile.Open(path);
        }).Message;
        Assert.DoesNotContain('\n', message);
        return message;
    }
}
