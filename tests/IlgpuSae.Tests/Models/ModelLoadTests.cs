using System.Text.Json.Nodes;
using IlgpuSae.Files;
using IlgpuSae.Models;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Models;

/// <summary>What checkpoints of the families may look like, and that each variant gives the same model.</summary>
public sealed class ModelLoadTests
{
    private static readonly int[] Prompt = [3, 17, 42, 5, 60, 1];

    [Theory]
    [InlineData("gpt2_tiny", "transformer.")]
    [InlineData("llama_gqa", "model.")]
    public void Tensor_names_may_lack_the_prefix(string golden, string prefix)
    {
        var expected = Logits(Checkpoint.Of(golden));
        Assert.Equal(expected, Logits(Checkpoint.Of(golden).Rename(n => n.StartsWith(prefix, StringComparison.Ordinal) ? n[prefix.Length..] : n)));
    }

    [Theory]
    [InlineData("gpt2_tiny")]
    [InlineData("llama_gqa")]
    public void Shards_read_like_one_file(string golden)
    {
        using var folder = new TempFolder();
        Assert.Equal(Logits(Checkpoint.Of(golden)), Logits(Checkpoint.Of(golden).Save(folder, shards: 3)));
        Assert.Equal(5, folder.List().Length);
    }

    [Fact]
    public void Buffers_of_old_checkpoints_are_ignored()
    {
        var gpt2 = Checkpoint.Of("gpt2_tiny").Set("transformer.h.0.attn.bias", [1, 1, 32, 32], i => 1)
            .Set("transformer.h.0.attn.masked_bias", [], i => -1e4f).Set("lm_head.weight", [101, 32], i => 7);
        Assert.Equal(Logits(Checkpoint.Of("gpt2_tiny")), Logits(gpt2));
        var llama = Checkpoint.Of("llama_gqa").Set("model.layers.1.self_attn.rotary_emb.inv_freq", [4], i => 9);
        Assert.Equal(Logits(Checkpoint.Of("llama_gqa")), Logits(llama));
    }

    [Fact]
    public void Untied_gpt2_uses_its_own_unembedding()
    {
        var c = Checkpoint.Of("gpt2_tiny");
        var wte = c.Tensors["transformer.wte.weight"].Values;
        c.Config["tie_word_embeddings"] = false;
        c.Set("lm_head.weight", [101, 32], i => 2 * wte[i]);
        Assert.Equal(Logits(Checkpoint.Of("gpt2_tiny")).Select(v => 2 * v), Logits(c));
    }

    [Fact]
    public void Tied_llama_uses_its_embedding()
    {
        var untied = Checkpoint.Of("llama_gqa");
        untied.Tensors["lm_head.weight"] = untied.Tensors["model.embed_tokens.weight"];
        var tied = Checkpoint.Of("llama_gqa");
        tied.Config["tie_word_embeddings"] = true;
        tied.Tensors.Remove("lm_head.weight");
        Assert.Equal(Logits(untied), Logits(tied));
    }

    [Theory]
    [InlineData("gpt2_tiny", SafetensorsType.BF16, DType.BF16)] // Conv1D, which is turned when loaded
    [InlineData("llama_gqa", SafetensorsType.BF16, DType.BF16)]
    [InlineData("llama_gqa", SafetensorsType.F16, DType.F16)]
    public void Sixteen_bit_weights_give_the_same_bytes_kept_and_widened(string golden, SafetensorsType stored, DType kept)
    {
        using var folder = new TempFolder();
        var path = Checkpoint.Of(golden).Save(folder, stored);
        using var device = new CpuDevice(1);
        using var narrow = HookedTransformer.Load(path, device);
        using var wide = HookedTransformer.Load(path, device, new ModelLoadOptions { Storage = WeightStorage.F32 });
        Assert.Equal(kept, narrow.Parameters["blocks.0.mlp.W_in"].Type);
        Assert.Equal(DType.F32, wide.Parameters["blocks.0.mlp.W_in"].Type);
        var logits = Logits(narrow);
        Assert.Equal(Logits(wide), logits);
        // bf16 keeps 8 bits: the rounded model is near, not equal.
        Golden.Close("logits", logits, Logits(Checkpoint.Of(golden)), 0.3, 0.05);
    }

