using System.Text.Json;
using System.Text.Json.Nodes;
using IlgpuSae.Autograd;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;
using IlgpuSae.Training;
using Xunit;

namespace IlgpuSae.Testing;

/// <summary>A training run that SAELens made, repeated: given rows in order, given initial weights.</summary>
internal sealed class TrainingGolden : IDisposable
{
    private readonly Golden _golden;
    private readonly Tensor _rows;

    public TrainingGolden(string name, Device device)
    {
        _golden = Golden.Open("train", name);
        var config = JsonNode.Parse(_golden.Case.GetProperty("sae_cfg").GetRawText())!.AsObject();
        // The case's settings are those after the run, when the scale has been folded.
        if (_golden.Case.TryGetProperty("scaling_factor", out _)) config["normalize_activations"] = "expected_average_only_in";
        var type = SaeRegistry.Default.ConfigType(config["architecture"]!.ToString(), training: true);
        Sae = SaeRegistry.Default.CreateForTraining((TrainingSaeConfig)ConfigJson.FromJson(config, type, "sae_cfg"), device);
        Sae.ImportState(SaeLensFolder.ReadWeights(_golden.PathOf("initial.safetensors")), "initial.safetensors");
        var settings = JsonNode.Parse(_golden.Case.GetProperty("trainer_cfg").GetRawText())!.AsObject();
        var trainer = (TrainerConfig)ConfigJson.FromJson(settings, typeof(TrainerConfig), "trainer_cfg");
        var acts = SaeLensFolder.ReadWeights(_golden.PathOf("activations.safetensors")).Single();
        _rows = new Tensor(device, acts.Shape);
        _rows.CopyFrom<float>(acts.Values);
        Trainer = new SaeTrainer(Sae, new RowSource(_rows), trainer);
    }

    public TrainingSae Sae { get; }

    public SaeTrainer Trainer { get; }

    public JsonElement Case => _golden.Case;

    private JsonElement Tolerance => _golden.Case.GetProperty("tolerance");

    /// <summary>Raw gradients of the first step: relative to the largest entry of each tensor.</summary>
    public void CheckFirstGradients()
    {
        using var scope = new TensorScope(Sae.Device);
        using var slice = _rows.Slice(0, Trainer.Config.TrainBatchSizeSamples);
        var x = scope.New(slice.Shape);
        x.CopyFrom(slice);
        using var tape = new Tape(scope);
        foreach (var p in Sae.Parameters.Values) tape.Watch(p);
        if (_golden.Case.TryGetProperty("scaling_factor", out var s)) x = Kernels.Scale.By(scope, x, (float)s.GetDouble());
        var pass = Sae.Forward(scope, x, new TrainingStep(0, Sae.Coefficients.ToDictionary(c => c.Key, c => c.Value.At(0)), default));
        tape.Backward(pass.Total);
        var rel = Tolerance.GetProperty("grads_rel").GetDouble();
        var expected = _golden.Floats("grads_step0.safetensors");
        Assert.Equal(expected.Count, Sae.Parameters.Count);
        foreach (var p in Sae.Config.Parameters)
        {
            var actual = tape.Gradient(Sae.Parameters[p.Name]).ToArray<float>();
            if (p.TransposedInFile) actual = Transposed(actual, p.Shape[0], p.Shape[1]);
            var scale = expected[p.Name].Max(Math.Abs);
            Golden.Close($"gradient of {p.Name}", actual, expected[p.Name], rel * scale, rel);
        }
    }

    /// <summary>One step's numbers.</summary>
    public void CheckStep(StepMetrics actual)
    {
        var expected = Case.GetProperty("steps")[(int)actual.Step];
        var rel = Tolerance.GetProperty("rel_loss_per_step").GetDouble();
        var at = $"step {actual.Step}";
        Assert.Equal(expected.GetProperty("step").GetInt64(), actual.Step);
        Near($"{at}, lr", actual.Lr, expected.GetProperty("lr").GetDouble(), Tolerance.GetProperty("lr").GetDouble(), 0);
        Same(expected.GetProperty("coefficients"), actual.Coefficients, at, 0, 1e-12);
        Assert.Equal(expected.GetProperty("n_dead").GetInt32(), actual.NDead);
        Near($"{at}, loss", actual.Loss, expected.GetProperty("loss").GetDouble(), 0, rel);
        Same(expected.GetProperty("losses"), actual.Losses, at, 1e-7, rel);
        Near($"{at}, gradient norm", actual.GradNormBeforeClip, expected.GetProperty("grad_norm_before_clip").GetDouble(), 0, rel);
        // One of a batch's 64 rows may fall on the other side of ReLU.
        Near($"{at}, L0", actual.L0, expected.GetProperty("l0").GetDouble(), 2.0 / 64, 0);
        foreach (var (name, value) in actual.Metrics) Near($"{at}, {name}", value, expected.GetProperty(name).GetDouble(), 1e-7, rel);
        Assert.Equal(expected.GetProperty("n_frac_active_samples").GetInt64(), actual.NTrainingSamples);
    }

