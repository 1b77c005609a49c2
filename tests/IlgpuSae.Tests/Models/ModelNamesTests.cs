using IlgpuSae.Models;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Models;

public sealed class ModelNamesTests
{
    [Theory]
    [InlineData("gpt2-small", "gpt2", "GPT2LMHeadModel", 124439808, 12, 768)]
    [InlineData("pythia-70m-deduped", "EleutherAI/pythia-70m-deduped", "GPTNeoXForCausalLM", 70426624, 6, 512)]
    [InlineData("gemma-2b", "google/gemma-2b", "GemmaForCausalLM", 2506172416, 18, 2048)]
    [InlineData("gemma-2-2b", "google/gemma-2-2b", "Gemma2ForCausalLM", 2614341888, 26, 2304)]
    [InlineData("tiny-stories-1L-21M", "roneneldan/TinyStories-1Layer-21M", "GPTNeoForCausalLM", 66155520, 1, 1024)]
    [InlineData("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B", "LlamaForCausalLM", 8030261248, 32, 4096)]
    [InlineData("NEO", "EleutherAI/gpt-neo-125M", "GPTNeoForCausalLM", 125198592, 12, 768)]
    public void Names_of_TransformerLens_resolve_to_hub_ids_and_sizes(string name, string hub, string architecture, long parameters, int layers, int width)
    {
        var model = ModelNames.Find(name);
        Assert.NotNull(model);
        Assert.Equal((hub, architecture, parameters, layers, width), (model.HubId, model.Architecture, model.Parameters, model.Layers, model.DModel));
        Assert.Equal(hub, ModelNames.HubIdOf(name));
    }

    [Fact]
    public void Every_model_is_of_a_known_family_and_every_name_is_unique()
    {
        Assert.True(ModelNames.All.Count > 150);
        Assert.All(ModelNames.All, m => Assert.Contains(m.Architecture, ModelFamilies.Builtin.Architectures));
        var names = ModelNames.All.SelectMany(m => m.OtherNames.Append(m.Name)).ToList();
        Assert.Equal(names.Count, names.Distinct(StringComparer.OrdinalIgnoreCase).Count());
        Assert.All(names, n => Assert.NotNull(ModelNames.Find(n)));
        Assert.Equal(ModelNames.All.Count, ModelNames.All.Select(m => m.HubId).Distinct().Count());
    }

    [Fact]
    public void An_unknown_name_suggests_near_ones() => Assert.StartsWith(
        "model \"pythia-70m-dedup\" is not known; near: \"pythia-70m-deduped\", ",
        Assert.Throws<InvalidInputException>(() => ModelNames.HubIdOf("pythia-70m-dedup")).Message, StringComparison.Ordinal);

    [Fact]
    public void The_table_of_families_in_the_documents_is_the_registrys()
    {
        var root = Path.GetFullPath(Path.Combine(Golden.FolderOf("lm"), "..", "..", ".."));
        var shown = File.ReadLines(Path.Combine(root, "docs", "models.md")).SkipWhile(l => l != "## Families").Skip(1)
            .TakeWhile(l => !l.StartsWith("## ", StringComparison.Ordinal)).Where(l => l.StartsWith("| `", StringComparison.Ordinal)).ToList();
        var architectures = shown.SelectMany(l => l.Split('|')[1].Split('`').Where((_, i) => i % 2 == 1)).Order(StringComparer.Ordinal);
        Assert.Equal(ModelFamilies.Builtin.Architectures, architectures);
        Assert.All(shown, l => Assert.True(File.Exists(Path.Combine(root, "src", "IlgpuSae", l.Split('|')[2].Trim().Trim('`'))), l));
    }
}
