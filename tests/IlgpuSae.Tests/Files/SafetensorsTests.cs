using System.Buffers.Binary;
using System.Text;
using IlgpuSae.Files;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Files;

public sealed class SafetensorsTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>A file of the given header and buffer, whatever they say.</summary>
    internal static byte[] Raw(string header, byte[] buffer, long? length = null)
    {
        var text = Encoding.UTF8.GetBytes(header);
        var bytes = new byte[8 + text.Length + buffer.Length];
        BinaryPrimitives.WriteInt64LittleEndian(bytes, length ?? text.Length);
        text.CopyTo(bytes, 8);
        buffer.CopyTo(bytes, 8 + text.Length);
        return bytes;
    }

    [Fact]
    public void Written_bytes_are_those_of_the_python_library()
    {
        // safetensors.numpy.save({"b": f32 [2,2], "a": f32 [1], "ids": i64 [2], "h": f16 [1]}, {"format": "pt"}), written out by hand
        // from the format's rules: wide types first (I64 before F32 before F16), then names, header padded to 8 bytes.
        var path = _folder["x.safetensors"];
        var w = new SafetensorsWriter { Metadata = { ["format"] = "pt" } };
        w.Add("h", [1], [(Half)0.5f]).Add("b", [2, 2], [1f, 2, 3, 4]).Add("ids", [2], [7L, -1]).Add("a", [1], [-2f]);
        w.Save(path);

        const string header = """{"__metadata__":{"format":"pt"},"ids":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[1],"data_offsets":[16,20]},"b":{"dtype":"F32","shape":[2,2],"data_offsets":[20,36]},"h":{"dtype":"F16","shape":[1],"data_offsets":[36,38]}}""";
        var padded = header.PadRight((header.Length + 7) / 8 * 8);
        byte[] buffer = [7, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0xC0, 0, 0, 0x80, 0x3F, 0, 0, 0, 0x40, 0, 0, 0x40, 0x40, 0, 0, 0x80, 0x40, 0, 0x38];
        Assert.Equal(Raw(padded, buffer), File.ReadAllBytes(path));
        Assert.Equal(["x.safetensors"], _folder.List());
    }

    [Fact]
    public void Every_type_comes_back_as_it_went()
    {
        var path = _folder["x.safetensors"];
        new SafetensorsWriter()
            .Add("f64", [2], [Math.PI, -0.0]).Add("f16", [2], [(Half)1.5f, Half.NegativeInfinity]).Add("f32", [], [float.Epsilon])
            .Add("i64", [2], [long.MinValue, long.MaxValue]).Add("i32", [1, 2], [int.MinValue, 5]).Add("i16", [1], [(short)-3]).Add("i8", [1], [(sbyte)-4])
            .Add("u64", [1], [5UL]).Add("u32", [1], [uint.MaxValue]).Add("u16", [1], [ushort.MaxValue]).Add("u8", [3], [(byte)1, (byte)2, (byte)255]).Add("bool", [2], [true, false])
            .Add("empty", [3, 0], Array.Empty<float>())
            .Add("bf16", SafetensorsType.BF16, [2], s => s.Write([0x80, 0x3F, 0xC0, 0xFF]))
            .Save(path);
        using var file = SafetensorsFile.Open(path);
        Assert.Equal([(float)Math.PI, -0f], file.ReadFloat32("f64"));
        Assert.Equal([1.5f, float.NegativeInfinity], file.ReadFloat32("f16"));
        Assert.Equal([float.Epsilon], file.ReadFloat32("f32"));
        Assert.Equal([1f, float.NaN], file.ReadFloat32("bf16"));
        Assert.Empty(file.ReadFloat32("empty"));
        Assert.Equal([long.MinValue, long.MaxValue], file.ReadInt64("i64"));
        Assert.Equal([int.MinValue, 5], file.ReadInt32("i32"));
        Assert.Equal([-3L], file.ReadInt64("i16"));
        Assert.Equal([-4L], file.ReadInt64("i8"));
        Assert.Equal([5L], file.ReadInt64("u64"));
        Assert.Equal([4294967295L], file.ReadInt64("u32"));
        Assert.Equal([65535L], file.ReadInt64("u16"));
        Assert.Equal([1L, 2, 255], file.ReadInt64("u8"));
        Assert.Equal([1L, 0], file.ReadInt64("bool"));
        Assert.Equal([3L, 0], file["empty"].Shape);
        Assert.Equal(SafetensorsType.BOOL, file["bool"].Type);
        var two = new byte[2];
        file.ReadBytes("u8", 1, two);
        Assert.Equal([2, 255], two);
        var part = new float[1];
        file.ReadFloat32("f16", part, firstElement: 1);
        Assert.Equal(float.NegativeInfinity, part[0]);
        Assert.Throws<ArgumentOutOfRangeException>(() => file.ReadFloat32("f16", part, firstElement: 2));
    }

    [Fact]
    public void Files_of_the_python_library_are_rewritten_byte_for_byte()
    {
        var files = Directory.GetFiles(Golden.FolderOf(), "*.safetensors", SearchOption.AllDirectories);
        Assert.NotEmpty(files);
        foreach (var path in files)
        {
            using var file = SafetensorsFile.Open(path);
            var w = new SafetensorsWriter();
            foreach (var (key, value) in file.Metadata) w.Metadata[key] = value;
            foreach (var t in file.Tensors.Reverse())
            {
                var bytes = new byte[t.Bytes];
                file.ReadBytes(t.Name, bytes);
                w.Add(t.Name, t.Type, t.Shape, s => s.Write(bytes));
            }

            w.Save(_folder["again"]);
            Assert.True(File.ReadAllBytes(path).AsSpan().SequenceEqual(File.ReadAllBytes(_folder["again"])), path);
        }
    }

    [Fact]
    public void BFloat16_widens_exactly_at_every_length()
    {
        // All 65,536 values and odd lengths: the vectorised part and its rest.
        var bits = Enumerable.Range(0, 65536 + 7).Select(i => (ushort)i).ToArray();
        new SafetensorsWriter().Add("x", SafetensorsType.BF16, [bits.Length], s => s.Write(System.Runtime.InteropServices.MemoryMarshal.AsBytes<ushort>(bits))).Save(_folder["x"]);
        using var file = SafetensorsFile.Open(_folder["x"]);
        Assert.Equal(bits.Select(b => (uint)b << 16), file.ReadFloat32("x").Select(BitConverter.SingleToUInt32Bits));
    }

    [Fact]
    public void Tensors_larger_than_one_chunk_are_converted_whole()
    {
        var values = Enumerable.Range(0, 300_001).Select(i => (Half)(i % 2048)).ToArray();
        new SafetensorsWriter().Add("h", [values.Length], values).Add("n", [70_000], Enumerable.Range(0, 70_000).ToArray()).Save(_folder["x"]);
        using var file = SafetensorsFile.Open(_folder["x"]);
        Assert.Equal(values.Select(v => (float)v), file.ReadFloat32("h"));
        Assert.Equal(Enumerable.Range(0, 70_000), file.ReadInt32("n"));
    }

    [Fact]
    public void Order_of_adding_does_not_change_the_bytes()
    {
        new SafetensorsWriter { Metadata = { ["b"] = "2", ["a"] = "1" } }.Add("y", [1], [1f]).Add("x", [1], [2f]).Save(_folder["1"]);
        new SafetensorsWriter { Metadata = { ["a"] = "1", ["b"] = "2" } }.Add("x", [1], [2f]).Add("y", [1], [1f]).Save(_folder["2"]);
        Assert.Equal(File.ReadAllBytes(_folder["1"]), File.ReadAllBytes(_folder["2"]));
    }

    [Fact]
    public void Names_and_metadata_may_hold_any_text()
    {
        const string name = "a\"b\\c\n\u0001é𝟘.weight";
        new SafetensorsWriter { Metadata = { [name] = "\t" } }.Add(name, [1], [1f]).Save(_folder["x"]);
        using var file = SafetensorsFile.Open(_folder["x"]);
        Assert.Equal([name], file.Names);
        Assert.Equal("\t", file.Metadata[name]);
    }

    public static TheoryData<string, int, string> Lies => new()
    {
        { """{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}""", 4, "tensor \"a\" spans bytes 0..8 of a 4-byte buffer; the file is truncated or its header lies" },
        { """{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}""", 8, "tensor \"a\": shape [3] of F32 takes 12 bytes, data_offsets 0..8 hold 8" },
        { """{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}""", 8, "tensor \"a\": data_offsets run backwards, 8..0" },
        { """{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}""", 12, "tensor \"b\" at bytes 4..12 overlaps tensor \"a\", which ends at 8" },
        { """{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}""", 12, "bytes 4..8 between tensor \"a\" and tensor \"b\" belong to no tensor" },
        { """{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}""", 8, "bytes 0..4 between the header and tensor \"a\" belong to no tensor" },
        { """{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}""", 9, "the tensors end at byte 4 of a 9-byte buffer; 5 trailing bytes belong to no tensor" },
        { """{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}""", 4, "tensor \"a\" has the unknown dtype \"F33\"" },
        { """{"a":{"dtype":"3","shape":[1],"data_offsets":[0,4]}}""", 4, "tensor \"a\" has the unknown dtype \"3\"" },
        { """{"a":{"dtype":7,"shape":[1],"data_offsets":[0,4]}}""", 4, "tensor \"a\" has the unknown dtype \"Number\"" },
        { """{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}""", 4, "tensor \"a\": shape holds the negative number -1" },
        { """{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}""", 4, "tensor \"a\": shape [4294967296, 4294967296] of F32 overflows 64 bits" },
        { """{"a":{"dtype":"F32","shape":[2305843009213693952],"data_offsets":[0,4]}}""", 4, "tensor \"a\": shape [2305843009213693952] of F32 overflows 64 bits" },
        { """{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}""", 4, "tensor \"a\": shape holds something that is no integer of 64 bits" },
        { """{"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}}""", 4, "tensor \"a\": shape holds something that is no integer of 64 bits" },
        { """{"a":{"dtype":"F32","shape":4,"data_offsets":[0,4]}}""", 4, "tensor \"a\": shape is no array" },
        { """{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}""", 1, "tensor \"a\": shape [3] of F4 does not end on a whole byte" },
        { """{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}""", 4, "tensor \"a\": data_offsets has 1 numbers, expected begin and end" },
        { """{"a":{"dtype":"F32","shape":[1]}}""", 4, "tensor \"a\" lacks data_offsets" },
        { """{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}""", 4, "tensor \"a\" has \"dtype\" twice" },
        { """{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}""", 8, "the header names \"a\" twice" },
        { """{"a":5}""", 0, "tensor \"a\" is described by Number, expected an object with dtype, shape and data_offsets" },
        { """{"__metadata__":{"a":5}}""", 0, "__metadata__ \"a\" is not a string" },
        { """{"__metadata__":[]}""", 0, "__metadata__ is not an object" },
        { """[1]""", 0, "the header does not begin with '{': this is no safetensors file" },
        { "", 3, "the header does not begin with '{': this is no safetensors file" },
    };

    [Theory]
    [MemberData(nameof(Lies))]
    public void A_lying_header_is_refused(string header, int buffer, string problem)
    {
        var path = _folder.Write("x.safetensors", Raw(header, new byte[buffer]));
        Assert.Equal($"{path}: {problem}", Refusal(path));
    }

    [Theory]
    [InlineData("""{"a":""")]
    [InlineData("""{"a":{"dtype":"F32"}} x""")]
    [InlineData("""{"\ud800":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}""")]
    public void A_header_that_is_no_json_is_refused(string header)
    {
        var path = _folder.Write("x.safetensors", Raw(header, []));
        Assert.StartsWith($"{path}: ", Refusal(path), StringComparison.Ordinal);
        Assert.DoesNotContain('\n', Refusal(path));
    }

    [Fact]
    public void Files_that_are_no_safetensors_are_refused()
    {
        var missing = _folder["missing.safetensors"];
        Assert.Equal($"{missing}: no such file", Refusal(missing));
        Assert.Equal($"{_folder.Path}: is a folder, a file was expected", Refusal(_folder.Path));
        var tiny = _folder.Write("tiny", [1, 2, 3]);
        Assert.Equal($"{tiny}: is 3 bytes long; a safetensors file has at least 8", Refusal(tiny));
        var cut = _folder.Write("cut", Raw("{}", [], 100));
        Assert.Equal($"{cut}: its first 8 bytes claim a header of 100 bytes, but only 2 follow; the file is truncated or no safetensors file", Refusal(cut));
        var negative = _folder.Write("negative", Raw("{}", [], -1));
        Assert.Equal($"{negative}: its first 8 bytes claim a header of 18446744073709551615 bytes, but only 2 follow; the file is truncated or no safetensors file", Refusal(negative));
        using (var sparse = File.Create(_folder["sparse"]))
        {
            sparse.Write([0, 0, 0, 10, 0, 0, 0, 0]);
            sparse.SetLength(200_000_000);
        }

        Assert.Equal($"{_folder["sparse"]}: its header is 167772160 bytes long; the format allows 100000000", Refusal(_folder["sparse"]));
    }

    [Fact]
    public void Asking_for_what_is_not_there_is_answered_with_near_names()
    {
        new SafetensorsWriter().Add("W_enc", [1], [1f]).Add("b_dec", [1], [1L]).Save(_folder["x"]);
        using var file = SafetensorsFile.Open(_folder["x"]);
        Assert.Equal($"{file.Path}: has no tensor \"W_dec\"; it has \"b_dec\", \"W_enc\"", Assert.Throws<InvalidFileException>(() => file.ReadFloat32("W_dec")).Message);
        Assert.Equal($"{file.Path}: tensor \"b_dec\" has dtype I64, expected F32, F16, BF16 or F64", Assert.Throws<InvalidFileException>(() => file.ReadFloat32("b_dec")).Message);
        Assert.Equal($"{file.Path}: tensor \"W_enc\" has dtype F32, expected an integer type", Assert.Throws<InvalidFileException>(() => file.ReadInt64("W_enc")).Message);
    }

    [Fact]
    public void Numbers_that_do_not_fit_are_refused()
    {
        new SafetensorsWriter().Add("u", [2], [1UL, ulong.MaxValue]).Add("i", [2], [1L, 1L << 40]).Save(_folder["x"]);
        using var file = SafetensorsFile.Open(_folder["x"]);
        Assert.Equal($"{file.Path}: tensor \"u\" holds 18446744073709551615, which does not fit 64 bits with a sign", Assert.Throws<InvalidFileException>(() => file.ReadInt64("u")).Message);
        Assert.Equal($"{file.Path}: tensor \"i\" holds 1099511627776 at element 1, which does not fit 32 bits", Assert.Throws<InvalidFileException>(() => file.ReadInt32("i")).Message);
    }

    [Fact]
    public void The_writer_refuses_what_no_reader_would_take()
    {
        var w = new SafetensorsWriter().Add("a", [1], [1f]);
        Assert.Equal("safetensors: tensor \"a\" was added twice", Assert.Throws<InvalidInputException>(() => w.Add("a", [1], [1f])).Message);
        Assert.Equal("safetensors: tensor \"b\" of shape [2] has 2 elements, 1 were given", Assert.Throws<InvalidInputException>(() => w.Add("b", [2], [1f])).Message);
        Assert.Throws<InvalidInputException>(() => w.Add("__metadata__", [1], [1f]));
        Assert.Throws<InvalidInputException>(() => w.Add("\ud800", [1], [1f]));
        Assert.Throws<InvalidInputException>(() => w.Add("c", SafetensorsType.F32, [-1], _ => { }));
        Assert.Throws<InvalidInputException>(() => w.Add("c", SafetensorsType.F32, [1L << 62, 4], _ => { }));
        w.Add("short", SafetensorsType.F32, [2], s => s.Write([1, 2, 3, 4]));
        Assert.Throws<InvalidOperationException>(() => w.Save(_folder["x"]));
        var long_ = new SafetensorsWriter().Add("long", SafetensorsType.F32, [1], s => s.Write(new byte[5]));
        Assert.Throws<InvalidOperationException>(() => long_.Save(_folder["x"]));
        Assert.Empty(_folder.List());
    }

    internal static string Refusal(string path) => Assert.Throws<InvalidFileException>(() => SafetensorsFile.Open(path)).Message;
}
