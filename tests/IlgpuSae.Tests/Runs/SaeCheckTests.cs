using System.Text.Json.Nodes;
using IlgpuSae.Files;
using IlgpuSae.Models;
using IlgpuSae.Runs;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using IlgpuSae.Tests.Cli;
using Xunit;

namespace IlgpuSae.Tests.Runs;

/// <summary>A small SAE that is right, and the same SAE with each mistake made on purpose: the check names it.</summary>
public sealed class SaeCheckTests(SaeCheckTests.Trained trained) : IClassFixture<SaeCheckTests.Trained>, IDisposable
{
    private const string Hook = "blocks.1.hook_resid_pre";
    private readonly TempFolder _temp = new();

    public void Dispose() => _temp.Dispose();

    [Fact]
    public void What_is_right_looks_right()
    {
        var report = Check(trained.Folder);
        Assert.True(report.LooksRight, report.Reason);
        Assert.Null(report.Likely);
        Assert.InRange(report.AsLoaded!.ExplainedVariance, 0.6, 1);
        Assert.InRange(report.AsLoaded.L0, 2, 4);
        Assert.Equal(4, report.ExpectedL0);
        Assert.True(report.Tried.Count > 10);
    }

    [Fact]
    public void A_scale_that_is_not_folded()
    {
        const float s = 0.3f;
        Named("the activation scale is not folded into the weights", Changed(_ => { }, t =>
        {
            // What training on activations times s leaves, s being sqrt(d_in) / mean norm.
            var scale = trained.Scale;
            Assert.True(Math.Abs(scale - 1) > s, $"{scale}");
            Multiply(t["W_enc"], 1 / scale);
            Multiply(t["W_dec"], scale);
            Multiply(t["b_dec"], scale);
        }));
    }

    [Fact]
    public void A_bias_that_is_not_subtracted() =>
        Named("b_dec is not subtracted from the input and should be", Changed(c => c["apply_b_dec_to_input"] = false));

    [Fact]
    public void A_bias_that_is_subtracted_and_should_not_be()
    {
        // The same SAE, its subtraction moved into the encoder's bias.
        var folder = Changed(c => c["apply_b_dec_to_input"] = false, t => MoveBias(t));
        Assert.True(Check(folder).LooksRight);
        var wrong = Changed(_ => { }, t => MoveBias(t));
        Named("b_dec is subtracted from the input and should not be", wrong);
    }

    [Fact]
    public void A_threshold_that_is_missing() =>
        Named("the threshold is missing: a jumprelu or batchtopk SAE is loaded as a plain ReLU one", Changed(c =>
        {
            c["architecture"] = "standard";
            c.Remove("k");
            c["metadata"]!["l0"] = 4;
        }));

    [Theory]
    [InlineData("blocks.0.hook_resid_pre")]
    [InlineData("blocks.1.hook_mlp_out")]
    [InlineData("blocks.7.hook_resid_pre")]
    [InlineData(null)]
    public void A_wrong_hook(string? hook)
    {
        var report = Check(Changed(c => c["metadata"]!["hook_name"] = hook));
        Assert.False(report.LooksRight);
        // The residual stream after one block is that before the next.
        Assert.Matches($"^the hook is wrong: it is for blocks\\.(1\\.hook_resid_pre|0\\.hook_resid_post){(hook is null ? "$" : $", not {hook}")}", report.Likely?.Mistake ?? report.Reason);
    }

    [Theory]
    [InlineData("W_enc", "W_enc is transposed")]
    [InlineData("W_dec", "W_dec is transposed")]
    [InlineData("W_enc W_dec", "W_enc and W_dec are transposed")]
    public void Matrices_that_are_transposed(string names, string mistake) => Named(mistake, Changed(_ => { }, t =>
    {
        foreach (var name in names.Split(' '))
        {
            var (values, rows) = (t[name], name == "W_enc" ? Trained.Width : Trained.Features);
            var columns = values.Length / rows;
            var copy = (float[])values.Clone();
            for (var r = 0; r < rows; r++)
                for (var c = 0; c < columns; c++) values[(c * rows) + r] = copy[(r * columns) + c];
        }
    }));

    [Fact]
    public void A_layer_norm_that_is_missing()
    {
        var right = trained.NormalisedFolder;
        Assert.True(Check(right).LooksRight, Check(right).Reason);
        Named("layer normalisation of the input is missing", Changed(c => c["normalize_activations"] = "none", null, right));
    }

