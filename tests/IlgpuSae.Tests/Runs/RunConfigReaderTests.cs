using System.Text.Json.Nodes;
using IlgpuSae.Activations;
using IlgpuSae.Runs;
using IlgpuSae.Saes;
using Xunit;

namespace IlgpuSae.Tests.Runs;

public sealed class RunConfigReaderTests
{
    private const string SaeLens = """
        {"sae": {"architecture": "standard", "d_in": 64, "d_sae": 128, "l1_coefficient": 3, "dtype": "float32", "device": "cpu", "metadata": {}},
         "model_name": "folder", "model_class_name": "HookedTransformer", "hook_name": "blocks.2.hook_resid_post", "dataset_path": "corpus.txt", "streaming": true,
         "context_size": 64, "seqpos_slice": [1, null, 2], "exclude_special_tokens": [0, 2], "sequence_separator_token": 1, "training_tokens": 20000,
         "train_batch_size_tokens": 512, "logger": {"log_to_wandb": true}, "wandb_project": "x", "n_checkpoints": 0, "lr": 0.001, "seed": 7}
        """;

    [Fact]
    public void A_runner_configuration_of_SAELens_is_understood()
    {
        var run = Read(SaeLens, []);
        Assert.Equal((64, 128, 3.0), (run.Sae.DIn, run.Sae.DSae, Assert.IsType<StandardTrainingConfig>(run.Sae).L1Coefficient));
        Assert.Equal((20000L, 512, 0.001, 7UL), (run.Trainer.TotalTrainingSamples, run.Trainer.TrainBatchSizeSamples, run.Trainer.Lr, run.Trainer.Seed));
        Assert.Equal(("folder", "corpus.txt", null, "1"), (run.Data.ModelName, run.Data.Text, run.Data.Tokens, run.Data.SequenceSeparatorToken));
        Assert.Equal(new PositionSlice(1, null, 2), run.Data.SeqposSlice);
        Assert.Equal(TokenExclusion.Of([0, 2]), run.Data.ExcludeSpecialTokens);
        Assert.Equal(["model_class_name", "streaming", "logger", "wandb_project", "n_checkpoints"], run.Ignored);
    }

    [Fact]
    public void What_is_written_is_read_again()
    {
        var run = Read(SaeLens, []);
        var again = Read(run.ToJson().ToJsonString(), []);
        Assert.Equal(run.Sae, again.Sae);
        Assert.Equal(run.Trainer, again.Trainer);
        Assert.Equal(run.Data, again.Data);
        Assert.Empty(again.Ignored);
    }

    [Fact]
    public void Options_win_over_the_file_under_either_name()
    {
        var run = Read(SaeLens, new JsonObject { ["total_training_samples"] = 9, ["l1_coefficient"] = 5.5, ["architecture"] = "standard" });
        Assert.Equal((9L, 5.5), (run.Trainer.TotalTrainingSamples, ((StandardTrainingConfig)run.Sae).L1Coefficient));
    }

    [Theory]
    [InlineData("learning_rate", null)]
    [InlineData("d_sea", "d_sae")]
    [InlineData("l1_coeficient", "l1_coefficient")]
    public void Near_names_are_suggested(string field, string? suggestion)
    {
        var e = Assert.Throws<InvalidInputException>(() => Read(SaeLens, new JsonObject { [field] = 1 }));
        Assert.Equal($"file: field \"{field}\" is not known{(suggestion is null ? "" : $"; did you mean {suggestion}?")}", e.Message);
    }

    private static RunConfig Read(string json, JsonObject overrides) => RunConfigReader.Read(JsonNode.Parse(json)!.AsObject(), overrides, "file", "topk");
}
