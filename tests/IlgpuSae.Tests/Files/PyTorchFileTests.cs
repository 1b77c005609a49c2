using System.IO.Compression;
using System.Text.Json.Nodes;
using IlgpuSae.Files;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Files;

/// <summary>PyTorch's files: what is read, in every container and type; what is refused, and that nothing runs.</summary>
public sealed class PyTorchFileTests : IDisposable
{
    private static readonly float[] Six = [1.5f, -2, 0.25f, 4, 5, -6.125f];
    private readonly TempFolder _temp = new();

    public void Dispose() => _temp.Dispose();

    /// <summary>The same value pickled by CPython 3.11 in protocols 0 to 5.</summary>
    [Theory]
    [InlineData("Y2NvbGxlY3Rpb25zCk9yZGVyZWREaWN0CnAwCih0UnAxClZjZmcKcDIKKGRwMwpWawpwNApJMzIKc1ZscgpwNQpGMC4wMDAyNQpzVm5hbWUKcDYKVvxu7wpwNwpzVm5vbmUKcDgKTnNWZmxhZwpwOQpJMDEKc1ZvZmYKcDEwCkkwMApzVm5lZwpwMTEKSS03CnNWYmlnCnAxMgpMMTA5OTUxMTYyNzc3NkwKc1ZsaXN0CnAxMwoobHAxNApJMQphSTIKYShscDE1CkkzCmFhc1ZwYWlyCnAxNgooSTEKVmIKcDE3CnRwMTgKc1Z0aHJlZQpwMTkKKEkxCkkyCkkzCnRwMjAKc1Zmb3VyCnAyMQooSTEKSTIKSTMKSTQKdHAyMgpzVnNoYXJlZApwMjMKKGxwMjQKVngKcDI1CmFzc1ZhZ2FpbgpwMjYKZzI0CnMu")]
    [InlineData("Y2NvbGxlY3Rpb25zCk9yZGVyZWREaWN0CnEAKVJxAShYAwAAAGNmZ3ECfXEDKFgBAAAAa3EESyBYAgAAAGxycQVHPzBiTdLxqfxYBAAAAG5hbWVxBlgFAAAAw7xuw69xB1gEAAAAbm9uZXEITlgEAAAAZmxhZ3EJSTAxClgDAAAAb2ZmcQpJMDAKWAMAAABuZWdxC0r5////WAMAAABiaWdxDEwxMDk5NTExNjI3Nzc2TApYBAAAAGxpc3RxDV1xDihLAUsCXXEPSwNhZVgEAAAAcGFpcnEQKEsBWAEAAABicRF0cRJYBQAAAHRocmVlcRMoSwFLAksDdHEUWAQAAABmb3VycRUoSwFLAksDSwR0cRZYBgAAAHNoYXJlZHEXXXEYWAEAAAB4cRlhdVgFAAAAYWdhaW5xGmgYdS4=")]
    [InlineData("gAJjY29sbGVjdGlvbnMKT3JkZXJlZERpY3QKcQApUnEBKFgDAAAAY2ZncQJ9cQMoWAEAAABrcQRLIFgCAAAAbHJxBUc/MGJN0vGp/FgEAAAAbmFtZXEGWAUAAADDvG7Dr3EHWAQAAABub25lcQhOWAQAAABmbGFncQmIWAMAAABvZmZxColYAwAAAG5lZ3ELSvn///9YAwAAAGJpZ3EMigYAAAAAAAFYBAAAAGxpc3RxDV1xDihLAUsCXXEPSwNhZVgEAAAAcGFpcnEQSwFYAQAAAGJxEYZxElgFAAAAdGhyZWVxE0sBSwJLA4dxFFgEAAAAZm91cnEVKEsBSwJLA0sEdHEWWAYAAABzaGFyZWRxF11xGFgBAAAAeHEZYXVYBQAAAGFnYWlucRpoGHUu")]
    [InlineData("gANjY29sbGVjdGlvbnMKT3JkZXJlZERpY3QKcQApUnEBKFgDAAAAY2ZncQJ9cQMoWAEAAABrcQRLIFgCAAAAbHJxBUc/MGJN0vGp/FgEAAAAbmFtZXEGWAUAAADDvG7Dr3EHWAQAAABub25lcQhOWAQAAABmbGFncQmIWAMAAABvZmZxColYAwAAAG5lZ3ELSvn///9YAwAAAGJpZ3EMigYAAAAAAAFYBAAAAGxpc3RxDV1xDihLAUsCXXEPSwNhZVgEAAAAcGFpcnEQSwFYAQAAAGJxEYZxElgFAAAAdGhyZWVxE0sBSwJLA4dxFFgEAAAAZm91cnEVKEsBSwJLA0sEdHEWWAYAAABzaGFyZWRxF11xGFgBAAAAeHEZYXVYBQAAAGFnYWlucRpoGHUu")]
    [InlineData("gASV4AAAAAAAAACMC2NvbGxlY3Rpb25zlIwLT3JkZXJlZERpY3SUk5QpUpQojANjZmeUfZQojAFrlEsgjAJscpRHPzBiTdLxqfyMBG5hbWWUjAXDvG7Dr5SMBG5vbmWUTowEZmxhZ5SIjANvZmaUiYwDbmVnlEr5////jANiaWeUigYAAAAAAAGMBGxpc3SUXZQoSwFLAl2USwNhZYwEcGFpcpRLAYwBYpSGlIwFdGhyZWWUSwFLAksDh5SMBGZvdXKUKEsBSwJLA0sEdJSMBnNoYXJlZJRdlIwBeJRhdYwFYWdhaW6UaBp1Lg==")]
    [InlineData("gAWV4AAAAAAAAACMC2NvbGxlY3Rpb25zlIwLT3JkZXJlZERpY3SUk5QpUpQojANjZmeUfZQojAFrlEsgjAJscpRHPzBiTdLxqfyMBG5hbWWUjAXDvG7Dr5SMBG5vbmWUTowEZmxhZ5SIjANvZmaUiYwDbmVnlEr5////jANiaWeUigYAAAAAAAGMBGxpc3SUXZQoSwFLAl2USwNhZYwEcGFpcpRLAYwBYpSGlIwFdGhyZWWUSwFLAksDh5SMBGZvdXKUKEsBSwJLA0sEdJSMBnNoYXJlZJRdlIwBeJRhdYwFYWdhaW6UaBp1Lg==")]
    public void Values_are_CPythons(string base64)
    {
        using var file = PyTorchFile.Open(_temp.Write("v.pkl", Convert.FromBase64String(base64)));
        var expected = JsonNode.Parse("""{"cfg":{"k":32,"lr":0.00025,"name":"ünï","none":null,"flag":true,"off":false,"neg":-7,"big":1099511627776,"list":[1,2,[3]],"pair":[1,"b"],"three":[1,2,3],"four":[1,2,3,4],"shared":["x"]},"again":["x"]}""");
        Assert.Equal(expected!.ToJsonString(), file.Values.ToJsonString());
        Assert.Empty(file.Tensors);
    }