    [Fact]
    public void Llama_with_attention_and_mlp_biases_adds_them()
    {
        var c = Checkpoint.Of("llama_gqa");
        c.Config["attention_bias"] = true;
        c.Config["mlp_bias"] = true;
        for (var l = 0; l < 3; l++)
        {
            string attn = $"model.layers.{l}.self_attn.", mlp = $"model.layers.{l}.mlp.";
            foreach (var (name, n) in new[] { (attn + "q_proj", 32), (attn + "k_proj", 16), (attn + "v_proj", 16), (attn + "o_proj", 32), (mlp + "gate_proj", 88), (mlp + "up_proj", 88), (mlp + "down_proj", 32) })
                c.Set(name + ".bias", [n], i => (l + 1) * ((i % 7) - 3) / 10f);
        }

        using var folder = new TempFolder();
        using var device = new CpuDevice(1);
        using var biased = HookedTransformer.Load(c.Save(folder), device);
        using var plain = HookedTransformer.Load(Golden.Open("lm", "llama_gqa").PathOf("model"), device);
        using var scope = new TensorScope(device);
        var tokens = HookedTransformer.Tokens(scope, Prompt);
        // Each bias shows where its layer's output is hooked first.
        foreach (var (name, target) in new[] { ("attn.hook_q", 32), ("attn.hook_k", 16), ("attn.hook_v", 16) })
        {
            var with = biased.Activations(scope, tokens, "blocks.0." + name)["blocks.0." + name].ToArray<float>();
            var without = plain.Activations(scope, tokens, "blocks.0." + name)["blocks.0." + name].ToArray<float>();
            Golden.Close(name, with, without.Select((v, i) => v + (((i % target % 7) - 3) / 10f)).ToArray(), 1e-5, 0);
        }

        Assert.NotEqual(Logits(plain), Logits(biased));
        // The others, one at a time: zeros everywhere else leave the plain model, shifted by this one.
        foreach (var (tensor, hook, width) in new[] { ("self_attn.o_proj", "hook_attn_out", 32), ("mlp.gate_proj", "mlp.hook_pre", 88), ("mlp.up_proj", "mlp.hook_pre_linear", 88), ("mlp.down_proj", "hook_mlp_out", 32) })
        {
            foreach (var n in c.Tensors.Keys.Where(k => k.EndsWith(".bias", StringComparison.Ordinal)).ToList()) c.Set(n, c.Tensors[n].Shape, _ => 0);
            c.Set($"model.layers.0.{tensor}.bias", [width], i => ((i % 7) - 3) / 10f);
            using var one = new TempFolder();
            using var model = HookedTransformer.Load(c.Save(one), device);
            var name = "blocks.0." + hook;
            var expected = plain.Activations(scope, tokens, name)[name].ToArray<float>().Select((v, i) => v + (((i % width % 7) - 3) / 10f)).ToArray();
            Golden.Close(name, model.Activations(scope, tokens, name)[name].ToArray<float>(), expected, 1e-5, 0);
        }
    }

    [Theory]
    [InlineData("gpt2_tiny", "n_embd:hidden_size n_head:num_attention_heads n_layer:num_hidden_layers n_positions:max_position_embeddings n_ctx:")]
    [InlineData("gpt_neo_tinystories", "num_heads:num_attention_heads num_layers:num_hidden_layers attention_layers:")]
    [InlineData("gpt_neox_pythia", "rotary_emb_base:rope_theta rotary_pct:partial_rotary_factor")]
    public void Either_spelling_of_a_key_gives_the_same_model(string golden, string renames)
    {
        var c = Checkpoint.Of(golden);
        foreach (var rename in renames.Split(' '))
        {
            if (rename.Split(':') is not [var old, var other]) continue;
            var value = c.Config[old]!.DeepClone();
            c.Config.Remove(old);
            if (other.Length > 0) c.Config[other] = value;
        }

        Assert.Equal(Logits(Checkpoint.Of(golden)), Logits(c));
    }

    [Fact]
    public void Head_dim_is_taken_as_given()
    {
        using var folder = new TempFolder();
        var c = Checkpoint.Of("llama_gqa");
        c.Config["head_dim"] = 16;
        folder.Write("config.json", c.Config.ToJsonString());
        var spec = HookedTransformer.ReadSpec(folder.Path);
        Assert.Equal(16, spec.DHead);
        Assert.Equal(16, spec.RotaryDim);
        Assert.Contains(("blocks.0.attn.W_Q", Shape.Create([64, 32])), spec.Parameters());
        Assert.Contains(("blocks.0.attn.W_K", Shape.Create([32, 32])), spec.Parameters());
    }

    [Fact]
    public void Bos_and_eos_are_read_as_a_number_or_a_list()
    {
        using var folder = new TempFolder();
        var c = Checkpoint.Of("llama_gqa");
        folder.Write("config.json", c.Config.ToJsonString());
        var spec = HookedTransformer.ReadSpec(folder.Path);
        Assert.Equal(1, spec.BosToken);
        Assert.Equal([2], spec.EosTokens);
        c.Config["eos_token_id"] = new JsonArray(7, 9);
        c.Config.Remove("bos_token_id");
        folder.Write("config.json", c.Config.ToJsonString());
        spec = HookedTransformer.ReadSpec(folder.Path);
        Assert.Null(spec.BosToken);
        Assert.Equal([7, 9], spec.EosTokens);
    }

