using System.Text.Json.Nodes;
using IlgpuSae.Runs;
using IlgpuSae.Saes;
using IlgpuSae.Training;
using Xunit;

namespace IlgpuSae.Tests.Runs;

/// <summary>
/// Configurations that SAELens wrote before version 6, flat and with other defaults. The files are those its runner wrote,
/// every field with the default of the version named, but for what a run would set.
/// </summary>
public sealed class OldRunConfigTests
{
    /// <summary>SAELens 5.11: everything its configuration has.</summary>
    private const string Version5 = """
        {"architecture": "standard", "model_name": "gpt2", "model_class_name": "HookedTransformer", "hook_name": "blocks.8.hook_resid_pre",
         "hook_eval": "NOT_IN_USE", "hook_layer": 8, "hook_head_index": null, "dataset_path": "corpus.txt", "dataset_trust_remote_code": true,
         "streaming": true, "is_dataset_tokenized": true, "context_size": 128, "use_cached_activations": false, "cached_activations_path": null,
         "d_in": 768, "d_sae": 3072, "b_dec_init_method": "geometric_median", "expansion_factor": 4, "activation_fn": "relu",
         "activation_fn_kwargs": {}, "normalize_sae_decoder": true, "noise_scale": 0.0, "from_pretrained_path": null,
         "apply_b_dec_to_input": true, "decoder_orthogonal_init": false, "decoder_heuristic_init": false, "decoder_heuristic_init_norm": 0.1,
         "init_encoder_as_decoder_transpose": false, "n_batches_in_buffer": 20, "training_tokens": 2000000, "finetuning_tokens": 0,
         "store_batch_size_prompts": 32, "normalize_activations": "none", "seqpos_slice": [null], "device": "cuda", "act_store_device": "cuda",
         "seed": 42, "dtype": "torch.float32", "prepend_bos": true, "jumprelu_init_threshold": 0.001, "jumprelu_bandwidth": 0.001,
         "autocast": false, "autocast_lm": false, "compile_llm": false, "llm_compilation_mode": null, "compile_sae": false,
         "sae_compilation_mode": null, "train_batch_size_tokens": 4096, "adam_beta1": 0.0, "adam_beta2": 0.999,
         "mse_loss_normalization": null, "l1_coefficient": 0.001, "lp_norm": 1, "scale_sparsity_penalty_by_decoder_norm": false,
         "l1_warm_up_steps": 0, "lr": 0.0003, "lr_scheduler_name": "constant", "lr_warm_up_steps": 0, "lr_end": 3e-05, "lr_decay_steps": 0,
         "n_restart_cycles": 1, "finetuning_method": null, "use_ghost_grads": false, "feature_sampling_window": 2000,
         "dead_feature_window": 1000, "dead_feature_threshold": 1e-08, "n_eval_batches": 10, "eval_batch_size_prompts": null,
         "log_to_wandb": true, "log_activations_store_to_wandb": false, "log_optimizer_state_to_wandb": false,
         "wandb_project": "mats_sae_training_language_model", "wandb_id": null, "run_name": "3072-L1-0.001-LR-0.0003-Tokens-2.000e+06",
         "wandb_entity": null, "wandb_log_frequency": 10, "eval_every_n_wandb_logs": 100, "resume": false, "n_checkpoints": 0,
         "checkpoint_path": "checkpoints/abcd1234", "verbose": true, "model_kwargs": {}, "model_from_pretrained_kwargs": {"center_writing_weights": false},
         "sae_lens_version": "5.11.0", "sae_lens_training_version": "5.11.0", "exclude_special_tokens": false, "tokens_per_buffer": 10485760}
        """;

