using System.Text.Json.Nodes;
using IlgpuSae.Files;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;
using static IlgpuSae.Tests.Saes.PeerFormulas;

namespace IlgpuSae.Tests.Saes;

/// <summary>
/// Each published format: files in exactly its layout, written here, load into an SAE that computes what the publisher's
/// own code computes (stated in each test), wherever its conventions differ from SAELens'.
/// </summary>
public sealed class PublishedFormatTests : IDisposable
{
    private readonly TempFolder _temp = new();
    private readonly Device _device = Device.Open("cpu");

    private static readonly float[] EncoderRows = Values(M * D, 1);
    private static readonly float[] Decoder = Values(D * M, 2);
    private static readonly float[] BEnc = Values(M, 3, 0.3);
    private static readonly float[] BDec = Values(D, 4, 0.5);

    public void Dispose()
    {
        _device.Dispose();
        _temp.Dispose();
    }

    /// <summary>sparsify: y = topk(relu((x - b_dec) encoder.weight^T + encoder.bias)) W_dec + b_dec.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Sparsify_subtracts_b_dec_and_keeps_W_dec_as_stored(bool bothSigns)
    {
        var decoder = Values(M * D, 2);
        _temp.Folder("run/layers.5.mlp");
        _temp.Write("run/config.json", """{"model":"EleutherAI/pythia-70m","dataset":"pile","ctx_len":512}""");
        _temp.Write("run/layers.5.mlp/cfg.json", $$"""{"expansion_factor": 32, "normalize_decoder": true, "num_latents": {{M}}, "k": 3, "multi_topk": false, "skip_connection": false, "transcode": false, "embed_skip": false, "signed": {{(bothSigns ? "true" : "false")}}, "d_in": {{D}}}""");
        new SafetensorsWriter().Add("encoder.weight", [M, D], EncoderRows).Add("encoder.bias", [M], BEnc).Add("W_dec", [M, D], decoder).Add("b_dec", [D], BDec)
            .Save(_temp["run/layers.5.mlp/sae.safetensors"]);
        var published = SaeFormats.Default.Describe(_temp["run/layers.5.mlp"]);
        Assert.Equal("sparsify", published.Format);
        Assert.Equal(3, published.PublishedL0);
        using var sae = SaeFormats.Load(published, _device);
        Assert.Equal(bothSigns ? "abstopk" : "topk", sae.Config.Architecture);
        Metadata(sae, "EleutherAI/pythia-70m", "blocks.5.hook_mlp_out", 512);
        var pre = Plus(Times(Plus(Wide(X), BDec, -1), Transposed(EncoderRows, M, D), D, M), BEnc);
        var f = bothSigns ? Largest(pre, M, 3, Math.Abs) : Largest(Relu(pre), M, 3);
        Check(sae, f, Plus(Times(f, Wide(decoder), M, D), BDec));
    }

    /// <summary>sparsify, transcode: nothing is subtracted; + x W_skip^T.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Sparsify_transcoders_subtract_nothing(bool skip)
    {
        float[] decoder = Values(M * D, 2), skipped = Values(D * D, 5);
        _temp.Folder("layers.2.mlp");
        _temp.Write("layers.2.mlp/cfg.json", $$"""{"activation": "topk", "expansion_factor": 2, "num_latents": 0, "k": 4, "skip_connection": {{(skip ? "true" : "false")}}, "transcode": true, "d_in": {{D}}}""");
        var writer = new SafetensorsWriter().Add("encoder.weight", [M, D], EncoderRows).Add("encoder.bias", [M], BEnc).Add("W_dec", [M, D], decoder).Add("b_dec", [D], BDec);
        if (skip) writer.Add("W_skip", [D, D], skipped);
        writer.Save(_temp["layers.2.mlp/sae.safetensors"]);
        using var sae = SaeFormats.Default.Load(_temp["layers.2.mlp"], _device);
        Assert.Equal("blocks.2.hook_mlp_out", sae.Config.Metadata.Get<string>("hook_name_out"));
        var f = Largest(Relu(Plus(Times(Wide(X), Transposed(EncoderRows, M, D), D, M), BEnc)), M, 4);
        var y = Plus(Times(f, Wide(decoder), M, D), BDec);
        if (skip) y = [.. y.Zip(Times(Wide(X), Transposed(skipped, D, D), D, D), (a, b) => a + b)];
        Check(sae, f, y);
    }