    [Fact]
    public void A_config_without_architectures_is_known_by_its_model_type()
    {
        using var folder = new TempFolder();
        var c = Checkpoint.Of("gpt2_tiny");
        c.Config.Remove("architectures");
        folder.Write("config.json", c.Config.ToJsonString());
        Assert.Equal("GPT2LMHeadModel", HookedTransformer.ReadSpec(folder.Path).Architecture);
    }

    [Fact]
    public void Gpt2_attention_scale_options_are_honoured()
    {
        using var folder = new TempFolder();
        var c = Checkpoint.Of("gpt2_tiny");
        c.Config["scale_attn_by_inverse_layer_idx"] = true;
        folder.Write("config.json", c.Config.ToJsonString());
        var spec = HookedTransformer.ReadSpec(folder.Path);
        Assert.Equal((float)(1 / Math.Sqrt(8) / 3), spec.ScaleOf(2));
        c.Config["scale_attn_weights"] = false;
        folder.Write("config.json", c.Config.ToJsonString());
        Assert.Equal(0.5f, HookedTransformer.ReadSpec(folder.Path).ScaleOf(1));
    }

    [Fact]
    public void Unknown_tensors_are_skipped_on_request()
    {
        using var folder = new TempFolder();
        var path = Checkpoint.Of("gpt2_tiny").Set("score.weight", [2, 32], i => i).Save(folder);
        using var device = new CpuDevice(1);
        using var model = HookedTransformer.Load(path, device, new ModelLoadOptions { IgnoreUnknownTensors = true });
        Assert.Equal(Logits(Checkpoint.Of("gpt2_tiny")), Logits(model));
    }

    [Fact]
    public void Random_weights_depend_on_the_seed_alone()
    {
        var spec = HookedTransformer.ReadSpec(Golden.Open("lm", "gpt2_tiny").PathOf("model"));
        float[] Made(int threads, ulong seed)
        {
            using var device = new CpuDevice(threads);
            using var model = HookedTransformer.WithRandomWeights(spec, device, seed);
            Assert.All(model.Parameters["blocks.0.ln1.w"].ToArray<float>(), v => Assert.Equal(1, v));
            Assert.All(model.Parameters["blocks.2.attn.b_Q"].ToArray<float>(), v => Assert.Equal(0, v));
            var w = model.Parameters["blocks.1.mlp.W_in"].ToArray<float>();
            Assert.InRange(Math.Sqrt(w.Average(v => (double)v * v)), 0.019, 0.021);
            return Logits(model);
        }

        Assert.Equal(Made(1, 5), Made(2, 5));
        Assert.NotEqual(Made(1, 5), Made(1, 6));
    }

    [Fact]
    public void The_example_in_the_documents_is_the_family_tested_here()
    {
        var root = Path.GetFullPath(Path.Combine(Golden.FolderOf("lm"), "..", "..", ".."));
        var shown = File.ReadLines(Path.Combine(root, "docs", "adding-a-model.md"))
            .Where(l => l.StartsWith('+') && !l.StartsWith("+++", StringComparison.Ordinal)).Select(l => l[1..])
            .Where(l => !l.TrimStart().StartsWith("//", StringComparison.Ordinal));
        var source = File.ReadLines(Path.Combine(root, "tests", "IlgpuSae.Tests", "Models", "OutsideFamilies.cs"));
        var tested = source.SkipWhile(l => !l.StartsWith("[ModelFamily(\"Helium", StringComparison.Ordinal)).TakeWhile(l => l != "}").Append("}").Where(l => !l.TrimStart().StartsWith("//", StringComparison.Ordinal));
        Assert.EndsWith(string.Join('\n', tested), string.Join('\n', shown), StringComparison.Ordinal);
        Assert.True(tested.Count() > 12);
    }

    [Fact]
    public void Parameter_count_is_that_of_the_checkpoint()
    {
        var c = Checkpoint.Of("gpt2_tiny");
        using var folder = new TempFolder();
        Assert.Equal(c.Tensors.Values.Sum(t => (long)t.Values.Length), HookedTransformer.ReadSpec(c.Save(folder)).ParameterCount);
    }

    internal static float[] Logits(Checkpoint checkpoint)
    {
        using var folder = new TempFolder();
        return Logits(checkpoint.Save(folder));
    }

    private static float[] Logits(string folder)
    {
        using var device = new CpuDevice(1);
        using var model = HookedTransformer.Load(folder, device);
        return Logits(model);
    }

    private static float[] Logits(HookedTransformer model)
    {
        using var scope = new TensorScope(model.Device);
        return model.Forward(scope, HookedTransformer.Tokens(scope, Prompt)).ToArray<float>();
    }
}