    [Fact]
    public void A_file_of_version_5_keeps_its_meaning()
    {
        var run = Read(Version5);
        var sae = Assert.IsType<StandardTrainingConfig>(run.Sae);
        Assert.Equal(
            new StandardTrainingConfig
            {
                DIn = 768,
                DSae = 3072,
                Dtype = "torch.float32",
                Device = "cuda",
                L1Coefficient = 1e-3,
                ScaleSparsityPenaltyByDecoderNorm = false,
                NormalizeSaeDecoder = true,
                DecoderInitMethod = DecoderInitMethod.KaimingUniform,
                DecoderInitNorm = null,
                InitEncoderAsDecoderTranspose = false,
            },
            sae);
        Assert.Equal(
            new TrainerConfig
            {
                TotalTrainingSamples = 2_000_000,
                AdamBeta1 = 0,
                LrEnd = 3e-5,
                BDecInitMethod = BDecInitMethod.GeometricMedian,
                BDecInitSamples = 32768,
            },
            run.Trainer);
        Assert.Equal(("gpt2", "blocks.8.hook_resid_pre", "corpus.txt", 128), (run.Data.ModelName, run.Data.HookName, run.Data.Text, run.Data.ContextSize));
        Assert.Contains("hook_layer", run.Ignored);
        Assert.Contains("autocast", run.Ignored);
        Assert.Contains("wandb_project", run.Ignored);
        Assert.DoesNotContain("lp_norm", run.Ignored);
        Assert.Single(run.Notes);
        Assert.StartsWith("file: read as a configuration of SAELens before version 6", run.Notes[0], StringComparison.Ordinal);
        sae.Validate();
        run.Trainer.Validate();
    }

    [Fact]
    public void What_an_old_file_does_not_name_has_the_default_of_its_time()
    {
        var old = Read("""{"sae_lens_version": "3.20.0", "d_in": 64}""");
        var sae = Assert.IsType<StandardTrainingConfig>(old.Sae);
        Assert.Equal((64, 256, 1e-3, 1.0, false, true, null, false), (sae.DIn, sae.DSae, sae.L1Coefficient, sae.LpNorm, sae.ScaleSparsityPenaltyByDecoderNorm,
            sae.NormalizeSaeDecoder, sae.DecoderInitNorm, sae.InitEncoderAsDecoderTranspose));
        Assert.Equal((0.0, BDecInitMethod.GeometricMedian, 2_000_000L, 0), (old.Trainer.AdamBeta1, old.Trainer.BDecInitMethod, old.Trainer.TotalTrainingSamples, old.Trainer.LrWarmUpSteps));
        Assert.Equal(512, Read("""{"sae_lens_version": "5.0.0"}""").Sae.DIn);
        Assert.Equal(500, Read("""{"sae_lens_version": "2.1.1", "d_in": 64}""").Trainer.LrWarmUpSteps);

        // The same fields in today's form have today's defaults.
        var now = Read("""{"sae": {"architecture": "standard", "d_in": 64}, "sae_lens_version": "6.18.0"}""");
        Assert.Equal((1.0, 0.9, BDecInitMethod.Zeros), (((StandardTrainingConfig)now.Sae).L1Coefficient, now.Trainer.AdamBeta1, now.Trainer.BDecInitMethod));
        Assert.Empty(now.Notes);
        Assert.Empty(Read("""{"architecture": "standard", "d_in": 64, "l1_coefficient": 2}""").Notes);
    }

