using System.Text.Json.Nodes;
using IlgpuSae.Models;
using IlgpuSae.Runs;
using Xunit;

namespace IlgpuSae.Tests.Runs;

/// <summary>SAELens' model_from_pretrained_kwargs, on which gpt2-small-res-jb's numbers depend.</summary>
public sealed class ModelKeywordsTests
{
    [Fact]
    public void Keyword_arguments_of_a_run_say_how_the_model_is_loaded()
    {
        var json = (JsonObject)JsonNode.Parse("""
            {"model_name":"gpt2","hook_name":"blocks.8.hook_resid_pre","dataset_path":"corpus.txt",
             "model_from_pretrained_kwargs":{"center_writing_weights":true,"dtype":"torch.bfloat16","n_devices":1}}
            """)!;
        var run = RunConfigReader.Read(json, [], "run.json", "topk");
        Assert.DoesNotContain("model_from_pretrained_kwargs", run.Ignored);
        var options = run.Data.LoadOptions();
        Assert.Equal(new WeightProcessing { CenterWritingWeights = true }, options.Processing);
        Assert.Equal(WeightStorage.BF16, options.Storage);
        Assert.Equal(new ModelLoadOptions(), new DataConfig().LoadOptions());
    }

    [Theory]
    [InlineData("{\"fold_ln\":\"yes\"}", "model_from_pretrained_kwargs: \"fold_ln\" in line 1 is the string \"yes\", expected true or false")]
    [InlineData("{\"first_n_layers\":2}", "model_from_pretrained_kwargs.first_n_layers: cannot be 2; known: fold_ln, center_writing_weights, center_unembed, fold_value_biases, refactor_factored_attn_matrices, dtype")]
    [InlineData("{\"dtype\":\"int8\"}", "dtype \"int8\" is not known; known: auto (as stored), float32, float16, bfloat16")]
    public void Arguments_of_the_wrong_kind_are_refused(string keywords, string message) => Assert.Equal(message,
        Assert.ThrowsAny<InvalidInputException>(() => new DataConfig { ModelFromPretrainedKwargs = (JsonObject)JsonNode.Parse(keywords)! }.LoadOptions()).Message);
}