    [Theory]
    [InlineData("zip")]
    [InlineData("deflated")]
    [InlineData("legacy")]
    [InlineData("plain")]
    [InlineData("gzip")]
    public void Tensors_are_read_from_every_container(string container)
    {
        var bf16 = Array.ConvertAll(Six, v => (ushort)(BitConverter.SingleToUInt32Bits(v) >> 16));
        var shared = new float[] { 10, 11, 12, 13, 14, 15, 16 };
        var state = new Dictionary<string, object?>
        {
            ["w"] = new TorchTensor(Six, [2, 3]),
            ["transposed"] = new TorchTensor(Six, [3, 2], [1, 3]),
            ["d"] = new TorchTensor(Array.ConvertAll(Six, v => (double)v), [6]),
            ["h"] = new TorchTensor(Array.ConvertAll(Six, v => (Half)v), [1, 6]),
            ["b"] = new TorchTensor(bf16, [3, 1, 2]),
            ["k"] = new TorchTensor(new[] { 32 }, []),
            ["ids"] = new TorchTensor(new[] { 1L, -2, 1L << 40 }, [3]),
            ["none"] = new TorchTensor(Array.Empty<float>(), [0, 4]),
            ["part"] = new TorchTensor(shared, [2, 2], [3, 1], 1),
            ["other part"] = new TorchTensor(shared, [2], null, 5),
            ["activation"] = "TopK",
            ["nested"] = new Dictionary<string, object?> { ["w"] = new TorchTensor(new[] { 7f }, [1]), ["k"] = 3 },
        };
        var bytes = container switch
        {
            "zip" => PyTorchFiles.Zip(state),
            "deflated" => PyTorchFiles.Zip(state, CompressionLevel.Optimal),
            "legacy" => PyTorchFiles.Legacy(state),
            "plain" => PyTorchFiles.Plain(state),
            _ => Gzip(PyTorchFiles.Plain(state)),
        };
        using var file = PyTorchFile.Open(_temp.Write("x.pt", bytes));
        Assert.Equal(["w", "transposed", "d", "h", "b", "k", "ids", "none", "part", "other part", "nested.w"], file.Tensors.Select(t => t.Name));
        foreach (var name in new[] { "w", "d", "h", "b" }) Assert.Equal(Six, file.ReadFloat32(name));
        Assert.Equal([3L, 1, 2], file["b"].Shape);
        Assert.Equal(SafetensorsType.BF16, file["b"].Type);
        Assert.Equal([1.5f, 4, -2, 5, 0.25f, -6.125f], file.ReadFloat32("transposed"));
        Assert.Equal([32], file.ReadInt64("k"));
        Assert.Equal([1, -2, 1L << 40], file.ReadInt64("ids"));
        Assert.Empty(file.ReadFloat32("none"));
        Assert.Equal([11f, 12, 14, 15], file.ReadFloat32("part"));
        Assert.Equal([15f, 16], file.ReadFloat32("other part"));
        Assert.Equal([7f], file.ReadFloat32("nested.w"));
        Assert.Equal("""{"activation":"TopK","nested":{"k":3}}""", file.Values.ToJsonString());
    }

