using System.Text.Json.Nodes;
using IlgpuSae.Hub;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Saes.Pretrained;
using IlgpuSae.Tensors;
using Xunit;

namespace IlgpuSae.Tests.Hub;

/// <summary>The directory of published SAEs, and loading from it.</summary>
public sealed class PretrainedTests : IDisposable
{
    private readonly TempFolder _temp = new();
    private readonly HubServer _server = new();
    private readonly CpuDevice _device = new(1);

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    public void Dispose()
    {
        _device.Dispose();
        _server.Dispose();
        _temp.Dispose();
    }

    /// <summary>Ids, paths and numbers as SAELens' pretrained_saes.yaml has them.</summary>
    [Theory]
    [InlineData("gpt2-small-res-jb", "blocks.8.hook_resid_pre", "jbloom/GPT2-Small-SAEs-Reformatted", "blocks.8.hook_resid_pre", 60.0, "gpt2-small/8-res-jb")]
    [InlineData("gpt2-small-res-jb", "blocks.11.hook_resid_post", "jbloom/GPT2-Small-SAEs-Reformatted", "blocks.11.hook_resid_post", 70.0, "gpt2-small/12-res-jb")]
    [InlineData("gpt2-small-hook-z-kk", "blocks.5.hook_z", "ckkissane/attn-saes-gpt2-small-all-layers", "gpt2-small_L5_Hcat_z_lr1.20e-03_l11.00e+00_ds49152_bs4096_dc1.00e-06_rsanthropic_rie25000_nr4_v9.pt", 17.0, "gpt2-small/5-att-kk")]
    [InlineData("gpt2-small-mlp-tm", "blocks.11.hook_mlp_out", "tommmcgrath/gpt2-small-mlp-out-saes", "sae_group_gpt2_blocks.11.hook_mlp_out_24576:v2", 170.0, null)]
    [InlineData("gpt2-small-resid-post-v5-32k", "blocks.8.hook_resid_post", "jbloom/GPT2-Small-OAI-v5-32k-resid-post-SAEs", "v5_32k_layer_8.pt", 32.0, "gpt2-small/8-res_post_32k-oai")]
    [InlineData("gpt2-small-resid-mid-v5-128k", "blocks.3.hook_resid_mid", "jbloom/GPT2-Small-OAI-v5-128k-resid-mid-SAEs", "v5_128k_layer_3", null, "gpt2-small/3-res_mid_128k-oai")]
    [InlineData("gemma-2b-res-jb", "blocks.6.hook_resid_post", "jbloom/Gemma-2b-Residual-Stream-SAEs", "gemma_2b_blocks.6.hook_resid_post_16384_anthropic_fast_lr", 56.0, "gemma-2b/6-res-jb")]
    [InlineData("gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71", "google/gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71", 71.0, null)]
    [InlineData("gemma-scope-2b-pt-att-canonical", "layer_6/width_16k/canonical", "google/gemma-scope-2b-pt-att", "layer_6/width_16k/average_l0_61", 61.0, "gemma-2-2b/6-gemmascope-att-16k")]
    [InlineData("gemma-scope-2b-pt-att-canonical", "layer_16/width_65k/canonical", "google/gemma-scope-2b-pt-att", "layer_16/width_65k/average_l0_129", 129.0, "gemma-2-2b/16-gemmascope-att-65k")]
    [InlineData("gemma-scope-2b-pt-mlp-canonical", "layer_24/width_16k/canonical", "google/gemma-scope-2b-pt-mlp", "layer_24/width_16k/average_l0_73", 73.0, "gemma-2-2b/24-gemmascope-mlp-16k")]
    [InlineData("gemma-scope-27b-pt-res-canonical", "layer_34/width_131k/canonical", "google/gemma-scope-27b-pt-res", "layer_34/width_131k/average_l0_72", 72.0, "gemma-2-27b/34-gemmascope-res-131k")]
    [InlineData("gemma-scope-9b-pt-res-canonical", "layer_20/width_524k/canonical", "google/gemma-scope-9b-pt-res", "layer_20/width_524k/average_l0_48", 48.0, "gemma-2-9b/20-gemmascope-res-524k")]
    [InlineData("gemma-scope-9b-pt-mlp", "layer_20/width_16k/average_l0_56", "google/gemma-scope-9b-pt-mlp", "layer_20/width_16k/average_l0_56", 56.0, null)]
    [InlineData("llama_scope_lxm_8x", "l15m_8x", "fnlp/Llama3_1-8B-Base-LXM-8x", "Llama3_1-8B-Base-L15M-8x", 50.0, "llama3.1-8b/15-llamascope-mlp-32k")]
    [InlineData("pythia-70m-deduped-res-sm", "blocks.0.hook_resid_pre", "ctigges/pythia-70m-deduped__res-sm_processed", "e-res-sm", null, "pythia-70m-deduped/e-res-sm")]
    [InlineData("pythia-70m-deduped-att-sm", "blocks.5.hook_attn_out", "ctigges/pythia-70m-deduped__att-sm_processed", "5-att-sm", null, "pythia-70m-deduped/5-att-sm")]
    [InlineData("sae_bench_pythia70m_sweep_topk_ctx128_0730", "blocks.4.hook_resid_post__trainer_8", "canrager/lm_sae", "pythia70m_sweep_topk_ctx128_0730/resid_post_layer_4/trainer_8", null, null)]
    [InlineData("gemma-2-2b-res-matryoshka-dc", "blocks.12.hook_resid_post", "chanind/gemma-2-2b-batch-topk-matryoshka-saes-w-32k-l0-40", "standard/blocks.12.hook_resid_post", 40.0, "gemma-2-2b/12-res-matryoshka-dc")]
    public void The_directory_is_SAELens(string release, string id, string repository, string path, double? l0, string? neuronpedia)
    {
        var sae = PretrainedSaes.Default.Find(release, id);
        Assert.Equal((repository, path, l0, neuronpedia), (sae.Repository.Id, sae.Path, sae.L0, sae.NeuronpediaId));
        Assert.Equal((release, id), (PretrainedSaes.Default.Parse($"{release}/{id}").Release, PretrainedSaes.Default.Parse($"{release}/{id}").Id));
    }