    [Fact]
    public void A_file_of_version_2_with_ghost_gradients_and_a_layer_in_its_hook()
    {
        var run = Read("""
            {"model_name": "gpt2-small", "hook_point": "blocks.{layer}.hook_resid_pre", "hook_point_eval": "blocks.{layer}.attn.pattern",
             "hook_point_layer": 10, "hook_point_head_index": null, "dataset_path": "corpus.txt", "context_size": 128, "d_in": 768,
             "expansion_factor": 32, "b_dec_init_method": "mean", "mse_loss_normalization": "dense_batch", "use_ghost_grads": true,
             "l1_coefficient": 8e-5, "lp_norm": 1, "lr": 0.0004, "lr_scheduler_name": "constantwithwarmup", "lr_warm_up_steps": 5000,
             "train_batch_size": 4096, "store_batch_size": 16, "n_batches_in_buffer": 128, "total_training_tokens": 300000000, "noise_scale": 0.05,
             "normalize_activations": false, "feature_sampling_window": 1000, "feature_sampling_method": null, "log_to_wandb": true, "dtype": "torch.float32"}
            """);
        var sae = Assert.IsType<StandardTrainingConfig>(run.Sae);
        Assert.Equal((24576, true, MseLossNormalization.DenseBatch, 0.05, 8e-5), (sae.DSae, sae.UseGhostGrads, sae.MseLossNormalization, sae.NoiseScale, sae.L1Coefficient));
        Assert.Equal(NormalizeActivations.None, sae.NormalizeActivations);
        Assert.Equal("blocks.10.hook_resid_pre", run.Data.HookName);
        Assert.Equal((4096, 300_000_000L, "constant", 5000, BDecInitMethod.Mean),
            (run.Trainer.TrainBatchSizeSamples, run.Trainer.TotalTrainingSamples, run.Trainer.LrSchedulerName, run.Trainer.LrWarmUpSteps, run.Trainer.BDecInitMethod));
        Assert.Equal(16, run.Data.StoreBatchSizePrompts);
    }

    [Fact]
    public void Topk_is_found_by_its_activation()
    {
        var run = Read("""
            {"architecture": "standard", "activation_fn": "topk", "activation_fn_kwargs": {"k": 32}, "d_in": 768, "d_sae": 32768,
             "normalize_sae_decoder": false, "decoder_heuristic_init": true, "init_encoder_as_decoder_transpose": true, "l1_coefficient": 0.5,
             "noise_scale": 0.1, "normalize_activations": "expected_average_only_in", "sae_lens_version": "4.3.0"}
            """);
        var sae = Assert.IsType<TopKTrainingConfig>(run.Sae);
        Assert.Equal((32, false, 1.0, DecoderInitMethod.Normal, 0.1, true, 0.1),
            (sae.K, sae.RescaleActsByDecoderNorm, sae.AuxLossCoefficient, sae.DecoderInitMethod, sae.DecoderInitNorm, sae.InitEncoderAsDecoderTranspose, sae.NoiseScale));
        Assert.Equal(["l1_coefficient"], run.Ignored);
        Assert.Equal(100, Assert.IsType<TopKTrainingConfig>(Read("""{"architecture": "topk", "sae_lens_version": "5.3.0", "d_in": 64}""").Sae).K);
    }

    [Fact]
    public void Finetuning_and_orthogonal_starts_are_kept()
    {
        var run = Read("""
            {"sae_lens_version": "3.0.0", "d_in": 64, "decoder_orthogonal_init": true, "finetuning_tokens": 8192, "finetuning_method": "unrotated_decoder",
             "training_tokens": 40960}
            """);
        Assert.Equal((DecoderInitMethod.Orthogonal, null), (run.Sae.DecoderInitMethod, run.Sae.DecoderInitNorm));
        Assert.Equal((FinetuningMethod.UnrotatedDecoder, 8192L, 40960L), (run.Trainer.FinetuningMethod, run.Trainer.FinetuningTokens, run.Trainer.TotalTrainingSamples));
        // Without a method the further tokens were more of the same.
        var more = Read("""{"sae_lens_version": "3.0.0", "d_in": 64, "finetuning_tokens": 8192, "training_tokens": 40960}""");
        Assert.Equal((null, 0L, 49152L), (more.Trainer.FinetuningMethod, more.Trainer.FinetuningTokens, more.Trainer.TotalTrainingSamples));
    }