    [Fact]
    public void Untyped_storages_parameters_and_numpy_numbers_are_read()
    {
        var storage = new TorchTensor(new byte[] { 0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0 }, [8]);
        var pickle = new PickleText().Op('}').Op('(')
            .Text("w").Global("torch._utils", "_rebuild_tensor_v3").Op('(')
            .Op('(').Text("storage").Global("torch.storage", "UntypedStorage").Text("0").Text("cpu").Int(8).Op('t').Op('Q')
            .Int(0).Ints(2).Ints(1).Raw(0x89).Op('N').Global("torch", "float32").Op('t').Op('R')
            .Text("p").Global("torch._utils", "_rebuild_parameter").Op('(')
            .Global("torch._utils", "_rebuild_tensor_v2").Op('(');
        PyTorchFiles.PersistentId(pickle, new TorchTensor(new float[1], [1]), "1");
        pickle.Int(0).Ints(1).Ints(1).Raw(0x89).Op('N').Op('t').Op('R').Raw(0x88).Op('N').Op('t').Op('R')
            .Text("n").Global("numpy.core.multiarray", "scalar").Op('(')
            .Global("numpy", "dtype").Op('(').Text("f8").Int(0).Int(1).Op('t').Op('R').Op('(').Int(3).Text("<").Op('N').Op('t').Op('b')
            .Global("_codecs", "encode").Op('(').Text("\0\0\0\0\0\0\u00f8?").Text("latin1").Op('t').Op('R').Op('t').Op('R')
            .Text("dtype").Global("torch", "bfloat16")
            .Text("device").Global("torch", "device").Op('(').Text("cuda").Int(0).Op('t').Op('R')
            .Op('u');
        using var file = PyTorchFile.Open(_temp.Write("x.pt", PyTorchFiles.ZipOf(pickle.End(), [storage, new TorchTensor(new[] { 3.5f }, [1])])));
        Assert.Equal([1f, -2], file.ReadFloat32("w"));
        Assert.Equal([3.5f], file.ReadFloat32("p"));
        Assert.Equal("""{"n":1.5,"dtype":"torch.bfloat16","device":"cuda:0"}""", file.Values.ToJsonString());
    }

