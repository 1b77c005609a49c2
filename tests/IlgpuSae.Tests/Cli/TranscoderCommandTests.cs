using System.Text.Json.Nodes;
using IlgpuSae.Files;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Cli;

/// <summary>Transcoders through the command line: two hooks of one model, two tensors of one file.</summary>
public sealed class TranscoderCommandTests : IDisposable
{
    private readonly TempFolder _temp = new();
    private readonly string _model = Golden.FolderOf("eval", "gpt2_resid_standard", "model");

    public void Dispose() => _temp.Dispose();

    [Theory]
    [InlineData("skip_transcoder", "blocks.1.attn.hook_z", 8)]
    [InlineData("transcoder", "blocks.1.hook_mlp_out", 32)]
    public void A_transcoder_is_trained_from_two_hooks_saved_and_judged_in_the_model(string architecture, string hookOut, int dOut)
    {
        var tokens = Ilgpusae.Tokens(_temp, "t.safetensors", 60, 16, i => (i * i) % 61);
        string[] head = dOut == 8 ? ["--hook-head-index-out", "2"] : [];
        var output = Ilgpusae.Succeed(["train", "--model", _model, "--tokens", tokens, "--architecture", architecture, "--hook-name", "blocks.1.ln2.hook_normalized",
            "--hook-name-out", hookOut, .. head, "--d-sae", "64", "--l1-coefficient", "0.01", "--lr", "0.01", "--training-tokens", "6400", "--train-batch-size-tokens", "64",
            "--normalize-activations", "expected_average_only_in", "--n-batches-in-buffer", "1", "--n-eval-batches", "2", "--output-path", _temp["sae"]]);
        Assert.Contains("CE loss score", output, StringComparison.Ordinal);
        var config = (TranscoderConfig)SaeLensFolder.ReadConfig(_temp["sae"]);
        Assert.Equal((architecture, 32, dOut, NormalizeActivations.None), (config.Architecture, config.DIn, config.DOut, config.NormalizeActivations));
        Assert.Equal(("blocks.1.ln2.hook_normalized", hookOut), (config.Metadata.Get<string>("hook_name"), config.Metadata.Get<string>("hook_name_out")));
        // Both hooks follow from the metadata.
        Ilgpusae.Succeed("eval", "--sae", _temp["sae"], "--model", _model, "--tokens", tokens, "--json", _temp["e.json"], "--quiet");
        var metrics = JsonNode.Parse(File.ReadAllText(_temp["e.json"]))!["metrics"]!;
        Assert.InRange(metrics["reconstruction_quality"]!["explained_variance"]!.GetValue<double>(), 0.3, 1);
        Assert.InRange(metrics["model_behavior_preservation"]!["kl_div_score"]!.GetValue<double>(), 0.2, 1);
        Assert.InRange(metrics["sparsity"]!["l0"]!.GetValue<double>(), 0.5, 60);
    }

    [Fact]
    public void A_transcoder_is_trained_and_judged_on_rows_of_a_file()
    {
        Pairs("p.safetensors");
        Ilgpusae.Succeed("train", "--activations", _temp["p.safetensors"], "--architecture", "skip_transcoder", "--d-sae", "32", "--l1-coefficient", "0.001", "--lr", "0.02",
            "--training-tokens", "12800", "--train-batch-size-tokens", "64", "--output-path", _temp["sae"], "--quiet");
        Ilgpusae.Succeed("eval", "--sae", _temp["sae"], "--activations", _temp["p.safetensors"], "--json", _temp["e.json"], "--quiet");
        // The targets are linear in the inputs, which the skip alone can learn.
        Assert.InRange(JsonNode.Parse(File.ReadAllText(_temp["e.json"]))!["metrics"]!["reconstruction_quality"]!["explained_variance"]!.GetValue<double>(), 0.98, 1);
        Ilgpusae.Succeed("encode", "--sae", _temp["sae"], "--input", _temp["p.safetensors"], "--tensor", "acts", "--output", _temp["f.safetensors"], "--dense", "--quiet", "--json", _temp["f.json"]);
        Assert.Null(JsonNode.Parse(File.ReadAllText(_temp["f.json"]))!["explained_variance"]);
        using var file = SafetensorsFile.Open(_temp["f.safetensors"]);
        Assert.Equal([200, 3], file["reconstruction"].Shape);
        Assert.Equal([200, 32], file["features"].Shape);
    }

    [Fact]
    public void What_a_transcoder_lacks_is_said()
    {
        var tokens = Ilgpusae.Tokens(_temp, "t.safetensors", 4, 16, i => i % 61);
        Ilgpusae.Activations(_temp, "a.safetensors", 8, 4);
        string[] model = ["--model", _model, "--tokens", tokens, "--hook-name", "blocks.0.ln2.hook_normalized"];
        void Refused(string message, params string[] arguments) => Assert.Contains(message, Ilgpusae.Fail(2, ["train", .. arguments, "--output-path", _temp["sae"]]), StringComparison.Ordinal);
        Refused("hook_name_out: missing; architecture transcoder is trained to give another hook's activations", [.. model, "--architecture", "transcoder"]);
        Refused("hook_name_out: architecture topk gives hook_name's own activations", [.. model, "--hook-name-out", "blocks.0.hook_mlp_out"]);
        Refused("hook \"blocks.9.hook_mlp_out\"", [.. model, "--architecture", "transcoder", "--hook-name-out", "blocks.9.hook_mlp_out"]);
        Refused("hook_head_index_out: there is no hook_name_out", [.. model, "--hook-head-index-out", "1"]);
        Refused("hook_head_index: 1, but blocks.0.hook_mlp_out", [.. model, "--architecture", "transcoder", "--hook-name-out", "blocks.0.hook_mlp_out", "--hook-head-index-out", "1"]);
        Refused("architecture skip_transcoder: the built-in synthetic source has no targets", "--architecture", "skip_transcoder");
        Refused("\"targets\"", "--activations", _temp["a.safetensors"], "--architecture", "transcoder");
        Refused("apply_b_dec_to_input: architecture transcoder cannot subtract b_dec", [.. model, "--architecture", "transcoder", "--hook-name-out", "blocks.0.hook_mlp_out", "--apply-b-dec-to-input", "true"]);
        Refused("takes 5: its input and its target side by side", "--activations", Pairs("p.safetensors"), "--architecture", "transcoder", "--d-out", "1");
        Assert.False(Directory.Exists(_temp["sae"]));
        var golden = Golden.Open("sae", "transcoder");
        Assert.Contains("eval: blocks.1.ln2.hook_normalized", Ilgpusae.Fail(2, "eval", "--sae", golden.PathOf("sae"), "--model", _model, "--tokens", tokens), StringComparison.Ordinal);
    }

    private string Pairs(string name)
    {
        var x = Enumerable.Range(0, 200 * 4).Select(i => MathF.Sin(i * 0.7f) + (0.3f * MathF.Cos(i * i))).ToArray();
        var y = Enumerable.Range(0, 200 * 3).Select(i => (2 * x[(i / 3 * 4) + (i % 3)]) - x[(i / 3 * 4) + 3]).ToArray();
        new SafetensorsWriter().Add("acts", [200, 4], x).Add("targets", [200, 3], y).Save(_temp[name]);
        return _temp[name];
    }
}
