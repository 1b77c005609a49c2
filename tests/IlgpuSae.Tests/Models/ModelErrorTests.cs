using System.Text.Json.Nodes;
using IlgpuSae.Files;
using IlgpuSae.Models;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Models;

/// <summary>What the user reads when a model or its input is wrong.</summary>
public sealed class ModelErrorTests
{
    [Fact]
    public void An_unknown_architecture_lists_those_known()
    {
        var message = Refused(Checkpoint.Of("gpt2_tiny"), c => c.Config["architectures"] = new JsonArray("FooForCausalLM"));
        Assert.Equal("config.json: architecture \"FooForCausalLM\" is not known; known: " + string.Join(", ", ModelFamilies.Builtin.Architectures), message);
        Assert.Contains("GPT2LMHeadModel, ", message, StringComparison.Ordinal);
        Assert.EndsWith("Qwen3ForCausalLM", message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_config_of_no_model_says_so()
    {
        var message = Refused(Checkpoint.Of("gpt2_tiny"), c =>
        {
            c.Config.Remove("architectures");
            c.Config.Remove("model_type");
        });
        Assert.Equal("config.json: names neither \"architectures\" nor \"model_type\"; is this a language model's config.json?", message);
    }

    [Fact]
    public void A_missing_key_and_a_wrong_type_name_the_key()
    {
        Assert.StartsWith("config.json: \"n_embd\" is missing", Refused(Checkpoint.Of("gpt2_tiny"), c => c.Config.Remove("n_embd")), StringComparison.Ordinal);
        var wrong = Refused(Checkpoint.Of("llama_gqa"), c => c.Config["hidden_size"] = "wide");
        Assert.Contains("\"hidden_size\"", wrong, StringComparison.Ordinal);
        Assert.EndsWith("is the string \"wide\", expected an integer", wrong, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("gpt2_tiny", "n_head", 5, "\"n_head\" in line 1 is 5, which does not divide n_embd 32")]
    [InlineData("gpt2_tiny", "n_layer", 0, "GPT2LMHeadModel: n_layers is 0, expected at least 1")]
    [InlineData("llama_gqa", "num_key_value_heads", 3, "LlamaForCausalLM: 3 key/value heads do not divide 4 query heads")]
    [InlineData("llama_gqa", "head_dim", 7, "LlamaForCausalLM: rotary dimension 7 is not an even number from 2 to d_head 7")]
    [InlineData("gpt2_tiny", "activation_function", "mish", "\"activation_function\" in line 1 is \"mish\", which is not known; known: relu, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, quick_gelu, silu, swish")]
    public void Contradictory_sizes_are_refused(string golden, string key, object value, string problem) =>
        Assert.Equal("config.json: " + problem, Refused(Checkpoint.Of(golden), c => c.Config[key] = JsonValue.Create(value)));

    [Theory]
    [InlineData("opt", "do_layer_norm_before", "false", "\"do_layer_norm_before\" in line 1 is false (OPT-350m); only OPT with its norms before attention and MLP is supported")]
    [InlineData("opt", "word_embed_proj_dim", "12", "\"word_embed_proj_dim\" in line 1 is 12 but hidden_size 24 (OPT-350m); embeddings with a projection are not supported")]
    [InlineData("phi", "qk_layernorm", "true", "\"qk_layernorm\" in line 1 is true; Phi with LayerNorm of queries and keys is not supported")]
    [InlineData("bloom", "num_attention_heads", "5", "\"num_attention_heads\" in line 1 is 5, which does not divide n_embed 24")]
    [InlineData("qwen3", "layer_types", "[\"full_attention\"]", "\"layer_types\" in line 1 has 1 entries for 2 layers")]
    [InlineData("qwen3", "layer_types", "[\"full_attention\",\"linear\"]", "\"layer_types\" in line 1 has \"linear\", which is not known; known: full_attention, sliding_attention")]
    [InlineData("gptj", "rotary_dim", "5", "GPTJForCausalLM: rotary dimension 5 is not an even number from 2 to d_head 8")]
    public void What_a_family_cannot_be_is_refused(string name, string key, string value, string problem) =>
        Assert.Equal("config.json: " + problem, Refused(ReferenceModels.Make(name), c => c.Config[key] = JsonNode.Parse(value)));

    [Fact]
    public void An_unknown_rope_scaling_lists_those_known() => Assert.Equal(
        "config.json: \"rope_scaling.rope_type\" in line 1 is \"ntk\", which is not known; known: default, linear, dynamic, llama3, longrope, yarn",
        Refused(Checkpoint.Of("llama_gqa"), c => c.Config["rope_scaling"] = new JsonObject { ["rope_type"] = "ntk", ["factor"] = 4 }));

    [Fact]
    public void Missing_tensors_are_all_named()
    {
        var message = Refused(Checkpoint.Of("gpt2_tiny"), c =>
        {
            c.Tensors.Remove("transformer.h.1.mlp.c_fc.bias");
            c.Tensors.Remove("transformer.ln_f.weight");
        });
        Assert.StartsWith(": its weights lack 2 tensors of GPT2LMHeadModel: \"h.1.mlp.c_fc.bias\", \"ln_f.weight\"; they have 38, such as ", message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_tensor_of_a_wrong_shape_is_refused_with_both() => Assert.Equal(
        "model.safetensors: tensor \"transformer.h.2.attn.c_attn.weight\" is [96, 32], but config.json of this GPT2LMHeadModel makes it [32, 96]",
        Refused(Checkpoint.Of("gpt2_tiny"), c => c.Set("transformer.h.2.attn.c_attn.weight", [96, 32], _ => 0)));

    [Fact]
    public void Integer_weights_are_refused() => Assert.Equal(
        "model.safetensors: tensor \"transformer.wte.weight\" has dtype I64, expected F32, F16, BF16 or F64",
        Refused(Checkpoint.Of("gpt2_tiny"), _ => { }, SafetensorsType.I64));

    [Fact]
    public void A_tensor_of_no_use_is_refused()
    {
        var message = Refused(Checkpoint.Of("llama_gqa"), c => c.Set("model.layers.7.mlp.up_proj.weight", [88, 32], _ => 0));
        Assert.Equal(": its weights have a tensor that LlamaForCausalLM does not: \"model.layers.7.mlp.up_proj.weight\"; "
            + "is config.json of another model? To load anyway, ask to ignore unknown tensors", message);
    }

    [Fact]
    public void A_refused_model_leaves_no_memory_behind()
    {
        using var folder = new TempFolder();
        var path = Checkpoint.Of("llama_gqa").Save(folder);
        var bytes = File.ReadAllBytes(folder["model.safetensors"]);
        using var device = new CpuDevice(1);
        File.WriteAllBytes(folder["model.safetensors"], bytes.AsSpan(0, bytes.Length - 100).ToArray());
        Assert.Throws<InvalidFileException>(() => HookedTransformer.Load(path, device));
        Assert.Equal(0, device.UsedBytes);
    }

    [Theory]
    [InlineData("blocks.1.ln2.w", null, null, "model family Careless: no rule makes \"blocks.1.ln2.w\" and 0 more parameters")]
    [InlineData("blocks.1.ln2.w", "blocks.1.ln3.w", null, "model family Careless: a rule makes \"blocks.1.ln3.w\", which LlamaForCausalLM has not or was made before")]
    [InlineData("blocks.1.ln2.w", "blocks.1.ln2.w", 33, "model family Careless: its rule makes \"blocks.1.ln2.w\" [33], the model needs [32]")]
    public void A_familys_own_mistakes_are_told_as_such(string target, string? renamed, int? length, string message)
    {
        var family = new Careless(rule => rule.Target != target ? rule
            : renamed is null ? null
            : rule with { Target = renamed, SourceShape = length is { } n ? [n] : rule.SourceShape });
        using var files = SafetensorsFolder.Open(Golden.Open("lm", "llama_gqa").PathOf("model"));
        using var device = new CpuDevice(1);
        var loader = new WeightLoader(files, family, HookedTransformer.ReadSpec(files.Path), new ModelLoadOptions());
        Assert.Equal(message, Assert.Throws<InvalidInputException>(() => loader.Load(device)).Message);
    }

    [Fact]
    public void A_folder_that_is_none_says_what_a_model_is()
    {
        using var device = new CpuDevice(1);
        var e = Assert.Throws<InvalidFileException>(() => HookedTransformer.Load("no/such/model", device));
        Assert.Equal("no/such/model: no such folder; a model is a folder with config.json and model.safetensors", e.Message);
    }

    [Theory]
    [InlineData("blocks.1.hook_resid_pr", "hook \"blocks.1.hook_resid_pr\" does not exist in GPT2LMHeadModel; near: blocks.1.hook_resid_pre, ")]
    [InlineData("hook_z", "hook \"hook_z\" does not exist in GPT2LMHeadModel; near: blocks.0.attn.hook_z, ")]
    [InlineData("blocks.1.hook_z", "hook \"blocks.1.hook_z\" does not exist in GPT2LMHeadModel; near: blocks.1.attn.hook_z, ")]
    [InlineData("blocks.9.hook_resid_pre", "hook \"blocks.9.hook_resid_pre\" does not exist in GPT2LMHeadModel; the model's blocks are 0..2; near: blocks.0.hook_resid_pre, ")]
    [InlineData("", "hook \"\" does not exist in GPT2LMHeadModel; for example: hook_embed, blocks.2.hook_resid_post")]
    public void An_unknown_hook_suggests_near_names(string name, string beginning) => Run((model, scope, tokens) =>
    {
        Assert.StartsWith(beginning, Assert.Throws<InvalidInputException>(() => model.Hooks[name]).Message, StringComparison.Ordinal);
        var options = new ForwardOptions { Hooks = [Hook.On(name, (_, _) => null)] };
        Assert.StartsWith(beginning, Assert.Throws<InvalidInputException>(() => model.Forward(scope, tokens, options)).Message, StringComparison.Ordinal);
        if (name.Length > 0) Assert.StartsWith(beginning, Assert.Throws<InvalidInputException>(() => model.RunWithCache(scope, tokens, name)).Message, StringComparison.Ordinal);
    });

    [Fact]
    public void Tokens_that_do_not_fit_are_refused() => Run((model, scope, tokens) =>
    {
        string Message(params int[][] rows) => Assert.ThrowsAny<InvalidInputException>(() => model.Forward(scope, HookedTransformer.Tokens(scope, rows))).Message;
        Assert.Equal("tokens: id 101 at row 1, position 2 is not in 0..100 (d_vocab of GPT2LMHeadModel); was another model's tokenizer used?", Message([1, 2, 3], [4, 5, 101]));
        Assert.StartsWith("tokens: id -1 at row 0, position 0 ", Message([-1]), StringComparison.Ordinal);
        Assert.Equal("tokens: 33 positions exceed the context of 32 (n_ctx of GPT2LMHeadModel); give shorter sequences", Message(new int[33]));
        Assert.Equal("tokens: [0, 0] holds none", Message());
        Assert.Equal("tokens: [1, 0] holds none", Message(Array.Empty<int>()));
        Assert.Equal("tokens: row 1 has 1 tokens, row 0 has 2; a batch has rows of equal length", Message([1, 2], [3]));
        Assert.Equal("tokens: found F32 [1, 3] on cpu, expected I32 [batch, pos] on cpu",
            Assert.Throws<ShapeException>(() => model.Forward(scope, scope.New([1, 3]))).Message);
    });

    [Fact]
    public void Layers_and_losses_that_make_no_sense_are_refused() => Run((model, scope, tokens) =>
    {
        Assert.Equal("stop at layer: 4 is not between -3 and n_layers 3",
            Assert.Throws<InvalidInputException>(() => model.Forward(scope, tokens, new ForwardOptions { StopAtLayer = 4 })).Message);
        Assert.Equal("loss: tokens are [1, 1]; a next token needs at least 2 positions",
            Assert.Throws<InvalidInputException>(() => model.Loss(scope, HookedTransformer.Tokens(scope, [3]))).Message);
        Assert.Equal("loss: needs logits, but the pass stops at layer 1",
            Assert.Throws<InvalidInputException>(() => model.Loss(scope, tokens, new ForwardOptions { StopAtLayer = 1 })).Message);
        var cache = model.RunWithCache(scope, tokens, "hook_embed").Cache;
        Assert.Equal("hook \"blocks.0.hook_mlp_out\" is not in the cache, which holds hook_embed; ask for it when running the model",
            Assert.Throws<InvalidInputException>(() => cache["mlp_out", 0]).Message);
    });

    [Fact]
    public void A_replacement_of_another_shape_is_refused() => Run((model, scope, tokens) =>
    {
        var options = new ForwardOptions { Hooks = [Hook.On("blocks.0.hook_resid_mid", (_, site) => site.Scope.Zeros([1, 3, 31]))] };
        Assert.Equal("hook blocks.0.hook_resid_mid: its replacement is F32 [1, 3, 31] on cpu, expected F32 [1, 3, 32] on cpu",
            Assert.Throws<ShapeException>(() => model.Forward(scope, tokens, options)).Message);
    });

    private static void Run(Action<HookedTransformer, TensorScope, Tensor> body)
    {
        using var device = new CpuDevice(1);
        using var model = HookedTransformer.Load(Golden.Open("lm", "gpt2_tiny").PathOf("model"), device);
        using var scope = new TensorScope(device);
        body(model, scope, HookedTransformer.Tokens(scope, [5, 6, 7]));
    }

    /// <summary>The message with which a changed checkpoint is refused, without the folder's name.</summary>
    private static string Refused(Checkpoint checkpoint, Action<Checkpoint> change, SafetensorsType type = SafetensorsType.F32)
    {
        change(checkpoint);
        using var folder = new TempFolder();
        using var device = new CpuDevice(1);
        var path = checkpoint.Save(folder, type);
        var e = Assert.Throws<InvalidFileException>(() => HookedTransformer.Load(path, device));
        Assert.Equal(0, device.UsedBytes);
        Assert.DoesNotContain('\n', e.Message);
        return e.Message.Replace(path + Path.DirectorySeparatorChar, "", StringComparison.Ordinal).Replace(path, "", StringComparison.Ordinal);
    }

    /// <summary>Llama with a changed list of rules.</summary>
    private sealed class Careless(Func<WeightRule, WeightRule?> change) : ModelFamily
    {
        private readonly Llama _llama = new();

        public override string OptionalPrefix => _llama.OptionalPrefix;

        public override ModelSpec ReadConfig(JsonConfig config, string architecture) => _llama.ReadConfig(config, architecture);

        public override IEnumerable<WeightRule> Weights(ModelSpec spec) => _llama.Weights(spec).Select(change).OfType<WeightRule>();
    }
}
