using System.Diagnostics;
using IlgpuSae.Files;
using IlgpuSae.Runs;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using IlgpuSae.Tests.Cli;
using Xunit;
using static IlgpuSae.Tests.Saes.PeerFormulas;

namespace IlgpuSae.Tests.Runs;

/// <summary>Conversion between formats: the same bits, or a refusal that says what would be lost.</summary>
public sealed class SaeConversionTests : IDisposable
{
    private readonly TempFolder _temp = new();
    private readonly Device _device = Device.Open("cpu");

    public void Dispose()
    {
        _device.Dispose();
        _temp.Dispose();
    }

    [Theory]
    [InlineData("standard", "dictionary_learning", "float32", true)]
    [InlineData("standard", "dictionary_learning", "float32", false)]
    [InlineData("standard", "saelens", "bfloat16", true)]
    [InlineData("topk", "sparsify", "float32", true)]
    [InlineData("topk", "sparsify", "bfloat16", true)]
    [InlineData("topk", "sparsify", "float16", true)]
    [InlineData("topk", "dictionary_learning", "float32", true)]
    [InlineData("abstopk", "sparsify", "float32", true)]
    [InlineData("jumprelu", "gemma_scope", "float32", false)]
    [InlineData("jumprelu", "dictionary_learning", "float32", true)]
    [InlineData("gated", "dictionary_learning", "float32", true)]
    [InlineData("topk_transcoder", "sparsify", "float32", false)]
    [InlineData("topk_skip_transcoder", "sparsify", "float32", false)]
    [InlineData("jumprelu_transcoder", "gemma_scope", "float32", false)]
    public void There_and_back_gives_the_same_bits(string architecture, string format, string dtype, bool subtracts)
    {
        var folder = Make(architecture, dtype, subtracts);
        var name = architecture.Contains("transcoder", StringComparison.Ordinal) ? "layers.3.transcoder" : "layers.3";
        var report = new SaeConversion(_device).Execute(folder, _temp[name], format);
        Assert.Equal(("saelens", format), (report.From, report.To));
        new SaeConversion(_device).Execute(_temp[name], _temp["back"], "saelens");
        using var before = SaeFormats.Default.Load(folder, _device);
        using var after = SaeFormats.Default.Load(_temp["back"], _device);
        Assert.Equal(architecture, after.Config.Architecture);
        Assert.Equal(dtype, after.Config.Dtype);
        using var scope = new TensorScope(_device);
        var x = scope.From<float>(X, [N, D]);
        SparseFeatures f = before.Encode(scope, x, out var frame), g = after.Encode(scope, x, out var other);
        Assert.NotEqual(0, f.Values.Count);
        Assert.Equal(f.Indices.ToArray<int>(), g.Indices.ToArray<int>());
        Assert.Equal(f.Values.ToArray<float>(), g.Values.ToArray<float>());
        Assert.Equal(before.Decode(scope, f, frame).ToArray<float>(), after.Decode(scope, g, other).ToArray<float>());
    }

    [Theory]
    [InlineData("standard", "sparsify", "its architecture is standard")]
    [InlineData("standard", "gemma_scope", "its architecture is standard")]
    [InlineData("topk", "gemma_scope", "its architecture is topk")]
    [InlineData("standard", "openai", "is read, not written; written are dictionary_learning, gemma_scope, saelens, sparsify")]
    [InlineData("standard", "onnx", "is not known; written are ")]
    public void What_a_format_cannot_say_is_refused_and_nothing_is_written(string architecture, string format, string problem)
    {
        var folder = Make(architecture, "float32", true);
        var before = _temp.List();
        var message = Ilgpusae.Fail(2, "sae", "convert", "--input", folder, "--output", _temp["out"], "--format", format);
        Assert.Contains(problem, message, StringComparison.Ordinal);
        Assert.Equal(before, _temp.List());
    }

    [Fact]
    public void A_narrower_type_is_refused_where_it_would_round()
    {
        // Saved as bfloat16, dictionary_learning's file holds single precision: nothing is lost. Sparsify stores the type itself.
        var folder = Make("topk", "bfloat16", true);
        Ilgpusae.Succeed("sae", "convert", "--input", folder, "--output", _temp["dl"], "--format", "dictionary_learning");
        Assert.Contains("is not empty", Ilgpusae.Fail(2, "sae", "convert", "--input", folder, "--output", _temp["dl"]), StringComparison.Ordinal);
        Assert.Contains("no such file or folder", Ilgpusae.Fail(2, "sae", "convert", "--input", _temp["none"], "--output", _temp["out"]), StringComparison.Ordinal);
    }

    [Fact]
    public void Evil_pickles_are_refused_on_the_command_line()
    {
        var path = _temp.Write("sae.pt", new PickleText().Global("os", "system").Op('(').Text("touch pwned").Op('t').Op('R').End());
        foreach (var line in new[] { $"sae inspect --sae {path}", $"sae convert --input {path} --output {_temp["out"]}", $"encode --sae {path} --input x --output y" })
            Assert.Contains("its pickle asks for os.system, which weights have no need of", Ilgpusae.Fail(2, line.Split(' ')), StringComparison.Ordinal);
        Assert.False(File.Exists("pwned"));
        Assert.Equal(["sae.pt"], _temp.List());
    }

