using System.Text;
using IlgpuSae.Files;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Cli;

/// <summary>Everyday mistakes: one clear line, the right exit code, nothing left behind.</summary>
public sealed class BadInputTests : IDisposable
{
    private const string Hook = "blocks.1.hook_resid_pre";
    private readonly TempFolder _temp = new();
    private readonly string[] _before;

    public BadInputTests()
    {
        Ilgpusae.Activations(_temp, "acts.safetensors", 64, 8);
        Ilgpusae.Tokens(_temp, "tokens.safetensors", 4, 16, i => i % 61);
        _before = _temp.List();
    }

    private static string Model => Golden.FolderOf("eval", "gpt2_resid_standard", "model");

    private static string Sae => Golden.FolderOf("eval", "gpt2_resid_standard", "sae");

    public void Dispose() => _temp.Dispose();

    [Theory]
    [InlineData("train --modle x", "unknown option --modle; did you mean --model?")]
    [InlineData("trian", "unknown verb trian; did you mean train?")]
    [InlineData("sae inspct", "unknown verb inspct; did you mean inspect?")]
    [InlineData("train --k many", "--k: \"many\" is not a number")]
    [InlineData("train --lr fast", "--lr: \"fast\" is not a number")]
    [InlineData("train --normalize-activations sometimes", "--normalize-activations: \"sometimes\" is none of none, expected_average_only_in")]
    [InlineData("train --d-sae 0", "d_sae: 0 features; it must be at least 1")]
    [InlineData("train --d-sae -3", "d_sae: -3 features; it must be at least 1")]
    [InlineData("train --k 600 --d-sae 512", "k: 600 features a row, but there are only d_sae = 512")]
    [InlineData("train --k 1.5", "field \"k\" cannot be 1.5")]
    [InlineData("train --architecture batchtopk --k 0", "k: 0 is not a positive number")]
    [InlineData("train --architecture jumprelu --jumprelu-bandwidth 0", "jumprelu_bandwidth: 0 is not a positive number")]
    [InlineData("train --architecture jumprelu --jumprelu-sparsity-loss-mode quadratic", "target_l0: missing")]
    [InlineData("train --architecture matryoshka_batchtopk --d-sae 64 --matryoshka-widths 32,16", "matryoshka_widths: 32,16 is not strictly increasing")]
    [InlineData("train --architecture matryoshka_batchtopk --d-sae 64 --matryoshka-widths 32;64", "field \"matryoshka_widths\" cannot be \"32;64\"")]
    [InlineData("train --architecture matryoshka_batchtopk --normalize-activations layer_norm", "normalize_activations: layer_norm cannot be trained with matryoshka_batchtopk's auxiliary loss")]
    [InlineData("train --architecture dense", "architecture \"dense\" is not known in training; known: ")]
    [InlineData("train --lr 0", "lr: 0 is not a positive number")]
    [InlineData("train --training-tokens 10 --train-batch-size-tokens 100", "is less than one batch")]
    [InlineData("train --seqpos-slice 3:2:0", "seqpos_slice: \"3:2:0\" is not START:STOP")]
    [InlineData("train --activations a --text b", "text and activations: give only one of them")]
    [InlineData("train --text b", "text: a model has to read them")]
    [InlineData("encode --input x", "--sae DIR: missing")]
    [InlineData("train --device abacus", "abacus")]
    public void Wrong_usage(string line, string expected) =>
        Refuse(line.Split(' '), expected, line.StartsWith("train ", StringComparison.Ordinal));

    [Fact]
    public void An_unknown_field_of_the_configuration() => Refuse(
        ["train", "--config", _temp.Write("run.json", "{\"lr_warmup_steps\": 3}")], "field \"lr_warmup_steps\" is not known; did you mean lr_warm_up_steps?");

    [Fact]
    public void A_value_of_the_wrong_kind_in_the_configuration() => Refuse(
        ["train", "--config", _temp.Write("run.json", "{\"lr\": \"high\"}")], "field \"lr\" cannot be \"high\"");

    [Fact]
    public void A_configuration_that_is_no_JSON() => Refuse(["train", "--config", _temp.Write("run.json", "{lr: 3")], "run.json");

    [Fact]
    public void A_missing_file() => Refuse(["train", "--activations", _temp["none.safetensors"]], "none.safetensors");

    [Fact]
    public void A_truncated_file()
    {
        var bytes = File.ReadAllBytes(_temp["acts.safetensors"]);
        Refuse(["train", "--activations", _temp.Write("cut.safetensors", bytes.AsSpan(0, bytes.Length - 100))], "cut.safetensors");
        Refuse(["train", "--activations", _temp.Write("cut.safetensors", bytes.AsSpan(0, 20))], "cut.safetensors");
    }