    /// <summary>Pickles that CPython would run: os.system in protocols 0, 2 and 4, getattr, eval.</summary>
    [Theory]
    [InlineData("KGRwMApWdwpwMQpjcG9zaXgKc3lzdGVtCnAyCihWdG91Y2ggcHduZWQKcDMKdHA0ClJwNQpzLg==", "posix.system")]
    [InlineData("gAJ9cQBYAQAAAHdxAWNwb3NpeApzeXN0ZW0KcQJYCwAAAHRvdWNoIHB3bmVkcQOFcQRScQVzLg==", "posix.system")]
    [InlineData("gASVLQAAAAAAAAB9lIwBd5SMBXBvc2l4lIwGc3lzdGVtlJOUjAt0b3VjaCBwd25lZJSFlFKUcy4=", "posix.system")]
    [InlineData("gAJ9cQBYAQAAAHdxAWNfX2J1aWx0aW5fXwpnZXRhdHRyCnECWAEAAAB4cQNYBQAAAHVwcGVycQSGcQVScQZzLg==", "__builtin__.getattr")]
    [InlineData("gAJ9cQBYAQAAAHdxAWNfX2J1aWx0aW5fXwpldmFsCnECWAMAAAAxKzFxA4VxBFJxBXMu", "__builtin__.eval")]
    public void A_pickle_that_would_run_code_is_refused_by_name(string base64, string global)
    {
        var pickle = Convert.FromBase64String(base64);
        foreach (var path in new[] { _temp.Write("a.pkl", pickle), _temp.Write("b.pt", PyTorchFiles.ZipOf(pickle, [])), _temp.Write("c.pkl.gz", Gzip(pickle)) })
        {
            Assert.Equal($"{path}: its pickle asks for {global}, which weights have no need of and which could run code; nothing was executed", Refused(path));
        }

        Assert.False(File.Exists("pwned"));
    }

    [Theory]
    [InlineData("os", "system")]
    [InlineData("builtins", "exec")]
    [InlineData("builtins", "__import__")]
    [InlineData("subprocess", "Popen")]
    [InlineData("torch.hub", "load")]
    [InlineData("torch", "load")]
    [InlineData("torch", "set_default_dtype")]
    [InlineData("torch._utils", "_rebuild_sparse_tensor")]
    [InlineData("torch.nn.modules.linear", "Linear")]
    [InlineData("numpy", "load")]
    [InlineData("numpy.core.multiarray", "_reconstruct")]
    [InlineData("collections", "defaultdict")]
    [InlineData("operator", "attrgetter")]
    [InlineData("sae", "Model")]
    public void Nothing_beyond_the_list_is_looked_up(string module, string name)
    {
        var path = _temp.Write("x.pkl", new PickleText().Global(module, name).Op('.').Bytes);
        Assert.Contains($"asks for {module}.{name}, which", Refused(path), StringComparison.Ordinal);
    }