    [Fact]
    public void Inspect_tells_the_format()
    {
        var folder = Make("topk", "float32", true);
        Ilgpusae.Succeed("sae", "convert", "--input", folder, "--output", _temp["layers.5"], "--format", "sparsify");
        var output = Ilgpusae.Succeed("sae", "inspect", "--sae", _temp["layers.5"]);
        Assert.Matches(@"format +sparsify", output);
        Assert.Matches(@"published L0 +3", output);
        Assert.Contains("blocks.5.hook_resid_post", output, StringComparison.Ordinal);
    }

    /// <summary>What is written as ae.pt, CPython's own pickle machine reads: with classes of the same names that only record.</summary>
    [Fact]
    public void What_is_written_as_pt_is_a_pickle_that_Python_reads()
    {
        if (!Python(out var version)) Assert.Skip($"python3 is not installed: {version}");
        new PyTorchWriter().Add("encoder.weight", [2, 3], [1f, 2, 3, 4, 5, 6]).Add("k", [], new[] { 7 }).Save(_temp["ae.pt"]);
        var script = _temp.Write("read.py", """
            import pickle, struct, sys, zipfile
            z = zipfile.ZipFile(sys.argv[1])
            assert z.testzip() is None
            assert all(i.compress_type == zipfile.ZIP_STORED for i in z.infolist())
            class Reader(pickle.Unpickler):
                def find_class(self, module, name):
                    if (module, name) == ("collections", "OrderedDict"): return super().find_class(module, name)
                    if module == "torch": return name
                    assert (module, name) == ("torch._utils", "_rebuild_tensor_v2")
                    return lambda storage, offset, size, stride, grad, hooks: (storage, offset, size, stride, grad)
                def persistent_load(self, pid):
                    kind, storage, key, where, count = pid
                    assert kind == "storage" and where == "cpu"
                    data = z.read("archive/data/" + key)
                    return storage, struct.unpack("<%d%s" % (count, {"FloatStorage": "f", "IntStorage": "i"}[storage]), data)
            print(list(Reader(z.open("archive/data.pkl")).load().items()), z.read("archive/version"))
            """);
        using var python = Process.Start(new ProcessStartInfo("python3", [script, _temp["ae.pt"]]) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        var output = python.StandardOutput.ReadToEnd();
        Assert.Equal("[('encoder.weight', (('FloatStorage', (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)), 0, (2, 3), (3, 1), False)), ('k', (('IntStorage', (7,)), 0, (), (), False))] b'3\\n'\n", output + python.StandardError.ReadToEnd());
    }

    private static bool Python(out string problem)
    {
        try
        {
            using var python = Process.Start(new ProcessStartInfo("python3", ["--version"]) { RedirectStandardOutput = true, RedirectStandardError = true })!;
            python.WaitForExit();
            problem = "";
            return python.ExitCode == 0;
        }
        catch (System.ComponentModel.Win32Exception e)
        {
            problem = e.Message;
            return false;
        }
    }

    private string Make(string architecture, string dtype, bool subtracts)
    {
        var transcoder = architecture.Contains("transcoder", StringComparison.Ordinal);
        var decoder = Values(M * D, 2);
        if (architecture == "gated")
        {
            for (var j = 0; j < M; j++)
            {
                var row = decoder.AsSpan(j * D, D);
                double squares = 0;
                foreach (var v in row) squares += (double)v * v;
                foreach (ref var v in row) v = (float)(v / Math.Sqrt(squares));
            }
        }

        var state = new List<(string, long[], float[])> { ("W_enc", [D, M], Values(D * M, 1)), ("W_dec", [M, D], decoder), ("b_dec", [D], Values(D, 4, 0.5)) };
        if (architecture == "gated") state.AddRange([("b_gate", [M], Values(M, 3, 0.3)), ("b_mag", [M], Values(M, 5, 0.3)), ("r_mag", [M], Values(M, 6, 0.3))]);
        else state.Add(("b_enc", [M], Values(M, 3, 0.3)));
        if (architecture.StartsWith("jumprelu", StringComparison.Ordinal)) state.Add(("threshold", [M], subtracts ? [.. Enumerable.Repeat(0.7f, M)] : Array.ConvertAll(Values(M, 7), MathF.Abs)));
        if (architecture.Contains("skip", StringComparison.Ordinal)) state.Add(("W_skip", [D, D], Values(D * D, 8)));
        _temp.Folder("sae");
        var extra = (architecture.Contains("topk", StringComparison.Ordinal) ? "\"k\": 3, " : "") + (transcoder ? $"\"d_out\": {D}, " : "");
        _temp.Write("sae/cfg.json", $$"""{"d_in": {{D}}, "d_sae": {{M}}, "dtype": "{{dtype}}", "apply_b_dec_to_input": {{(subtracts ? "true" : "false")}}, {{extra}}"metadata": {"sae_lens_version": "6.18.0", "hook_name": "blocks.3.hook_resid_post", "model_name": "m"}, "architecture": "{{architecture}}"}""");
        var writer = new SafetensorsWriter();
        foreach (var (name, shape, values) in state) writer.Add(name, shape, dtype == "bfloat16" ? Array.ConvertAll(values, v => BitConverter.UInt32BitsToSingle(BitConverter.SingleToUInt32Bits(v) & 0xFFFF0000)) : dtype == "float16" ? Array.ConvertAll(values, v => (float)(Half)v) : values);
        writer.Save(_temp["sae/sae_weights.safetensors"]);
        return _temp["sae"];
    }
}
