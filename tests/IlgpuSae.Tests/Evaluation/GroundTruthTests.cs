using System.Text.Json.Nodes;
using IlgpuSae.Activations;
using IlgpuSae.Evaluation;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using IlgpuSae.Tests.Cli;
using Xunit;

namespace IlgpuSae.Tests.Evaluation;

public sealed class GroundTruthTests : IDisposable
{
    private readonly CpuDevice _device = new(2);

    public void Dispose() => _device.Dispose();

    [Fact]
    public void An_SAE_made_of_the_true_directions_is_perfect()
    {
        // As many dimensions as features hardly overlap: encoding by the directions finds each feature alone.
        var source = new SyntheticSuperposition(new SyntheticConfig { DIn = 400, NTrue = 6, MeanActive = 2, MagnitudeSpread = 0.1 });
        var result = Judge(source, [0, 1, 2, 3, 4, 5], 1, -0.5f);
        Assert.Equal((1, 1, 1, 1), (result.Classification.Precision, result.Classification.Recall, result.Classification.F1Score, result.Classification.Accuracy));
        Assert.Equal((1, 1, 1), (Math.Round(result.Mcc, 5), Math.Round(result.Mmcs, 5), result.Uniqueness));
        Assert.Equal((0, result.TrueL0), (result.DeadLatents, result.SaeL0));
        Assert.Equal(2, result.TrueL0, 0.1);
        Assert.InRange(result.Shrinkage, 0.3, 0.8);
    }

    [Fact]
    public void Missing_doubled_and_dead_features_are_counted()
    {
        var source = new SyntheticSuperposition(new SyntheticConfig { DIn = 400, NTrue = 6, MeanActive = 2, MagnitudeSpread = 0.1 });
        // True feature 0 twice, 1 once with the other sign in the decoder alone, the last row of zeros.
        var result = Judge(source, [0, 0, 1, -1], 1, -0.5f, flipped: 2);
        Assert.Equal(2 / 4.0, result.Uniqueness);
        Assert.Equal(1, result.DeadLatents);
        // Four decoder rows, at most one a true direction: 1 + small + 1 + 0 over four pairs.
        Assert.InRange(result.Mcc, 0.5, 0.58);
        Assert.InRange(result.Mmcs, 2 / 6.0, (2 / 6.0) + 0.15);
        Assert.Equal(3 / 4.0, result.Classification.Precision);
        Assert.Equal(3 / 4.0, result.Classification.Recall);
        Assert.Equal(3 / 4.0, result.Classification.F1Score);
    }

    [Fact]
    public void Precision_and_recall_are_those_of_the_counts()
    {
        using var scope = new TensorScope(_device);
        var counts = new DetectorCounts([2, 0], 3);
        SparseFeatures Of(int columns, int[] offsets, int[] indices, float[] values) => new(columns,
            scope.From<int>(offsets, [offsets.Length]), scope.From<int>(indices, [indices.Length]), scope.From<float>(values, [values.Length]));
        // Rows: true {2}, {2, 0}, {}, {0}; found {0}, {1}, {0}, {} and a stored zero, which is no firing.
        counts.Add(Of(3, [0, 1, 3, 3, 4], [2, 0, 2, 0], [1, 1, 1, 1]), Of(2, [0, 1, 2, 3, 4], [0, 1, 0, 1], [3, -2, 1, 0]));
        // Feature 0 for true 2: hit 1, fired 2, present 2. Feature 1 for true 0: hit 1, fired 1, present 2.
        var c = counts.Classification();
        Assert.Equal((0.5 + 1) / 2, c.Precision, 12);
        Assert.Equal((0.5 + 0.5) / 2, c.Recall, 12);
        Assert.Equal((0.5 + (2.0 / 3)) / 2, c.F1Score, 12);
        Assert.Equal((0.5 + 0.75) / 2, c.Accuracy, 12);
        Assert.Equal((1.0, 0.75), (counts.TrueL0, counts.SaeL0));
    }