    [Fact]
    public void Names_on_the_list_cannot_be_bent_to_other_uses()
    {
        // A class of settings takes no arguments; a type cannot be called; a rebuilt object must be a tensor.
        Assert.Contains("calls sae_lens.config.Cfg with arguments", Refused(new PickleText().Global("sae_lens.config", "Cfg").Op('(').Text("x").Op('t').Op('R')), StringComparison.Ordinal);
        Assert.Contains("calls torch.Tensor, which is only a name here", Refused(new PickleText().Global("torch", "Tensor").Op(')').Op('R')), StringComparison.Ordinal);
        Assert.Contains("with something other than a tensor", Refused(new PickleText().Global("torch._tensor", "_rebuild_from_type_v2").Op('(')
            .Global("_codecs", "encode").Global("torch", "Tensor").Op('(').Text("x").Text("latin1").Op('t').Op('N').Op('t').Op('R')), StringComparison.Ordinal);
        Assert.Contains("calls something that is no class", Refused(new PickleText().Text("x").Op(')').Op('R')), StringComparison.Ordinal);
        Assert.Contains("uses the opcode INST", Refused(new PickleText().Op('(').Op('i')), StringComparison.Ordinal);
        Assert.Contains("uses the opcode EXT1", Refused(new PickleText().Raw(0x82, 1)), StringComparison.Ordinal);
        Assert.Contains("uses the opcode PERSID", Refused(new PickleText().Op('P')), StringComparison.Ordinal);
        Assert.Contains("which is no opcode", Refused(new PickleText().Raw(0xff)), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(new long[] { 7 }, new long[] { 1 }, 0)]
    [InlineData(new long[] { 6 }, new long[] { 1 }, 1)]
    [InlineData(new long[] { 2, 3 }, new long[] { 4, 1 }, 0)]
    [InlineData(new long[] { 3 }, new long[] { 1 }, long.MaxValue)]
    [InlineData(new long[] { 1L << 40, 1L << 40 }, new long[] { 0, 0 }, 0)]
    [InlineData(new long[] { long.MaxValue, long.MaxValue, long.MaxValue }, new long[] { 1, 1, 1 }, 0)]
    [InlineData(new long[] { 2 }, new[] { long.MaxValue }, 5)]
    [InlineData(new long[] { 2, 2 }, new long[] { 1 }, 0)]
    public void A_tensor_that_reaches_out_of_its_storage_is_refused(long[] shape, long[] strides, long offset)
    {
        var path = _temp.Write("x.pt", PyTorchFiles.Zip(new Dictionary<string, object?> { ["w"] = new TorchTensor(Six, shape, strides, offset) }));
        Assert.Contains("_rebuild_tensor_v2 with ", Refused(path), StringComparison.Ordinal);
    }

    [Fact]
    public void Absurd_sizes_cost_nothing()
    {
        var before = GC.GetAllocatedBytesForCurrentThread();
        Assert.Contains("claims a value of 2000000000 bytes", Refused(new PickleText().Op('X').Raw(BitConverter.GetBytes(2_000_000_000))), StringComparison.Ordinal);
        Assert.Contains("claims a value of", Refused(new PickleText().Raw(0x8d).Raw(BitConverter.GetBytes(long.MaxValue))), StringComparison.Ordinal);
        var far = new PickleText().Op('N').Op('r').Raw(BitConverter.GetBytes(uint.MaxValue));
        Assert.Contains("holds no dictionary of tensors", Refused(far), StringComparison.Ordinal);
        var deep = new PickleText();
        for (var i = 0; i < 100_000; i++) deep.Op('}').Text("a");
        for (var i = 0; i < 100_000; i++) deep.Op(i == 0 ? 'N' : 's');
        Assert.Contains("ends with more than one value", Refused(deep), StringComparison.Ordinal);
        var nested = new PickleText().Op('}');
        for (var i = 0; i < 1000; i++) nested.Text("a").Op('}');
        for (var i = 0; i < 1000; i++) nested.Op('s');
        Assert.Contains("nests its values deeper than", Refused(nested), StringComparison.Ordinal);
        // Twenty lists, each holding the one before ten times: 10^20 values when walked.
        var wide = new PickleText().Op('}').Text("a").Op('N').Op('q').Raw(0);
        for (byte i = 0; i < 12; i++)
        {
            wide.Op('0').Op(']').Op('(');
            for (var j = 0; j < 10; j++) wide.Op('h').Raw(i);
            wide.Op('e').Op('q').Raw((byte)(i + 1));
        }

        Assert.Contains("has more than 100000", Refused(wide.Op('s')), StringComparison.Ordinal);
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 200_000_000);
    }