    [Fact]
    public void Every_entry_is_usable_and_named_once()
    {
        foreach (var release in PretrainedSaes.Default.Releases)
        {
            Assert.True(release.Saes.Count > 0 || release.OpenIds is not null, release.Name);
            Assert.Equal(release.Saes.Count, release.Saes.Select(s => s.Id).Distinct(StringComparer.Ordinal).Count());
            foreach (var s in release.Saes)
            {
                Assert.DoesNotContain('{', s.Id + s.Path + s.NeuronpediaId + s.HookName);
                Assert.NotEmpty(s.Path);
                Assert.NotNull(s.HookName);
            }
        }

        Assert.Equal(0.21381938399317255, PretrainedSaes.Default.Find("gemma-2b-res-jb", "blocks.12.hook_resid_post").NormScalingFactor);
        Assert.Equal("blocks.5.attn.hook_z", PretrainedSaes.Default.Find("gpt2-small-hook-z-kk", "blocks.5.hook_z").HookName);
    }

    [Fact]
    public void What_is_not_known_is_answered_with_what_is_near()
    {
        static string Of(string text) => Assert.ThrowsAny<InvalidInputException>(() => SaeReference.Parse(text)).Message;

        Assert.Contains("gpt2-small-res-jb", Of("gpt2-small-res-jp"), StringComparison.Ordinal);
        var unknown = Of("gpt2-small-res-jb/blocks.8.hook_resid_prr");
        Assert.Contains("\"blocks.8.hook_resid_pre\"", unknown, StringComparison.Ordinal);
        Assert.Equal(5, unknown.Split('"').Count(w => w.StartsWith("blocks.", StringComparison.Ordinal) && w != "blocks.8.hook_resid_prr"));
        Assert.Contains("release gemma-scope-2b-pt-res-canonical", Of("gemma-scope-2b-pt-res/layer_20/width_16k/canonical"), StringComparison.Ordinal);
        Assert.Contains("gemma-scope-2b-pt-res-canonical", Of("gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_70"), StringComparison.Ordinal);
        Assert.Contains("average_l0_{l0}", Of("gemma-scope-9b-pt-att/layer_1"), StringComparison.Ordinal);
        Assert.Contains("is a release", Of("gpt2-small-res-jb"), StringComparison.Ordinal);
        Assert.Throws<HubException>(() => SaeReference.Parse("org/name/../../x"));
        Assert.Equal(("org/name", "v2", "a/b"), (SaeReference.Parse("org/name@v2/a/b").Published!.Repository.Id, SaeReference.Parse("org/name@v2/a/b").Published!.Repository.Revision, SaeReference.Parse("org/name@v2/a/b").Published!.Path));
    }