    [Fact]
    public void A_first_token_that_the_SAE_was_not_trained_on()
    {
        var report = Check(trained.Folder, trained.LoudModel);
        Assert.False(report.LooksRight);
        Assert.Equal("the first token (BOS) of every context is included, which the SAE was not trained on", report.Likely?.Mistake ?? report.Reason);
    }

    [Fact]
    public void What_is_wrong_otherwise_is_not_explained_away()
    {
        var report = Check(Changed(_ => { }, t =>
        {
            for (var i = 0; i < t["W_dec"].Length; i++) t["W_dec"][i] = MathF.Sin(i * i);
        }));
        Assert.False(report.LooksRight);
        Assert.Null(report.Likely);
        Assert.StartsWith("it explains ", report.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void The_command_says_so()
    {
        var output = Ilgpusae.Succeed("sae", "check", "--sae", Changed(c => c["apply_b_dec_to_input"] = false), "--model", trained.Model, "--tokens", trained.Tokens, "--rows", "400", "--json", _temp["r.json"]);
        Assert.Contains("looks wrong", output, StringComparison.Ordinal);
        Assert.Contains("set apply_b_dec_to_input to true", output, StringComparison.Ordinal);
        var json = JsonNode.Parse(File.ReadAllText(_temp["r.json"]))!;
        Assert.False(json["looks_right"]!.GetValue<bool>());
        Assert.Equal("b_dec is not subtracted from the input and should be", json["likely"]!["mistake"]!.ToString());
        Assert.Contains("--model DIR: missing", Ilgpusae.Fail(2, "sae", "check", "--sae", trained.Folder), StringComparison.Ordinal);
        Assert.Contains("text: missing; give text or tokens", Ilgpusae.Fail(2, "sae", "check", "--sae", trained.Folder, "--model", trained.Model), StringComparison.Ordinal);
    }

    private void Named(string mistake, string folder)
    {
        var report = Check(folder);
        Assert.False(report.LooksRight, $"looks right: L0 {report.AsLoaded!.L0}, explained {report.AsLoaded.ExplainedVariance}");
        Assert.True(mistake == report.Likely?.Mistake, $"{report.Likely?.Mistake ?? report.Reason}\n{string.Join('\n', report.Tried)}");
    }

    private SaeCheckReport Check(string folder, string? model = null) => new SaeCheck(trained.Device) { Rows = 400 }.Execute(folder, new JsonObject { ["model_name"] = model ?? trained.Model, ["tokens"] = trained.Tokens });

    private static void Multiply(float[] values, double factor)
    {
        foreach (ref var v in values.AsSpan()) v = (float)(v * factor);
    }

    private static void MoveBias(Dictionary<string, float[]> t)
    {
        for (var j = 0; j < Trained.Features; j++)
            for (var i = 0; i < Trained.Width; i++) t["b_enc"][j] -= t["b_dec"][i] * t["W_enc"][(i * Trained.Features) + j];
    }

    private string Changed(Action<JsonObject> settings, Action<Dictionary<string, float[]>>? tensors = null, string? from = null)
    {
        from ??= trained.Folder;
        var folder = _temp[$"changed{_temp.List().Length}"];
        Directory.CreateDirectory(folder);
        var json = JsonNode.Parse(File.ReadAllText(Path.Combine(from, "cfg.json")))!.AsObject();
        settings(json);
        File.WriteAllText(Path.Combine(folder, "cfg.json"), json.ToJsonString());
        var state = SaeLensFolder.ReadWeights(Path.Combine(from, "sae_weights.safetensors"));
        tensors?.Invoke(state.ToDictionary(s => s.Name, s => s.Values));
        var writer = new SafetensorsWriter();
        foreach (var s in state) writer.Add(s.Name, [.. s.Shape.Dims.ToArray().Select(d => (long)d)], s.Values);
        writer.Save(Path.Combine(folder, "sae_weights.safetensors"));
        return folder;
    }

    /// <summary>
    /// The golden GPT-2 with a constant added to its activations, so that biases matter, and TopK SAEs trained on them: on the
    /// centred activations, the mean then being b_dec, and on layer-normed ones.
    /// </summary>
    public sealed class Trained : IDisposable
    {
        public const int Width = 32;
        public const int Features = 128;
        private readonly TempFolder _temp = new();

        public Trained()
        {
            Device = Device.Open("cpu");
            Model = ModelWith("model", first: 1);
            LoudModel = ModelWith("loud", first: 60);
            Tokens = Ilgpusae.Tokens(_temp, "tokens.safetensors", 60, 20, i => (i * i * 7 + i / 3) % 24);
            var rows = Rows();
            var count = rows.Length / Width;
            var mean = new double[Width];
            for (var i = 0; i < rows.Length; i++) mean[i % Width] += rows[i] / (double)count;
            Scale = Math.Sqrt(Width) / SaeCheckRows.NormOf(rows, Width);
            Folder = Train("sae", [.. rows.Select((v, i) => (float)(v - mean[i % Width]))], mean, "none");
            var normed = (float[])rows.Clone();
            for (var r = 0; r < count; r++)
            {
                var row = normed.AsSpan(r * Width, Width);
                double mu = 0, variance = 0;
                foreach (var v in row) mu += v / (double)Width;
                foreach (var v in row) variance += (v - mu) * (v - mu) / (Width - 1);
                foreach (ref var v in row) v = (float)((v - mu) / (Math.Sqrt(variance) + 1e-5));
            }

            NormalisedFolder = Train("normalised", normed, new double[Width], "layer_norm");
        }

        public Device Device { get; }

        public string Model { get; }

        public string LoudModel { get; }

        public string Tokens { get; }

        public string Folder { get; }

        public string NormalisedFolder { get; }

        public double Scale { get; }

        public void Dispose()
        {
            Device.Dispose();
            _temp.Dispose();
        }

        private string ModelWith(string name, float first)
        {
            var golden = Golden.FolderOf("eval", "gpt2_resid_standard", "model");
            _temp.Folder(name);
            File.Copy(Path.Combine(golden, "config.json"), Path.Combine(_temp[name], "config.json"));
            using var file = SafetensorsFile.Open(Path.Combine(golden, "model.safetensors"));
            var writer = new SafetensorsWriter();
            foreach (var t in file.Tensors)
            {
                if (t.Type != SafetensorsType.F32) continue;
                var values = new float[t.Count];
                file.ReadFloat32(t.Name, values);
                if (t.Name.EndsWith("wpe.weight", StringComparison.Ordinal))
                {
                    for (var i = 0; i < values.Length; i++) values[i] += 1.5f * MathF.Sin(1 + i % Width);
                    // A first token far from all others, as in language models.
                    for (var i = 0; i < Width; i++) values[i] += (first - 1) * MathF.Cos(3 * i);
                }

                writer.Add(t.Name, t.Shape, values);
            }

            writer.Save(Path.Combine(_temp[name], "model.safetensors"));
            return _temp[name];
        }

        private float[] Rows()
        {
            using var model = HookedTransformer.Load(Model, Device);
            using var file = SafetensorsFile.Open(Tokens);
            using var scope = new TensorScope(Device);
            return model.Activations(scope, scope.From<int>(file.ReadInt32("tokens"), [60, 20]), Hook)[Hook].ToArray<float>();
        }

        private string Train(string name, float[] rows, double[] mean, string normalize)
        {
            new SafetensorsWriter().Add("acts", [rows.Length / Width, Width], rows).Save(_temp[name + ".safetensors"]);
            Ilgpusae.Succeed("train", "--activations", _temp[name + ".safetensors"], "--architecture", "topk", "--k", "4", "--d-sae", "128", "--training-tokens", "150000", "--train-batch-size-tokens", "256",
                "--lr", "0.004", "--output-path", _temp[name + "-trained"], "--quiet");
            var state = SaeLensFolder.ReadWeights(Path.Combine(_temp[name + "-trained"], "sae_weights.safetensors"));
            var bias = state.First(s => s.Name == "b_dec").Values;
            for (var i = 0; i < Width; i++) bias[i] += (float)mean[i];
            var json = JsonNode.Parse(File.ReadAllText(Path.Combine(_temp[name + "-trained"], "cfg.json")))!.AsObject();
            json["normalize_activations"] = normalize;
            json["rescale_acts_by_decoder_norm"] = false;
            json["metadata"]!["hook_name"] = Hook;
            json["metadata"]!["context_size"] = 20;
            _temp.Folder(name);
            File.WriteAllText(Path.Combine(_temp[name], "cfg.json"), json.ToJsonString());
            var writer = new SafetensorsWriter();
            foreach (var s in state) writer.Add(s.Name, [.. s.Shape.Dims.ToArray().Select(d => (long)d)], s.Values);
            writer.Save(Path.Combine(_temp[name], "sae_weights.safetensors"));
            return _temp[name];
        }
    }
}