    /// <summary>Weights and counters after the last step, and the inference form.</summary>
    public void CheckEnd(TrainingReport report)
    {
        var abs = Tolerance.GetProperty("abs_final_weights").GetDouble();
        SameWeights(report.Sae, _golden.PathOf("final.safetensors"), abs);
        using var inference = report.Sae.ToInference();
        SameWeights(inference, _golden.PathOf(Path.Combine("final_inference", SaeLensFolder.WeightsFile)), abs);
        Assert.Equal(SaeLensFolder.ReadConfig(_golden.PathOf("final_inference")), inference.Config);
        Assert.Equal(SaeLensFolder.ReadConfig(_golden.PathOf("final_training"), training: true), report.Sae.Config);
        Assert.Equal(Keys(_golden.PathOf(Path.Combine("final_inference", SaeLensFolder.ConfigFile))), Keys(inference.Config));
        Assert.Equal(Keys(_golden.PathOf(Path.Combine("final_training", SaeLensFolder.ConfigFile))), Keys(report.Sae.Config));
        var state = _golden.Floats("trainer_state.safetensors");
        Assert.Equal(state["n_forward_passes_since_fired"], Trainer.Activity.StepsSinceFired.Select(n => (float)n));
        // Counts over 2560 rows, of which a few may fall on the other side of ReLU.
        Golden.Close("act_freq_scores", [.. Trainer.Activity.Frequencies.Select(n => (float)n)], state["act_freq_scores"], 2, 0);
    }

    public void Dispose()
    {
        Trainer.Dispose();
        Sae.Dispose();
        _rows.Dispose();
    }

    /// <summary>The fields of a configuration that SAELens wrote, and of one of ours, in order.</summary>
    private static IEnumerable<string> Keys(string path) =>
        JsonNode.Parse(File.ReadAllText(path))!.AsObject().Select(p => p.Key).Order(StringComparer.Ordinal);

    private static IEnumerable<string> Keys(SaeConfig config) => ConfigJson.ToJson(config).Select(p => p.Key).Order(StringComparer.Ordinal);

    private static void SameWeights(Sae sae, string path, double abs)
    {
        var expected = SaeLensFolder.ReadWeights(path).ToDictionary(t => t.Name);
        // SAELens' raw state holds the logarithm; what is exported, as what it saves, the threshold.
        if (expected.Remove("log_threshold", out var log))
            expected.Add("threshold", log with { Name = "threshold", Values = Array.ConvertAll(log.Values, MathF.Exp) });
        var state = sae.ExportState();
        foreach (var s in state)
        {
            Assert.Equal(expected[s.Name].Shape, s.Shape);
            Golden.Close($"{path} {s.Name}", s.Values, expected[s.Name].Values, abs, abs);
        }

        Assert.Equal(expected.Count, state.Count);
    }

    private static void Same(JsonElement expected, IReadOnlyDictionary<string, double> actual, string at, double abs, double rel)
    {
        Assert.Equal(expected.EnumerateObject().Select(p => p.Name).Order(StringComparer.Ordinal), actual.Keys.Order(StringComparer.Ordinal));
        foreach (var p in expected.EnumerateObject()) Near($"{at}, {p.Name}", actual[p.Name], p.Value.GetDouble(), abs, rel);
    }

    private static void Near(string what, double actual, double expected, double abs, double rel) =>
        Assert.True(Math.Abs(actual - expected) <= abs + (rel * Math.Abs(expected)), $"{what} is {actual:R}, expected {expected:R}");

    private static float[] Transposed(float[] values, int rows, int columns)
    {
        var t = new float[values.Length];
        for (var r = 0; r < rows; r++)
            for (var c = 0; c < columns; c++) t[(c * rows) + r] = values[(r * columns) + c];
        return t;
    }
}