    [Fact]
    public void A_release_is_fetched_overridden_and_folded()
    {
        // gpt2-small-mlp-tm: the scale of training is in the directory; gpt2-small-res-jb: metadata are.
        Write("tm", NormalizeActivations.ExpectedAverageOnlyIn);
        Write("jb", NormalizeActivations.None);
        _server.Add(new ServedRepo("tommmcgrath/gpt2-small-mlp-out-saes")).CommitFolder(_temp["tm"], "sae_group_gpt2_blocks.1.hook_mlp_out_24576:v0");
        _server.Add(new ServedRepo("jbloom/GPT2-Small-SAEs-Reformatted")).CommitFolder(_temp["jb"], "blocks.8.hook_resid_pre");
        using var hub = new HubClient(_server.Options(_temp["hub"]));
        using var stored = SaeLensFolder.Load(_temp["tm"], _device);
        using var folded = Sae.FromPretrained("gpt2-small-mlp-tm", "blocks.1.hook_mlp_out", _device, hub);
        stored.FoldActivationScale(2.3693984005104283);
        Assert.Equal(stored.WDec.ToArray<float>(), folded.WDec.ToArray<float>());
        Assert.Equal(NormalizeActivations.None, folded.Config.NormalizeActivations);
        Assert.Equal("Skylion007/openwebtext", folded.Config.Metadata.Get<string>("dataset_path"));
        using var jb = Sae.FromPretrained("gpt2-small-res-jb", "blocks.8.hook_resid_pre", _device, hub);
        Assert.Equal("gpt2-small/8-res-jb", jb.Config.Metadata.Get<string>("neuronpedia_id"));
        Assert.True(jb.Config.Metadata["model_from_pretrained_kwargs"]!["center_writing_weights"]!.GetValue<bool>());
        var asked = _server.Requests.Count;
        using (Sae.FromPretrained("gpt2-small-res-jb", "blocks.8.hook_resid_pre", _device, hub)) Assert.Equal(asked, _server.Requests.Count);
        Assert.Contains("no such file", Assert.Throws<HubException>(() => Sae.FromPretrained("gpt2-small-res-jb", "blocks.7.hook_resid_pre", _device, hub)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_uploaded_SAE_comes_back_by_repository_and_folder()
    {
        Write("mine", NormalizeActivations.None);
        using var hub = new HubClient(_server.Options(_temp["hub"], HubServer.Token));
        File.WriteAllText(Path.Combine(_temp["mine"], "private-notes.txt"), "not for others");
        SaeUpload.Run(hub, new HubRepo("tester/saes"), [new("blocks.0.hook_x", _temp["mine"])], cancellation: Stop);
        var served = _server.Repo("tester/saes");
        Assert.Equal([".gitattributes", "README.md", "blocks.0.hook_x/cfg.json", "blocks.0.hook_x/sae_weights.safetensors"], served.Files(served.Branches["main"]).Keys);
        Assert.Equal("""
            ---
            library_name: saelens
            ---

            # SAEs for use with the SAELens library

            This repository contains the following SAEs:
            - blocks.0.hook_x

            Load these SAEs using SAELens as below:
            ```python
            from sae_lens import SAE

            sae = SAE.from_pretrained("tester/saes", "<sae_id>")
            ```
            """.ReplaceLineEndings("\n"), System.Text.Encoding.UTF8.GetString(served.Files(served.Branches["main"])["README.md"]));
        // A card that is there stays.
        served.Commit(("README.md", "mine"u8.ToArray()));
        SaeUpload.Run(hub, new HubRepo("tester/saes"), [new("second", _temp["mine"])], cancellation: Stop);
        Assert.Equal("mine", System.Text.Encoding.UTF8.GetString(served.Files(served.Branches["main"])["README.md"]));
        using var local = SaeLensFolder.Load(_temp["mine"], _device);
        using var back = Sae.FromPretrained("tester/saes", "second", _device, hub);
        Assert.Equal(local.WDec.ToArray<float>(), back.WDec.ToArray<float>());
        Assert.Contains("cfg.json", Assert.Throws<InvalidFileException>(() => SaeUpload.Run(hub, new HubRepo("tester/saes"), [new("x", _temp.Path)], cancellation: Stop)).Message, StringComparison.Ordinal);
        Assert.Throws<InvalidInputException>(() => SaeUpload.Run(hub, new HubRepo("tester/saes"), [], cancellation: Stop));
    }

    private void Write(string name, NormalizeActivations normalize)
    {
        using var sae = SaeRegistry.Default.CreateForTraining(new StandardTrainingConfig
        {
            DIn = 16,
            DSae = 40,
            NormalizeActivations = normalize,
            Metadata = new SaeMetadata().With("hook_name", JsonValue.Create("blocks.0.hook_x")),
        }, _device, seed: 3);
        using var inference = sae.ToInference();
        SaeLensFolder.Save(_temp[name], inference);
    }
}