    [Theory]
    [InlineData("{\"acts\":{\"dtype\":\"F32\",\"shape\":[4,4],\"data_offsets\":[0,640]}}")]
    [InlineData("{\"acts\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,64]}}")]
    [InlineData("{\"acts\":{\"dtype\":\"F32\",\"shape\":[2,4],\"data_offsets\":[0,32]},\"b\":{\"dtype\":\"F32\",\"shape\":[2,4],\"data_offsets\":[16,64]}}")]
    [InlineData("{\"acts\":{\"dtype\":\"F32\",\"shape\":[4,5],\"data_offsets\":[0,64]}}")]
    public void A_header_that_lies(string header)
    {
        var json = Encoding.UTF8.GetBytes(header);
        Refuse(["train", "--activations", _temp.Write("liar.safetensors", [.. BitConverter.GetBytes((long)json.Length), .. json, .. new byte[64]])], "liar.safetensors");
    }

    [Fact]
    public void Activations_under_another_name()
    {
        new SafetensorsWriter().Add("x", [2, 2], new float[4]).Save(_temp["x.safetensors"]);
        Refuse(["train", "--activations", _temp["x.safetensors"]], "has no tensor \"acts\"; it has \"x\"");
    }

    [Fact]
    public void Activations_that_are_whole_numbers()
    {
        new SafetensorsWriter().Add("acts", [64, 8], new int[512]).Save(_temp["i.safetensors"]);
        Refuse(["train", "--activations", _temp["i.safetensors"], "--k", "2", "--training-tokens", "64", "--train-batch-size-tokens", "8"], "I32");
    }

    [Fact]
    public void Weights_of_another_shape()
    {
        Refuse(["train", "--activations", _temp["acts.safetensors"], "--k", "2", "--init-from", Golden.Open("train", "topk_dead").PathOf("initial.safetensors")], "initial.safetensors");
    }

    [Fact]
    public void NaN_in_activations_names_the_step()
    {
        var values = Enumerable.Repeat(1f, 64 * 8).ToArray();
        values[(40 * 8) + 3] = float.NaN;
        Ilgpusae.Activations(_temp, "nan.safetensors", 64, 8, values);
        var line = Ilgpusae.Fail(1, "train", "--activations", _temp["nan.safetensors"], "--no-shuffle", "--d-sae", "16", "--k", "2", "--training-tokens", "64",
            "--train-batch-size-tokens", "8", "--output-path", _temp["out"], "--metrics", _temp["m.jsonl"]);
        Assert.Contains("stopped at step 5: the activations hold NaN (row 40 of the run, column 3)", line, StringComparison.Ordinal);
        NothingLeft("nan.safetensors");
    }

    [Fact]
    public void A_model_of_an_unknown_architecture()
    {
        Directory.CreateDirectory(_temp["model"]);
        File.WriteAllText(Path.Combine(_temp["model"], "config.json"), "{\"architectures\":[\"FooForCausalLM\"],\"model_type\":\"foo\"}");
        Refuse(["train", "--model", _temp["model"], "--hook-name", Hook, "--tokens", _temp["tokens.safetensors"]], "architecture \"FooForCausalLM\" is not known; known: ");
    }

    [Fact]
    public void Weights_that_do_not_fit_the_model()
    {
        Directory.CreateDirectory(_temp["model"]);
        File.WriteAllText(Path.Combine(_temp["model"], "config.json"), File.ReadAllText(Path.Combine(Model, "config.json")).Replace("\"n_embd\": 32", "\"n_embd\": 64", StringComparison.Ordinal));
        File.Copy(Path.Combine(Model, "model.safetensors"), Path.Combine(_temp["model"], "model.safetensors"));
        Refuse(["train", "--model", _temp["model"], "--hook-name", Hook, "--tokens", _temp["tokens.safetensors"]], "model.safetensors");
    }

    [Fact]
    public void A_hook_that_does_not_exist() => Refuse(
        ["train", "--model", Model, "--hook-name", "blocks.1.hook_resid_per", "--tokens", _temp["tokens.safetensors"]], Hook);

    [Fact]
    public void Tokens_out_of_range()
    {
        Ilgpusae.Tokens(_temp, "far.safetensors", 4, 16, i => i == 20 ? 99 : 1);
        Refuse(["train", "--model", Model, "--hook-name", Hook, "--tokens", _temp["far.safetensors"], "--train-batch-size-tokens", "8", "--training-tokens", "64"],
            "tokens: id 99 at row 1, position 4 is not in 0..60");
    }