    [Fact]
    public void Training_and_evaluation_print_and_write_the_metrics()
    {
        using var temp = new TempFolder();
        var text = Ilgpusae.Succeed("train", "--synthetic", "synthsaebench-1k", "--n-true", "64", "--d-in", "16", "--total-root-nodes", "2", "--training-tokens", "4096",
            "--output-path", temp["a"], "--json", temp["a.json"], "--quiet");
        Assert.Contains("against the true features, 32768 rows", text, StringComparison.Ordinal);
        var trained = JsonNode.Parse(File.ReadAllText(temp["a.json"]))!["ground_truth"]!;
        foreach (var name in new[] { "true_l0", "sae_l0", "dead_latents", "shrinkage", "explained_variance", "mcc", "mmcs", "uniqueness" }) Assert.NotNull(trained[name]);
        Assert.NotNull(trained["classification"]!["f1_score"]);
        var run = JsonNode.Parse(File.ReadAllText(Path.Combine(temp["a"], "runner_cfg.json")))!;
        Assert.Equal("synth_sae_bench", run["synthetic"]!["generator"]!.GetValue<string>());
        Assert.Equal((16, 1024), (run["sae"]!["d_sae"]!.GetValue<int>(), run["train_batch_size_tokens"]!.GetValue<int>()));

        text = Ilgpusae.Succeed("eval", "--sae", temp["a"], "--synthetic", "--eval-samples", "3000", "--json", temp["e.json"], "--quiet");
        Assert.Contains("MCC", text, StringComparison.Ordinal);
        var judged = JsonNode.Parse(File.ReadAllText(temp["e.json"]))!;
        Assert.Equal(3000, judged["ground_truth"]!["rows"]!.GetValue<int>());
        Assert.Equal(64, judged["synthetic"]!["n_true"]!.GetValue<int>());
        Assert.Equal(trained["mcc"]!.GetValue<double>(), judged["ground_truth"]!["mcc"]!.GetValue<double>(), 1e-6);

        Assert.Contains("synthetic: \"x\" is none of superposition, synthsaebench-1k", Ilgpusae.Fail(2, "train", "--synthetic", "x"), StringComparison.Ordinal);
        Assert.Contains("128 wide but the SAE has d_in = 16", Ilgpusae.Fail(2, "eval", "--sae", temp["a"], "--synthetic", "synthsaebench-1k"), StringComparison.Ordinal);
        File.Delete(Path.Combine(temp["a"], "runner_cfg.json"));
        Assert.Contains("does not say that its SAE was trained on a synthetic source", Ilgpusae.Fail(2, "eval", "--sae", temp["a"], "--synthetic"), StringComparison.Ordinal);
    }

    /// <summary>A standard SAE whose rows are true directions (-1: zeros), judged.</summary>
    private GroundTruthResult Judge(GroundTruthSource source, int[] rows, float scale, float bias, int flipped = -1)
    {
        using var sae = SaeRegistry.Default.Create(new StandardConfig { DIn = source.Width, DSae = rows.Length }, _device);
        float[] encoder = new float[rows.Length * source.Width], decoder = new float[encoder.Length];
        for (var j = 0; j < rows.Length; j++)
        {
            for (var i = 0; i < source.Width && rows[j] >= 0; i++)
            {
                encoder[(j * source.Width) + i] = scale * source.Directions[(rows[j] * source.Width) + i];
                decoder[(j * source.Width) + i] = (j == flipped ? -1 : 1) * encoder[(j * source.Width) + i];
            }
        }

        sae.WEnc.CopyFrom<float>(encoder);
        sae.WDec.CopyFrom<float>(decoder);
        sae.Parameters["b_enc"].CopyFrom<float>([.. rows.Select(_ => bias)]);
        return GroundTruthEvaluator.Run(sae, source, 5000, batchRows: 1024);
    }
}