    [Theory]
    [InlineData("\"activation\": \"groupmax\"", "\"activation\" in line 1 is \"groupmax\"; known: topk")]
    [InlineData("\"embed_skip\": true", "\"embed_skip\" in line 1 is a setting of sparsify that is not known here")]
    [InlineData("\"quantum\": 3", "\"quantum\" in line 1 is a setting of sparsify that is not known here")]
    [InlineData("\"d_in\": 7", "\"d_in\" in line 1 is 7, but tensor encoder.weight of sae.safetensors has 6")]
    public void Sparsify_from_the_future_is_refused(string field, string problem)
    {
        _temp.Folder("layers.2");
        _temp.Write("layers.2/cfg.json", $"{{\"k\": 4, {field}{(field.Contains("d_in", StringComparison.Ordinal) ? "" : $", \"d_in\": {D}")}}}");
        new SafetensorsWriter().Add("encoder.weight", [M, D], EncoderRows).Add("encoder.bias", [M], BEnc).Add("W_dec", [M, D], Values(M * D, 2)).Add("b_dec", [D], BDec).Save(_temp["layers.2/sae.safetensors"]);
        Assert.Contains(problem, Assert.Throws<InvalidFileException>(() => SaeFormats.Default.Load(_temp["layers.2"], _device)).Message, StringComparison.Ordinal);
    }

    /// <summary>dictionary_learning: AutoEncoder f = relu((x - bias) E^T + e), AutoEncoderNew f = relu(x E^T + e).</summary>
    [Theory]
    [InlineData("AutoEncoder", "bias", true)]
    [InlineData("AutoEncoderNew", "decoder.bias", false)]
    public void DictionaryLearning_standard(string kind, string bias, bool subtracts)
    {
        Dictionary(kind, "\"layer\": 3,", ("encoder.weight", [M, D], EncoderRows), ("encoder.bias", [M], BEnc), ("decoder.weight", [D, M], Decoder), (bias, [D], BDec));
        using var sae = SaeFormats.Default.Load(_temp["sae"], _device);
        Assert.Equal("standard", sae.Config.Architecture);
        Metadata(sae, "pythia-70m-deduped", "blocks.3.hook_resid_post", 128);
        var f = Relu(Plus(Times(subtracts ? Plus(Wide(X), BDec, -1) : Wide(X), Transposed(EncoderRows, M, D), D, M), BEnc));
        Check(sae, f, Plus(Times(f, Transposed(Decoder, D, M), M, D), BDec));
    }

    /// <summary>dictionary_learning: f = topk(relu((x - b_dec) E^T + e)).</summary>
    [Fact]
    public void DictionaryLearning_topk()
    {
        Dictionary("AutoEncoderTopK", "\"layer\": 3, \"submodule_name\": \"mlp_out_layer_3\",", ("encoder.weight", [M, D], EncoderRows), ("encoder.bias", [M], BEnc), ("decoder.weight", [D, M], Decoder), ("b_dec", [D], BDec),
            ("k", [], new[] { 3 }), ("threshold", [], new[] { -1f }));
        using var sae = SaeFormats.Default.Load(_temp["sae"], _device);
        Assert.Equal("blocks.3.hook_mlp_out", sae.Config.Metadata.Get<string>("hook_name"));
        var f = Largest(Relu(Plus(Times(Plus(Wide(X), BDec, -1), Transposed(EncoderRows, M, D), D, M), BEnc)), M, 3);
        Check(sae, f, Plus(Times(f, Transposed(Decoder, D, M), M, D), BDec));
    }

    /// <summary>dictionary_learning: f = a [a > threshold] with a = relu((x - b_dec) E + e) for BatchTopK and Matryoshka alike.</summary>
    [Theory]
    [InlineData("BatchTopKSAE", 0.6f)]
    [InlineData("MatryoshkaBatchTopKSAE", 0.6f)]
    [InlineData("BatchTopKSAE", -1f)]
    public void DictionaryLearning_batchtopk_fires_above_its_threshold(string kind, float threshold)
    {
        if (kind == "BatchTopKSAE")
        {
            Dictionary(kind, "\"k\": 3,", ("encoder.weight", [M, D], EncoderRows), ("encoder.bias", [M], BEnc), ("decoder.weight", [D, M], Decoder), ("b_dec", [D], BDec), ("k", [], new[] { 3 }), ("threshold", [], new[] { threshold }));
        }
        else
        {
            Dictionary(kind, "\"k\": 3,", ("W_enc", [D, M], Narrow(Transposed(EncoderRows, M, D))), ("b_enc", [M], BEnc), ("W_dec", [M, D], Narrow(Transposed(Decoder, D, M))), ("b_dec", [D], BDec),
                ("k", [], new[] { 3 }), ("threshold", [], new[] { threshold }), ("group_sizes", [2], new[] { 4L, 6 }));
        }

        var published = SaeFormats.Default.Describe(_temp["sae"]);
        Assert.Equal(3, published.PublishedL0);
        Assert.Equal(threshold < 0, published.Notes.Any(n => n.Contains("never set", StringComparison.Ordinal)));
        using var sae = SaeFormats.Load(published, _device);
        Assert.Equal("jumprelu", sae.Config.Architecture);
        double[] f = [.. Relu(Plus(Times(Plus(Wide(X), BDec, -1), Transposed(EncoderRows, M, D), D, M), BEnc)).Select(a => a > threshold ? a : 0)];
        Check(sae, f, Plus(Times(f, Transposed(Decoder, D, M), M, D), BDec));
    }

    /// <summary>dictionary_learning: f = relu(z [z > threshold]) |W_dec|, z = x W_enc + b_enc; decoding divides by the norms.</summary>
    [Fact]
    public void DictionaryLearning_jumprelu_is_in_units_of_unit_decoder_rows()
    {
        float[] threshold = Array.ConvertAll(Values(M, 6), v => MathF.Abs(v)), encoder = Narrow(Transposed(EncoderRows, M, D)), decoder = Values(M * D, 7);
        Dictionary("JumpReluAutoEncoder", "", ("W_enc", [D, M], encoder), ("b_enc", [M], BEnc), ("W_dec", [M, D], decoder), ("b_dec", [D], BDec), ("threshold", [M], threshold));
        using var sae = SaeFormats.Default.Load(_temp["sae"], _device);
        double[] a = [.. Plus(Times(Wide(X), Wide(encoder), D, M), BEnc).Select((z, i) => z > threshold[i % M] ? Math.Max(0, z) : 0)];
        Check(sae, [.. a.Select((v, i) => v * Norm(decoder, i % M))], Plus(Times(a, Wide(decoder), M, D), BDec));
    }

    /// <summary>dictionary_learning: pi = (x - decoder_bias) E^T; f = [pi + gate_bias > 0] relu(exp(r_mag) pi + mag_bias) |decoder column|.</summary>
    [Fact]
    public void DictionaryLearning_gated_is_in_units_of_unit_decoder_rows()
    {
        float[] gate = Values(M, 8, 0.4), mag = Values(M, 9, 0.4), r = Values(M, 10, 0.5);
        Dictionary("GatedAutoEncoder", "", ("decoder_bias", [D], BDec), ("r_mag", [M], r), ("gate_bias", [M], gate), ("mag_bias", [M], mag), ("encoder.weight", [M, D], EncoderRows), ("decoder.weight", [D, M], Decoder));
        using var sae = SaeFormats.Default.Load(_temp["sae"], _device);
        Assert.Equal("gated", sae.Config.Architecture);
        var rows = Narrow(Transposed(Decoder, D, M));
        double[] f = [.. Times(Plus(Wide(X), BDec, -1), Transposed(EncoderRows, M, D), D, M)
            .Select((pi, i) => pi + gate[i % M] > 0 ? Math.Max(0, (Math.Exp(r[i % M]) * pi) + mag[i % M]) : 0)];
        Check(sae, [.. f.Select((v, i) => v * Norm(rows, i % M))], Plus(Times(f, Wide(rows), M, D), BDec));
    }

    [Fact]
    public void DictionaryLearning_of_an_unknown_class_is_refused()
    {
        Dictionary("QuantumAutoEncoder", "", ("encoder.weight", [M, D], EncoderRows), ("encoder.bias", [M], BEnc), ("decoder.weight", [D, M], Decoder), ("bias", [D], BDec));
        Assert.Contains("dict_class is \"QuantumAutoEncoder\"; known: AutoEncoder,", Assert.Throws<InvalidFileException>(() => SaeFormats.Default.Load(_temp["sae"], _device)).Message, StringComparison.Ordinal);
    }

    /// <summary>OpenAI: x' = (x - mu) / (std + 1e-5); f = relu(topk((x' - pre_bias) E^T + latent_bias)); y = (f D^T + pre_bias) std + mu.</summary>
    [Theory]
    [InlineData("TopK")]
    [InlineData("ReLU")]
    public void OpenAi_normalises_with_TopK_alone(string activation)
    {
        var state = Tensors(("pre_bias", [D], BDec), ("encoder.weight", [M, D], EncoderRows), ("latent_bias", [M], BEnc), ("stats_last_nonzero", [M], new long[M]),
            ("latents_activation_frequency", [M], Array.ConvertAll(Values(M, 11), MathF.Abs)), ("latents_mean_square", [M], new float[M]));
        // nn.Linear's weight made from a transpose keeps its strides.
        state["decoder.weight"] = new TorchTensor(Narrow(Transposed(Decoder, D, M)), [D, M], [1, D]);
        state["activation"] = activation;
        state["activation_state_dict"] = activation == "TopK" ? new Dictionary<string, object?> { ["k"] = 3, ["postact_fn"] = "ReLU" } : new Dictionary<string, object?>();
        _temp.Folder("resid_post_mlp_v5_32k/autoencoders");
        var path = _temp.Write("resid_post_mlp_v5_32k/autoencoders/8.pt", PyTorchFiles.Zip(state));
        var published = SaeFormats.Default.Describe(path);
        Assert.Equal("openai", published.Format);
        Assert.Equal(MathF.Log10(MathF.Abs(Values(M, 11)[4]) + 1e-10f), published.ReadLogSparsity!()![4]);
        using var sae = SaeFormats.Load(published, _device);
        Metadata(sae, "gpt2-small", "blocks.8.hook_resid_post", 64);
        Assert.False(sae.Config.Metadata.Get<bool>("prepend_bos", true));
        double[] mu = new double[N], std = new double[N], x = Wide(X);
        if (activation == "TopK")
        {
            for (var i = 0; i < N; i++)
            {
                var row = x.AsSpan(i * D, D);
                foreach (var v in row) mu[i] += v / D;
                foreach (var v in row) std[i] += (v - mu[i]) * (v - mu[i]) / (D - 1);
                std[i] = Math.Sqrt(std[i]);
                foreach (ref var v in row) v = (v - mu[i]) / (std[i] + 1e-5);
            }
        }

        var f = Relu(Plus(Times(Plus(x, BDec, -1), Transposed(EncoderRows, M, D), D, M), BEnc));
        if (activation == "TopK") f = Largest(f, M, 3);
        var y = Plus(Times(f, Transposed(Decoder, D, M), M, D), BDec);
        if (activation == "TopK") y = [.. y.Select((v, i) => (v * std[i / D]) + mu[i / D])];
        Check(sae, f, y);
    }

    /// <summary>Gemma Scope: f = relu(z) [z > threshold], z = x w_enc + b_enc; y = f w_dec + b_dec.</summary>
    [Theory]
    [InlineData("gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71", "blocks.20.hook_resid_post", "gemma-2-2b")]
    [InlineData("gemma-scope-9b-it-mlp/layer_3/width_131k/average_l0_9", "blocks.3.hook_mlp_out", "gemma-2-9b-it")]
    [InlineData("gemma-scope-27b-pt-att/layer_0/width_1m/average_l0_100", "blocks.0.attn.hook_z", "gemma-2-27b")]
    [InlineData("gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", "hook_embed", "gemma-2-2b")]
    [InlineData("gemma-scope-2b-pt-transcoders/layer_7/width_16k/average_l0_40", "blocks.7.ln2.hook_normalized", "gemma-2-2b")]
    public void GemmaScope(string folder, string hook, string model)
    {
        float[] encoder = Narrow(Transposed(EncoderRows, M, D)), decoder = Values(M * D, 7), threshold = Array.ConvertAll(Values(M, 6), MathF.Abs);
        _temp.Folder(folder);
        _temp.Write(folder + "/params.npz", NumpyFiles.Npz(
        [
            new("w_enc", NumpyFiles.Npy(new TorchTensor(encoder, [D, M]))), new("b_enc", NumpyFiles.Npy(new TorchTensor(BEnc, [M]))),
            new("w_dec", NumpyFiles.Npy(new TorchTensor(decoder, [M, D]))), new("b_dec", NumpyFiles.Npy(new TorchTensor(BDec, [D]))),
            new("threshold", NumpyFiles.Npy(new TorchTensor(threshold, [M]))),
        ]));
        var published = SaeFormats.Default.Describe(_temp[folder]);
        Assert.Equal("gemma_scope", published.Format);
        Assert.Equal(double.Parse(folder[(folder.LastIndexOf('_') + 1)..], System.Globalization.CultureInfo.InvariantCulture), published.PublishedL0);
        using var sae = SaeFormats.Load(published, _device);
        Metadata(sae, model, hook, 1024);
        var transcoder = folder.Contains("transcoder", StringComparison.Ordinal);
        Assert.Equal(transcoder ? "jumprelu_transcoder" : "jumprelu", sae.Config.Architecture);
        Assert.Equal(hook.EndsWith("hook_z", StringComparison.Ordinal), sae.Config.ReshapeActivations == ReshapeActivations.HookZ);
        var root = hook == "hook_embed" ? Math.Sqrt(D) : 1;
        double[] f = [.. Plus(Times([.. X.Select(v => v / root)], Wide(encoder), D, M), BEnc).Select((z, i) => z > threshold[i % M] ? Math.Max(0, z) : 0)];
        Check(sae, f, Plus([.. Times(f, Wide(decoder), M, D).Select(v => v * root)], BDec));
        // The same folder without its name: what it says is taken from where it was published.
        Directory.CreateDirectory(_temp["cache"]);
        File.Copy(_temp[folder + "/params.npz"], _temp["cache/params.npz"]);
        Assert.Null(SaeFormats.Default.Describe(_temp["cache/params.npz"]).Config["metadata"]!["hook_name"]);
        Assert.Equal(hook, SaeFormats.Default.Describe(_temp["cache"], new SaeHints { PublishedAs = "google/" + folder }).Config["metadata"]!["hook_name"]!.ToString());
    }

    /// <summary>Gemma Scope 2: as Gemma Scope, + x affine_skip_connection, which is [d_in, d_out].</summary>
    [Theory]
    [InlineData("model.layers.17.output", "model.layers.17.output", false, "blocks.17.hook_resid_post")]
    [InlineData("model.layers.5.pre_feedforward_layernorm.output", "model.layers.5.post_feedforward_layernorm.output", true, "blocks.5.mlp.hook_in")]
    [InlineData("model.layers.5.pre_feedforward_layernorm.output", "model.layers.5.post_feedforward_layernorm.output", false, "blocks.5.mlp.hook_in")]
    [InlineData("model.layers.3.self_attn.o_proj.input", "model.layers.3.self_attn.o_proj.input", false, "blocks.3.attn.hook_z")]
    public void GemmaScope2(string point, string pointOut, bool affine, string hook)
    {
        float[] encoder = Narrow(Transposed(EncoderRows, M, D)), decoder = Values(M * D, 7), threshold = Array.ConvertAll(Values(M, 6), MathF.Abs), skip = Values(D * D, 12);
        _temp.Folder("x");
        _temp.Write("x/config.json", $$"""{"hf_hook_point_in": "{{point}}", "hf_hook_point_out": "{{pointOut}}", "width": {{M}}, "model_name": "google/gemma-v3-1b-pt", "architecture": "jump_relu", "l0": 20, "affine_connection": {{(affine ? "true" : "false")}}, "type": "sae"}""");
        var writer = new SafetensorsWriter().Add("w_enc", [D, M], encoder).Add("w_dec", [M, D], decoder).Add("b_enc", [M], BEnc).Add("b_dec", [D], BDec).Add("threshold", [M], threshold);
        if (affine) writer.Add("affine_skip_connection", [D, D], skip);
        writer.Save(_temp["x/params.safetensors"]);
        var published = SaeFormats.Default.Describe(_temp["x"]);
        Assert.Equal(20, published.PublishedL0);
        using var sae = SaeFormats.Load(published, _device);
        Metadata(sae, "google/gemma-3-1b-pt", hook, 1024);
        Assert.Equal(affine ? "jumprelu_skip_transcoder" : point != pointOut ? "jumprelu_transcoder" : "jumprelu", sae.Config.Architecture);
        double[] f = [.. Plus(Times(Wide(X), Wide(encoder), D, M), BEnc).Select((z, i) => z > threshold[i % M] ? Math.Max(0, z) : 0)];
        var y = Plus(Times(f, Wide(decoder), M, D), BDec);
        if (affine) y = [.. y.Zip(Times(Wide(X), Wide(skip), D, D), (a, b) => a + b)];
        Check(sae, f, y);
    }

    /// <summary>Llama Scope: z = s x E^T + e; f = z [z > threshold]; y = (f D^T + b) / s, with s = sqrt(d) / norm.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void LlamaScope_folds_the_scale_and_leaves_the_threshold(bool byNorm)
    {
        const double theta = 0.4, norm = 3.1;
        _temp.Folder("L7R/checkpoints");
        _temp.Write("L7R/hyperparams.json", $$"""{"d_model": {{D}}, "d_sae": {{M}}, "hook_point_in": "blocks.7.hook_resid_post", "hook_point_out": "blocks.7.hook_resid_post", "act_fn": "jumprelu", "jump_relu_threshold": {{theta}}, "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": {{(byNorm ? "true" : "false")}}, "apply_decoder_bias_to_pre_encoder": false, "dataset_average_activation_norm": {"in": {{norm}}, "out": {{norm}} } }""");
        new SafetensorsWriter().Add("encoder.weight", [M, D], EncoderRows).Add("encoder.bias", [M], BEnc).Add("decoder.weight", [D, M], Decoder).Add("decoder.bias", [D], BDec).Save(_temp["L7R/checkpoints/final.safetensors"]);
        using var sae = SaeFormats.Default.Load(_temp["L7R"], _device);
        Metadata(sae, "meta-llama/Llama-3.1-8B", "blocks.7.hook_resid_post", 1024);
        Assert.Equal(NormalizeActivations.None, sae.Config.NormalizeActivations);
        var s = Math.Sqrt(D) / norm;
        var rows = Narrow(Transposed(Decoder, D, M));
        double[] f = [.. Plus(Times([.. X.Select(v => s * v)], Transposed(EncoderRows, M, D), D, M), BEnc).Select((z, i) => z * (byNorm ? Norm(rows, i % M) : 1) > theta ? Math.Max(0, z) : 0)];
        Check(sae, f, [.. Plus(Times(f, Transposed(Decoder, D, M), M, D), BDec).Select(v => v / s)]);
    }

    /// <summary>R1 distillation: the threshold is exp(log_jumprelu_threshold); the scale is stated by the release.</summary>
    [Fact]
    public void LlamaScopeR1_takes_the_scale_from_the_release()
    {
        var log = Values(M, 13);
        _temp.Folder("L7R");
        _temp.Write("L7R/config.json", $$"""{"d_model": {{D}}, "expansion_factor": 2, "hook_point_in": "blocks.7.hook_resid_post", "act_fn": "jumprelu"}""");
        const int m = 2 * D;
        float[] encoder = Values(m * D, 1), decoder = Values(D * m, 2), bias = Values(m, 3, 0.3), threshold = Values(m, 13, 0.5);
        new SafetensorsWriter().Add("encoder.weight", [m, D], encoder).Add("encoder.bias", [m], bias).Add("decoder.weight", [D, m], decoder).Add("decoder.bias", [D], BDec).Add("log_jumprelu_threshold", [m], threshold)
            .Save(_temp["L7R/sae_weights.safetensors"]);
        Assert.Contains("norm_scaling_factor", Assert.Single(SaeFormats.Default.Describe(_temp["L7R"]).Notes), StringComparison.Ordinal);
        using var sae = SaeFormats.Default.Load(_temp["L7R"], _device, new SaeHints { NormScalingFactor = 0.5 });
        double[] f = [.. Plus(Times([.. X.Select(v => 0.5 * v)], Transposed(encoder, m, D), D, m), bias).Select((z, i) => z > Math.Exp(threshold[i % m]) ? z : 0)];
        Check(sae, f, [.. Plus(Times(f, Transposed(decoder, D, m), m, D), BDec).Select(v => v / 0.5)]);
    }

    /// <summary>Kissane and Krzyzanowski: a standard SAE on merged heads, from a state dictionary.</summary>
    [Fact]
    public void HookZPickle()
    {
        float[] encoder = Narrow(Transposed(EncoderRows, M, D)), decoder = Values(M * D, 7);
        _temp.Write("gpt2-small_L5_Hcat_z.pt", PyTorchFiles.Zip(Tensors(("W_enc", [D, M], encoder), ("W_dec", [M, D], decoder), ("b_enc", [M], BEnc), ("b_dec", [D], BDec))));
        _temp.Write("gpt2-small_L5_Hcat_z_cfg.json", $$"""{"seed": 49, "act_name": "blocks.5.attn.hook_z", "act_size": {{D}}, "dict_size": {{M}}, "enc_dtype": "fp32"}""");
        using var sae = SaeFormats.Default.Load(_temp["gpt2-small_L5_Hcat_z.pt"], _device);
        Metadata(sae, "gpt2-small", "blocks.5.attn.hook_z", 128);
        var f = Relu(Plus(Times(Plus(Wide(X), BDec, -1), Wide(encoder), D, M), BEnc));
        Check(sae, f, Plus(Times(f, Wide(decoder), M, D), BDec));
    }

    /// <summary>DeepSeek-R1's distillation and Goodfire's: f = relu(x E^T + e), y = f D^T + d.</summary>
    [Theory]
    [InlineData("DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt", "", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", 19)]
    [InlineData("Llama-3.3-70B-Instruct-SAE-l50.pt", "_linear", "meta-llama/Llama-3.3-70B-Instruct", 50)]
    public void LinearPickle(string name, string suffix, string model, int layer)
    {
        var bf16 = Array.ConvertAll(EncoderRows, v => (ushort)(BitConverter.SingleToUInt32Bits(v) >> 16));
        var rounded = Array.ConvertAll(bf16, b => BitConverter.UInt32BitsToSingle((uint)b << 16));
        _temp.Write(name, PyTorchFiles.Legacy(Tensors(($"encoder{suffix}.weight", [M, D], bf16), ($"encoder{suffix}.bias", [M], BEnc), ($"decoder{suffix}.weight", [D, M], Decoder), ($"decoder{suffix}.bias", [D], BDec))));
        using var sae = SaeFormats.Default.Load(_temp[name], _device);
        Metadata(sae, model, $"blocks.{layer}.hook_resid_post", 1024);
        Assert.Equal("bfloat16", sae.Config.Dtype);
        var f = Relu(Plus(Times(Wide(X), Transposed(rounded, M, D), D, M), BEnc));
        Check(sae, f, Plus(Times(f, Transposed(Decoder, D, M), M, D), BDec));
    }

    /// <summary>mwhanna: f = relu(x W_enc^T + b_enc), y = f W_dec + b_dec.</summary>
    [Theory]
    [InlineData("wandb-config.yaml")]
    [InlineData("wanb-config.yaml")]
    public void MwHannaTranscoder(string settings)
    {
        var decoder = Values(M * D, 7);
        _temp.Folder("qwen3-0.6b-transcoders");
        _temp.Write("qwen3-0.6b-transcoders/" + settings, $"_wandb:\n  value: {{}}\nbatch_size:\n  desc: null\n  value: 4096\nd_model:\n  value: {D}\nd_feature:\n  value: {M}\n");
        if (settings == "wandb-config.yaml") _temp.Write("qwen3-0.6b-transcoders/config.yaml", "model_name: Qwen/Qwen3-0.6B\nmodel_kind: transcoder_set\n");
        new SafetensorsWriter().Add("W_enc", [M, D], EncoderRows).Add("b_enc", [M], BEnc).Add("W_dec", [M, D], decoder).Add("b_dec", [D], BDec).Save(_temp["qwen3-0.6b-transcoders/layer_4.safetensors"]);
        using var sae = SaeFormats.Default.Load(_temp["qwen3-0.6b-transcoders/layer_4.safetensors"], _device);
        Assert.Equal("transcoder", sae.Config.Architecture);
        Assert.Equal("Qwen/Qwen3-0.6B", sae.Config.Metadata.Get<string>("model_name")!.Replace("0.6b", "0.6B", StringComparison.Ordinal));
        Assert.Equal("blocks.4.hook_mlp_out", sae.Config.Metadata.Get<string>("hook_name_out"));
        var f = Relu(Plus(Times(Wide(X), Transposed(EncoderRows, M, D), D, M), BEnc));
        Check(sae, f, Plus(Times(f, Wide(decoder), M, D), BDec));
    }

    /// <summary>mntss: one layer of a CLT, f = relu(x W_enc^T + b_enc), decoder rows summed over the layers written to.</summary>
    [Fact]
    public void CltLayer()
    {
        const int targets = 3;
        var decoder = Values(M * targets * D, 7);
        _temp.Write("config.yaml", "model_name: meta-llama/Llama-3.2-1B\nfeature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n");
        new SafetensorsWriter().Add("W_enc_9", [M, D], EncoderRows).Add("b_enc_9", [M], BEnc).Add("b_dec_9", [D], BDec).Save(_temp["W_enc_9.safetensors"]);
        new SafetensorsWriter().Add("W_dec_9", [M, targets, D], decoder).Save(_temp["W_dec_9.safetensors"]);
        var published = SaeFormats.Default.Describe(_temp["W_enc_9.safetensors"]);
        Assert.Contains("a reconstruction needs all layers", Assert.Single(published.Notes), StringComparison.Ordinal);
        using var sae = SaeFormats.Load(published, _device);
        Metadata(sae, "meta-llama/Llama-3.2-1B", "blocks.9.hook_resid_mid", null);
        var summed = new double[M * D];
        for (var i = 0; i < decoder.Length; i++) summed[(i / (targets * D) * D) + (i % D)] += decoder[i];
        var f = Relu(Plus(Times(Wide(X), Transposed(EncoderRows, M, D), D, M), BEnc));
        Check(sae, f, Plus(Times(f, summed, M, D), BDec));
    }

    /// <summary>SAELens before 1.0: a pickle of a settings object and a state dictionary, gzipped or in torch.save's archive.</summary>
    [Theory]
    [InlineData("sae.pt")]
    [InlineData("sae.pkl.gz")]
    public void SaeLensPickle(string name)
    {
        float[] encoder = Narrow(Transposed(EncoderRows, M, D)), decoder = Values(M * D, 7);
        var cfg = new TorchObject("sae_training.config", "LanguageModelSAERunnerConfig", new()
        {
            ["model_name"] = "gpt2-small",
            ["hook_point"] = "blocks.{layer}.hook_resid_pre",
            ["hook_point_layer"] = 8,
            ["hook_point_head_index"] = null,
            ["dataset_path"] = "Skylion007/openwebtext",
            ["context_size"] = 128,
            ["d_in"] = D,
            ["expansion_factor"] = 2,
            ["l1_coefficient"] = 8e-5,
            ["dtype"] = new TorchGlobal("torch", "float32"),
            ["device"] = "cuda",
            ["use_ghost_grads"] = true,
        });
        var value = new Dictionary<string, object?> { ["cfg"] = cfg, ["state_dict"] = Tensors(("W_enc", [D, M], encoder), ("b_enc", [M], BEnc), ("W_dec", [M, D], decoder), ("b_dec", [D], BDec)) };
        byte[] bytes;
        if (name.EndsWith(".gz", StringComparison.Ordinal))
        {
            var packed = new MemoryStream();
            using (var gzip = new System.IO.Compression.GZipStream(packed, System.IO.Compression.CompressionLevel.Fastest, leaveOpen: true)) gzip.Write(PyTorchFiles.Plain(value));
            bytes = packed.ToArray();
        }
        else
        {
            var pickle = new PickleText().Value(value);
            bytes = PyTorchFiles.ZipOf(pickle.End(), pickle.Storages);
        }

        var published = SaeFormats.Default.Describe(_temp.Write(name, bytes));
        Assert.Equal("saelens_pickle", published.Format);
        using var sae = SaeFormats.Load(published, _device);
        Metadata(sae, "gpt2-small", "blocks.8.hook_resid_pre", 128);
        var f = Relu(Plus(Times(Plus(Wide(X), BDec, -1), Wide(encoder), D, M), BEnc));
        Check(sae, f, Plus(Times(f, Wide(decoder), M, D), BDec));
    }

    [Fact]
    public void SaeLens_folds_a_scale_that_the_release_states_and_overrides_reach_the_metadata()
    {
        float[] encoder = Narrow(Transposed(EncoderRows, M, D)), decoder = Values(M * D, 7);
        _temp.Folder("sae");
        _temp.Write("sae/cfg.json", $$"""{"d_in": {{D}}, "d_sae": {{M}}, "dtype": "bfloat16", "normalize_activations": "expected_average_only_in", "apply_b_dec_to_input": true, "metadata": {"sae_lens_version": "6.18.0", "hook_name": "blocks.1.hook_resid_pre"}, "architecture": "standard"}""");
        new SafetensorsWriter().Add("W_enc", [D, M], encoder).Add("b_enc", [M], BEnc).Add("W_dec", [M, D], decoder).Add("b_dec", [D], BDec).Save(_temp["sae/sae_weights.safetensors"]);
        Assert.Contains("no such factor is known", Assert.Single(SaeFormats.Default.Describe(_temp["sae"]).Notes), StringComparison.Ordinal);
        using var sae = SaeFormats.Default.Load(_temp["sae"], _device, new SaeHints { NormScalingFactor = 12, Overrides = new JsonObject { ["neuronpedia_id"] = "gpt2-small/1-res", ["apply_b_dec_to_input"] = false } });
        Assert.Equal("gpt2-small/1-res", sae.Config.Metadata.Get<string>("neuronpedia_id"));
        Assert.Equal("float32", sae.Config.Dtype);
        var f = Relu(Plus(Times([.. X.Select(v => 12.0 * v)], Wide(encoder), D, M), BEnc));
        Check(sae, f, [.. Plus(Times(f, Wide(decoder), M, D), BDec).Select(v => v / 12)]);
    }

    [Fact]
    public void What_is_no_SAE_is_named()
    {
        string Message(string path) => Assert.Throws<InvalidFileException>(() => SaeFormats.Default.Describe(path)).Message;
        Assert.EndsWith("no such file or folder", Message(_temp["none"]), StringComparison.Ordinal);
        _temp.Folder("empty");
        Assert.Contains("holds no SAE of a known format; known: clt_layer, connor_rob_hook_z, dictionary_learning, gemma_scope,", Message(_temp["empty"]), StringComparison.Ordinal);
        Assert.Contains("holds no SAE", Message(_temp.Write("x.pt", PyTorchFiles.Zip(Tensors(("weight", [1], new float[1]))))), StringComparison.Ordinal);
        // A file that would run code says so, whatever format it might have been.
        Assert.Contains("asks for os.system", Message(_temp.Write("evil.pt", new PickleText().Global("os", "system").Op('(').Text("ls").Op('t').Op('R').End())), StringComparison.Ordinal);
        Assert.Contains("format \"sealens\" is not known", Assert.Throws<InvalidInputException>(() => SaeFormats.Default.Describe(_temp["empty"], format: "sealens")).Message, StringComparison.Ordinal);
    }

    private static Dictionary<string, object?> Tensors(params (string Name, long[] Shape, Array Values)[] tensors) =>
        tensors.ToDictionary(t => t.Name, t => (object?)new TorchTensor(t.Values, t.Shape));

    private static float[] Narrow(double[] values) => Array.ConvertAll(values, v => (float)v);

    private static double Norm(float[] rows, int j) => Math.Sqrt(rows.Skip(j * D).Take(D).Sum(v => (double)v * v));

    private static void Metadata(Sae sae, string model, string hook, int? context)
    {
        Assert.Equal(model, sae.Config.Metadata.Get<string>("model_name"));
        Assert.Equal(hook, sae.Config.Metadata.Get<string>("hook_name"));
        if (context is { } c) Assert.Equal(c, sae.Config.Metadata.Get<int>("context_size"));
    }

    private void Dictionary(string kind, string trainer, params (string Name, long[] Shape, Array Values)[] tensors)
    {
        _temp.Folder("sae");
        _temp.Write("sae/ae.pt", PyTorchFiles.Zip(Tensors(tensors)));
        _temp.Write("sae/config.json", $$"""{"trainer": {"dict_class": "{{kind}}", "trainer_class": "T", "activation_dim": {{D}}, "dict_size": {{M}}, {{trainer}} "lm_name": "EleutherAI/pythia-70m-deduped"}, "buffer": {"ctx_len": 128, "d_submodule": {{D}} } }""");
    }
}