    [Fact]
    public void A_storage_must_be_what_is_claimed_of_it()
    {
        var pickle = new PickleText().StateDict(new Dictionary<string, object?> { ["w"] = new TorchTensor(Six, [6]) });
        var short_ = PyTorchFiles.ZipOf(pickle.End(), [new TorchTensor(new float[5], [5])]);
        Assert.Contains("storage \"0\" has 20 bytes, but 24 are claimed of it", Refused(_temp.Write("x.pt", short_)), StringComparison.Ordinal);
        Assert.Contains("has no entry \"archive/data/0\"", Refused(_temp.Write("x.pt", PyTorchFiles.ZipOf(pickle.Bytes, []))), StringComparison.Ordinal);
        Assert.Contains("big-endian", Refused(_temp.Write("x.pt", PyTorchFiles.ZipOf(pickle.Bytes, pickle.Storages, byteorder: "big"))), StringComparison.Ordinal);
    }

    [Fact]
    public void A_zip_bomb_is_not_unpacked()
    {
        var zeros = new MemoryStream();
        using (var zip = new ZipArchive(zeros, ZipArchiveMode.Create, leaveOpen: true))
        {
            using var stream = zip.CreateEntry("archive/data.pkl", CompressionLevel.Fastest).Open();
            for (var i = 0; i < 300; i++) stream.Write(new byte[1 << 20]);
        }

        Assert.Contains("weights do not shrink so far", Refused(_temp.Write("x.pt", zeros.ToArray())), StringComparison.Ordinal);
    }

    [Fact]
    public void Truncated_and_foreign_files_are_named()
    {
        var good = PyTorchFiles.Zip(new Dictionary<string, object?> { ["w"] = new TorchTensor(Six, [6]) });
        Assert.Contains("truncated or damaged", Refused(_temp.Write("x.pt", good.AsSpan(0, good.Length - 30))), StringComparison.Ordinal);
        var early = PyTorchFiles.Legacy(new Dictionary<string, object?> { ["w"] = new TorchTensor(Six, [6]) });
        Assert.Contains("the file is truncated", Refused(_temp.Write("x.pt", early.AsSpan(0, early.Length - 3))), StringComparison.Ordinal);
        Assert.Contains("no file of PyTorch", Refused(_temp.Write("x.pt", "hello"u8)), StringComparison.Ordinal);
        Assert.Contains("no file of PyTorch", Refused(_temp.Write("x.pt", [])), StringComparison.Ordinal);
        Assert.Contains("no such file", Refused(_temp["none.pt"]), StringComparison.Ordinal);
        Assert.Contains("but none of PyTorch's", Refused(_temp.Write("x.pt", NumpyFiles.Npz([]))), StringComparison.Ordinal);
    }

    private string Refused(PickleText pickle) => Refused(_temp.Write("x.pkl", pickle.End()));

    private static string Refused(string path)
    {
        var message = Assert.Throws<InvalidFileException>(() =>
        {
            using var file = PyTorchFile.Open(path);
        }).Message;
        Assert.DoesNotContain('\n', message);
        Assert.StartsWith(path + ": ", message, StringComparison.Ordinal);
        return message;
    }

    private static byte[] Gzip(byte[] bytes)
    {
        var packed = new MemoryStream();
        using (var gzip = new GZipStream(packed, CompressionLevel.Optimal, leaveOpen: true)) gzip.Write(bytes);
        return packed.ToArray();
    }
}