    [Theory]
    [InlineData("\"activation_fn\": \"tanh-relu\"", "field \"activation_fn\" cannot be \"tanh-relu\"; no architecture here has that activation; known: relu, topk")]
    [InlineData("\"activation_fn_kwargs\": {\"k\": 3, \"alpha\": 1}, \"activation_fn\": \"topk\"", "field \"activation_fn_kwargs.alpha\" cannot be 1; only k is known")]
    [InlineData("\"architecture\": \"vanilla\"", "field \"architecture\" cannot be \"vanilla\"; known there: standard, gated, jumprelu, topk")]
    [InlineData("\"architecture\": \"topk\", \"use_ghost_grads\": true", "field \"use_ghost_grads\" cannot be true; architecture topk has no ghost gradients; use false")]
    [InlineData("\"expansion_factor\": 8, \"d_sae\": 128", "field \"expansion_factor\" cannot be 8; d_sae = 128 is another width than d_in = 64 times it; give one of them")]
    [InlineData("\"lr\": [0.001, 0.0003]", "field \"lr\" cannot be [0.001,0.0003]; several SAEs of one run are several runs here; give one value")]
    [InlineData("\"resume\": true", "field \"resume\" cannot be true; start from saved weights by from_pretrained_path")]
    [InlineData("\"decoder_heuristic_init\": true", "field \"decoder_heuristic_init\" cannot be true; normalize_sae_decoder would undo it; set one of them to false")]
    [InlineData("\"scale_sparsity_penalty_by_decoder_norm\": true", "field \"scale_sparsity_penalty_by_decoder_norm\" cannot be true; normalize_sae_decoder keeps these norms at 1; set one of them to false")]
    [InlineData("\"feature_sampling_method\": \"anthropic\"", "field \"feature_sampling_method\" cannot be \"anthropic\"; dead features start anew by resample_every_steps; use null")]
    [InlineData("\"model_class_name\": \"HookedMamba\"", "field \"model_class_name\" cannot be \"HookedMamba\"; only transformers can be run")]
    [InlineData("\"model_kwargs\": {\"start_at_layer\": 2}", "field \"model_kwargs\" cannot be {\"start_at_layer\":2}; the model's forward pass takes no settings; use {}")]
    [InlineData("\"mse_loss_normalization\": \"variance\"", "field \"mse_loss_normalization\" cannot be \"variance\"")]
    [InlineData("\"b_dec_init_method\": \"median\"", "field \"b_dec_init_method\" cannot be \"median\"")]
    [InlineData("\"use_cashed_activations\": true", "field \"use_cashed_activations\" is not known; did you mean")]
    public void What_cannot_be_done_is_named(string field, string message)
    {
        var e = Assert.Throws<InvalidInputException>(() => Read($$"""{"sae_lens_version": "5.0.0", "d_in": 64, {{field}}}"""));
        Assert.StartsWith("file: " + message, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Jumprelu_has_its_bandwidth_and_its_coefficient_under_another_name()
    {
        var run = Read("""
            {"architecture": "jumprelu", "d_in": 64, "d_sae": 512, "l1_coefficient": 2, "l1_warm_up_steps": 100, "lp_norm": 1, "noise_scale": 0.01, "sae_lens_version": "4.0.0"}
            """);
        var sae = Assert.IsType<JumpReLUTrainingConfig>(run.Sae);
        Assert.Equal((2.0, 100, 0.001, 0.001, JumpReLUSparsityLoss.Step, 0.01), (sae.L0Coefficient, sae.L0WarmUpSteps, sae.JumpreluInitThreshold, sae.JumpreluBandwidth, sae.JumpreluSparsityLossMode, sae.NoiseScale));
        sae.Validate();
        Assert.Equal(["standard", "gated"], new[] { "standard", "gated" }.Select(a => Read($$"""{"architecture": "{{a}}", "sae_lens_version": "4.0.0"}""").Sae.Architecture));
    }

    [Fact]
    public void Options_of_the_command_line_win_over_an_old_file()
    {
        var run = RunConfigReader.Read(JsonNode.Parse(Version5)!.AsObject(), new JsonObject { ["l1_coefficient"] = 7, ["adam_beta1"] = 0.5, ["b_dec_init_method"] = "zeros" }, "file", "topk");
        Assert.Equal((7.0, 0.5, BDecInitMethod.Zeros), (((StandardTrainingConfig)run.Sae).L1Coefficient, run.Trainer.AdamBeta1, run.Trainer.BDecInitMethod));
    }

    private static RunConfig Read(string json) => RunConfigReader.Read(JsonNode.Parse(json)!.AsObject(), [], "file", "topk");
}