    [Fact]
    public void Contexts_longer_than_the_model()
    {
        Ilgpusae.Tokens(_temp, "long.safetensors", 2, 40, i => 1);
        Refuse(["train", "--model", Model, "--hook-name", Hook, "--tokens", _temp["long.safetensors"]], "context_size: 40 tokens are more than the model's context of 32");
    }

    [Fact]
    public void An_empty_corpus()
    {
        Ilgpusae.Tokens(_temp, "empty.safetensors", 0, 16, i => 1);
        Refuse(["train", "--model", Model, "--hook-name", Hook, "--tokens", _temp["empty.safetensors"]], "the corpus holds no context of 16 tokens");
    }

    [Fact]
    public void A_model_without_a_tokenizer_cannot_read_text() => Refuse(
        ["train", "--model", Model, "--hook-name", Hook, "--text", _temp.Write("a.txt", "hello")], "tokenizer");

    [Fact]
    public void A_buffer_smaller_than_a_batch() => Refuse(
        ["train", "--model", Model, "--hook-name", Hook, "--tokens", _temp["tokens.safetensors"], "--n-batches-in-buffer", "1", "--store-batch-size-prompts", "1"],
        "n_batches_in_buffer: 1 x 1 contexts of 16 tokens are fewer than train_batch_size_tokens = 4096");

    [Fact]
    public void An_SAE_of_another_width() => Refuse(
        ["eval", "--sae", Sae, "--model", Model, "--hook-name", "blocks.0.mlp.hook_post", "--tokens", _temp["tokens.safetensors"], "--context-size", "16"],
        "gives 128 numbers a token but the SAE has d_in = 32");

    [Fact]
    public void Activations_that_do_not_fit_the_SAE()
    {
        Refuse(["encode", "--sae", Sae, "--input", _temp["acts.safetensors"], "--tensor", "acts", "--output", _temp["f.safetensors"]], "[64, 8], but the SAE takes [..., 32]");
        Refuse(["encode", "--sae", Sae, "--input", _temp["acts.safetensors"], "--output", _temp["f.safetensors"]], "has no tensor \"x\"");
    }

    [Fact]
    public void An_output_that_cannot_be_written()
    {
        var file = _temp.Write("file", "x");
        Refuse(["train", "--activations", _temp["acts.safetensors"], "--output-path", file], "is a file", output: false);
        Refuse(["train", "--activations", _temp["acts.safetensors"], "--output-path", Path.Combine(file, "below")], "file", output: false);
        Directory.CreateDirectory(_temp["full"]);
        File.WriteAllText(Path.Combine(_temp["full"], "thesis.txt"), "x");
        Refuse(["train", "--activations", _temp["acts.safetensors"], "--output-path", _temp["full"]], "is not empty", output: false);
        Assert.True(File.Exists(Path.Combine(_temp["full"], "thesis.txt")));
    }

    [Fact]
    public void A_folder_without_permission()
    {
        Assert.SkipWhen(Environment.UserName == "root", "the administrator may write anywhere");
        if (OperatingSystem.IsWindows()) return;
        Directory.CreateDirectory(_temp["locked"], UnixFileMode.UserRead | UnixFileMode.UserExecute);
        Refuse(["train", "--activations", _temp["acts.safetensors"], "--output-path", Path.Combine(_temp["locked"], "out")], "no permission", output: false);
    }

    [Fact]
    public void A_full_disk()
    {
        if (!File.Exists("/dev/full")) Assert.Skip("needs /dev/full");
        new SafetensorsWriter().Add("x", [4, 32], new float[128]).Save(_temp["x.safetensors"]);
        var line = Ilgpusae.Fail(1, "encode", "--sae", Sae, "--input", _temp["x.safetensors"], "--output", "/dev/full");
        Assert.Contains("the disk is full", line, StringComparison.Ordinal);
        NothingLeft("x.safetensors");
    }

    /// <summary>Refused with exit code 2, a line that says so, and no file more than before.</summary>
    private void Refuse(string[] arguments, string expected, bool output = true)
    {
        var before = _temp.List();
        string[] all = output && arguments[0] == "train" && !arguments.Contains("--output-path") ? [.. arguments, "--output-path", _temp["out"]] : arguments;
        Assert.Contains(expected, Ilgpusae.Fail(2, all), StringComparison.Ordinal);
        Assert.Equal(before, _temp.List());
    }

    private void NothingLeft(params string[] given) => Assert.Equal(_before.Concat(given).Order(StringComparer.Ordinal), _temp.List());
}
