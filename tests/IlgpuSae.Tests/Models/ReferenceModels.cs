using System.Text.Json.Nodes;
using static IlgpuSae.Tests.Models.ReferenceMath;

namespace IlgpuSae.Tests.Models;

/// <summary>
/// The families without golden numbers, each written out in double from transformers' modelling code, straight from the
/// names and configuration keys of a Hugging Face checkpoint: nothing here knows ModelSpec or a WeightRule. Each returns
/// the residual stream that leaves every block and the logits; <c>push</c> is added to what enters block 0.
/// </summary>
internal static class ReferenceModels
{
    internal sealed record Result(List<double[][]> ResidPost, double[][] Logits);

    /// <summary>A tiny checkpoint of every family here: configuration and the shapes of its tensors.</summary>
    internal static IReadOnlyDictionary<string, (string Config, Func<Checkpoint, Checkpoint> Tensors, Func<Checkpoint, int[], double[][]?, Result> Run)> All { get; } =
        new Dictionary<string, (string, Func<Checkpoint, Checkpoint>, Func<Checkpoint, int[], double[][]?, Result>)>(StringComparer.Ordinal)
        {
            ["qwen3"] = ("""
                {"architectures":["Qwen3ForCausalLM"],"hidden_size":24,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":8,
                "intermediate_size":40,"vocab_size":61,"max_position_embeddings":64,"rms_norm_eps":1e-6,"rope_theta":1000000,"hidden_act":"silu",
                "use_sliding_window":true,"sliding_window":5,"max_window_layers":1,"tie_word_embeddings":true,"bos_token_id":1,"eos_token_id":[2,3]}
                """, c => LlamaTensors(c, 8, qkNorm: 8), Qwen3),
            ["gemma3"] = ("""
                {"architectures":["Gemma3ForConditionalGeneration"],"text_config":{"hidden_size":24,"num_hidden_layers":4,"num_attention_heads":4,"num_key_value_heads":2,
                "head_dim":8,"intermediate_size":40,"vocab_size":61,"max_position_embeddings":64,"query_pre_attn_scalar":10,"sliding_window":4,"sliding_window_pattern":3,
                "rope_scaling":{"rope_type":"linear","factor":8.0}}}
                """, c => PrefixGemma3(LlamaTensors(c, 8, qkNorm: 8, postNorms: true)), Gemma3),
            ["phi"] = ("""
                {"architectures":["PhiForCausalLM"],"hidden_size":24,"num_hidden_layers":2,"num_attention_heads":3,"intermediate_size":40,"vocab_size":61,
                "max_position_embeddings":64,"partial_rotary_factor":0.5,"hidden_act":"gelu_new"}
                """, PhiTensors, Phi),
            ["phi3"] = ("""
                {"architectures":["Phi3ForCausalLM"],"hidden_size":24,"num_hidden_layers":2,"num_attention_heads":3,"num_key_value_heads":1,"intermediate_size":40,
                "vocab_size":61,"max_position_embeddings":64,"original_max_position_embeddings":32,"rms_norm_eps":1e-5,"sliding_window":6,
                "rope_scaling":{"type":"longrope","short_factor":[1.0,1.1,1.3,2.0],"long_factor":[9,9,9,9]}}
                """, Phi3Tensors, Phi3),
            ["olmo2"] = ("""
                {"architectures":["Olmo2ForCausalLM"],"hidden_size":24,"num_hidden_layers":2,"num_attention_heads":3,"num_key_value_heads":3,"intermediate_size":40,
                "vocab_size":61,"max_position_embeddings":64,"rope_theta":500000}
                """, c => LlamaTensors(c, 8, qkNorm: 24, behind: true), Olmo2),
            ["gptj"] = ("""
                {"architectures":["GPTJForCausalLM"],"n_embd":24,"n_layer":2,"n_head":3,"n_positions":64,"rotary_dim":4,"vocab_size":61,"activation_function":"gelu_new",
                "tie_word_embeddings":false}
                """, GptJTensors, GptJ),
            ["opt"] = ("""
                {"architectures":["OPTForCausalLM"],"hidden_size":24,"num_hidden_layers":2,"num_attention_heads":3,"ffn_dim":40,"max_position_embeddings":32,"vocab_size":61,
                "do_layer_norm_before":true,"word_embed_proj_dim":24,"activation_function":"relu"}
                """, OptTensors, Opt),
            ["bloom"] = ("""
                {"architectures":["BloomForCausalLM"],"n_embed":24,"n_layer":2,"num_attention_heads":3,"vocab_size":61,"layer_norm_epsilon":1e-5}
                """, BloomTensors, Bloom),
        };

    /// <summary>A checkpoint of a family here, with weights that make every part of the model matter.</summary>
    internal static Checkpoint Make(string name)
    {
        var (config, tensors, _) = All[name];
        return tensors(Checkpoint.New(JsonNode.Parse(config)!.AsObject()));
    }

    private static Result Qwen3(Checkpoint c, int[] tokens, double[][]? push)
    {
        var x = Sum(Rows(c, "model.embed_tokens.weight", tokens), push);
        var posts = new List<double[][]>();
        for (var l = 0; l < 2; l++)
        {
            var p = $"model.layers.{l}.";
            var h = Rms(x, V(c, p + "input_layernorm.weight"), 1e-6);
            var q = EachHead(Linear(c, h, p + "self_attn.q_proj"), 8, v => Rms(v, V(c, p + "self_attn.q_norm.weight"), 1e-6));
            var k = EachHead(Linear(c, h, p + "self_attn.k_proj"), 8, v => Rms(v, V(c, p + "self_attn.k_norm.weight"), 1e-6));
            double Angle(int t, int i) => t * Math.Pow(1000000, -2.0 * i / 8);
            var z = Attend(Rope(q, 8, 8, Angle), Rope(k, 8, 8, Angle), Linear(c, h, p + "self_attn.v_proj"), 4, 2, 1 / Math.Sqrt(8), l >= 1 ? 5 : 0);
            x = Sum(x, Linear(c, z, p + "self_attn.o_proj"));
            x = Sum(x, GatedMlp(c, Rms(x, V(c, p + "post_attention_layernorm.weight"), 1e-6), p + "mlp.", Silu));
            posts.Add(x);
        }

        return new(posts, Product(Rms(x, V(c, "model.norm.weight"), 1e-6), c, "model.embed_tokens.weight"));
    }

    private static Result Gemma3(Checkpoint c, int[] tokens, double[][]? push)
    {
        const string P = "language_model.model.";
        double[] W(string name) => [.. V(c, P + name).Select(w => w + 1)];
        var x = Sum(Map(Rows(c, P + "embed_tokens.weight", tokens), v => v * (float)Math.Sqrt(24)), push);
        var posts = new List<double[][]>();
        for (var l = 0; l < 4; l++)
        {
            var p = $"layers.{l}.";
            var local = (l + 1) % 3 != 0;
            var h = Rms(x, W(p + "input_layernorm.weight"), 1e-6);
            var q = EachHead(Linear(c, h, P + p + "self_attn.q_proj"), 8, v => Rms(v, W(p + "self_attn.q_norm.weight"), 1e-6));
            var k = EachHead(Linear(c, h, P + p + "self_attn.k_proj"), 8, v => Rms(v, W(p + "self_attn.k_norm.weight"), 1e-6));
            double Angle(int t, int i) => local ? t * Math.Pow(10000, -2.0 * i / 8) : t * Math.Pow(1000000, -2.0 * i / 8) / 8;
            var z = Attend(Rope(q, 8, 8, Angle), Rope(k, 8, 8, Angle), Linear(c, h, P + p + "self_attn.v_proj"), 4, 2, 1 / Math.Sqrt(10), local ? 4 : 0);
            x = Sum(x, Rms(Linear(c, z, P + p + "self_attn.o_proj"), W(p + "post_attention_layernorm.weight"), 1e-6));
            var m = GatedMlp(c, Rms(x, W(p + "pre_feedforward_layernorm.weight"), 1e-6), P + p + "mlp.", GeluTanh);
            x = Sum(x, Rms(m, W(p + "post_feedforward_layernorm.weight"), 1e-6));
            posts.Add(x);
        }

        return new(posts, Product(Rms(x, W("norm.weight"), 1e-6), c, P + "embed_tokens.weight"));
    }

    private static Result Phi(Checkpoint c, int[] tokens, double[][]? push)
    {
        var x = Sum(Rows(c, "model.embed_tokens.weight", tokens), push);
        var posts = new List<double[][]>();
        for (var l = 0; l < 2; l++)
        {
            var p = $"model.layers.{l}.";
            var h = Layer(x, c, p + "input_layernorm");
            double Angle(int t, int i) => t * Math.Pow(10000, -2.0 * i / 4);
            var z = Attend(Rope(Linear(c, h, p + "self_attn.q_proj"), 8, 4, Angle), Rope(Linear(c, h, p + "self_attn.k_proj"), 8, 4, Angle),
                Linear(c, h, p + "self_attn.v_proj"), 3, 3, 1 / Math.Sqrt(8), 0);
            var m = Linear(c, Map(Linear(c, h, p + "mlp.fc1"), GeluTanh), p + "mlp.fc2");
            x = Sum(Sum(x, Linear(c, z, p + "self_attn.dense")), m);
            posts.Add(x);
        }

        return new(posts, Linear(c, Layer(x, c, "model.final_layernorm"), "lm_head"));
    }

    private static Result Phi3(Checkpoint c, int[] tokens, double[][]? push)
    {
        double[] factors = [1.0, 1.1, 1.3, 2.0];
        var stretch = Math.Sqrt(1 + (Math.Log(2) / Math.Log(32)));
        var x = Sum(Rows(c, "model.embed_tokens.weight", tokens), push);
        var posts = new List<double[][]>();
        for (var l = 0; l < 2; l++)
        {
            var p = $"model.layers.{l}.";
            var qkv = Linear(c, Rms(x, V(c, p + "input_layernorm.weight"), 1e-5), p + "self_attn.qkv_proj");
            double Angle(int t, int i) => t * Math.Pow(10000, -2.0 * i / 8) / factors[i];
            double[][] q = Rope(Part(qkv, 0, 24), 8, 8, Angle, stretch: stretch), k = Rope(Part(qkv, 24, 8), 8, 8, Angle, stretch: stretch);
            x = Sum(x, Linear(c, Attend(q, k, Part(qkv, 32, 8), 3, 1, 1 / Math.Sqrt(8), 6), p + "self_attn.o_proj"));
            var up = Linear(c, Rms(x, V(c, p + "post_attention_layernorm.weight"), 1e-5), p + "mlp.gate_up_proj");
            x = Sum(x, Linear(c, Times(Part(up, 40, 40), Map(Part(up, 0, 40), Silu)), p + "mlp.down_proj"));
            posts.Add(x);
        }

        return new(posts, Linear(c, Rms(x, V(c, "model.norm.weight"), 1e-5), "lm_head"));
    }

    private static Result Olmo2(Checkpoint c, int[] tokens, double[][]? push)
    {
        var x = Sum(Rows(c, "model.embed_tokens.weight", tokens), push);
        var posts = new List<double[][]>();
        for (var l = 0; l < 2; l++)
        {
            var p = $"model.layers.{l}.";
            double Angle(int t, int i) => t * Math.Pow(500000, -2.0 * i / 8);
            var q = Rms(Linear(c, x, p + "self_attn.q_proj"), V(c, p + "self_attn.q_norm.weight"), 1e-5);
            var k = Rms(Linear(c, x, p + "self_attn.k_proj"), V(c, p + "self_attn.k_norm.weight"), 1e-5);
            var z = Attend(Rope(q, 8, 8, Angle), Rope(k, 8, 8, Angle), Linear(c, x, p + "self_attn.v_proj"), 3, 3, 1 / Math.Sqrt(8), 0);
            x = Sum(x, Rms(Linear(c, z, p + "self_attn.o_proj"), V(c, p + "post_attention_layernorm.weight"), 1e-5));
            x = Sum(x, Rms(GatedMlp(c, x, p + "mlp.", Silu), V(c, p + "post_feedforward_layernorm.weight"), 1e-5));
            posts.Add(x);
        }

        return new(posts, Linear(c, Rms(x, V(c, "model.norm.weight"), 1e-5), "lm_head"));
    }

    private static Result GptJ(Checkpoint c, int[] tokens, double[][]? push)
    {
        var x = Sum(Rows(c, "transformer.wte.weight", tokens), push);
        var posts = new List<double[][]>();
        for (var l = 0; l < 2; l++)
        {
            var p = $"transformer.h.{l}.";
            var h = Layer(x, c, p + "ln_1");
            double Angle(int t, int i) => t * Math.Pow(10000, -2.0 * i / 4);
            var z = Attend(Rope(Linear(c, h, p + "attn.q_proj"), 8, 4, Angle, neighbours: true), Rope(Linear(c, h, p + "attn.k_proj"), 8, 4, Angle, neighbours: true),
                Linear(c, h, p + "attn.v_proj"), 3, 3, 1 / Math.Sqrt(8), 0);
            x = Sum(Sum(x, Linear(c, z, p + "attn.out_proj")), Linear(c, Map(Linear(c, h, p + "mlp.fc_in"), GeluTanh), p + "mlp.fc_out"));
            posts.Add(x);
        }

        return new(posts, Linear(c, Layer(x, c, "transformer.ln_f"), "lm_head"));
    }

    private static Result Opt(Checkpoint c, int[] tokens, double[][]? push)
    {
        var positions = Rows(c, "model.decoder.embed_positions.weight", [.. Enumerable.Range(2, tokens.Length)]);
        var x = Sum(Sum(Rows(c, "model.decoder.embed_tokens.weight", tokens), positions), push);
        var posts = new List<double[][]>();
        for (var l = 0; l < 2; l++)
        {
            var p = $"model.decoder.layers.{l}.";
            var h = Layer(x, c, p + "self_attn_layer_norm");
            var z = Attend(Linear(c, h, p + "self_attn.q_proj"), Linear(c, h, p + "self_attn.k_proj"), Linear(c, h, p + "self_attn.v_proj"), 3, 3, 1 / Math.Sqrt(8), 0);
            x = Sum(x, Linear(c, z, p + "self_attn.out_proj"));
            x = Sum(x, Linear(c, Map(Linear(c, Layer(x, c, p + "final_layer_norm"), p + "fc1"), v => Math.Max(0, v)), p + "fc2"));
            posts.Add(x);
        }

        return new(posts, Product(Layer(x, c, "model.decoder.final_layer_norm"), c, "model.decoder.embed_tokens.weight"));
    }

    private static Result Bloom(Checkpoint c, int[] tokens, double[][]? push)
    {
        // build_alibi_tensor for 3 heads: closest power of two 2, base 2^-4; one more from 2^-2 at power 1.
        double[] slopes = [Math.Pow(2, -4), Math.Pow(2, -8), Math.Pow(2, -2)];
        var x = Sum(Layer(Rows(c, "transformer.word_embeddings.weight", tokens), c, "transformer.word_embeddings_layernorm"), push);
        var posts = new List<double[][]>();
        for (var l = 0; l < 2; l++)
        {
            var p = $"transformer.h.{l}.";
            var qkv = Linear(c, Layer(x, c, p + "input_layernorm"), p + "self_attention.query_key_value");
            // [n_heads, 3, d_head]
            double[][] Take(int which) => [.. qkv.Select(r => Enumerable.Range(0, 24).Select(i => r[(i / 8 * 24) + (which * 8) + (i % 8)]).ToArray())];
            x = Sum(x, Linear(c, Attend(Take(0), Take(1), Take(2), 3, 3, 1 / Math.Sqrt(8), 0, slopes), p + "self_attention.dense"));
            x = Sum(x, Linear(c, Map(Linear(c, Layer(x, c, p + "post_attention_layernorm"), p + "mlp.dense_h_to_4h"), GeluTanh), p + "mlp.dense_4h_to_h"));
            posts.Add(x);
        }

        return new(posts, Product(Layer(x, c, "transformer.ln_f"), c, "transformer.word_embeddings.weight"));
    }

    private static Checkpoint LlamaTensors(Checkpoint c, int head, int qkNorm, bool postNorms = false, bool behind = false)
    {
        var t = c.Config["text_config"] as JsonObject ?? c.Config;
        int d = 24, layers = (int)t["num_hidden_layers"]!, q = (int)t["num_attention_heads"]! * head, kv = (int)t["num_key_value_heads"]! * head;
        c.Random("model.embed_tokens.weight", 61, d).Random("model.norm.weight", d);
        if (!postNorms && c.Config["tie_word_embeddings"] is null) c.Random("lm_head.weight", 61, d);
        for (var l = 0; l < layers; l++)
        {
            var p = $"model.layers.{l}.";
            if (!behind) c.Random(p + "input_layernorm.weight", d);
            c.Random(p + "self_attn.q_proj.weight", q, d).Random(p + "self_attn.k_proj.weight", kv, d).Random(p + "self_attn.v_proj.weight", kv, d);
            c.Random(p + "self_attn.q_norm.weight", qkNorm == 8 ? 8 : q).Random(p + "self_attn.k_norm.weight", qkNorm == 8 ? 8 : kv);
            c.Random(p + "self_attn.o_proj.weight", d, q).Random(p + "post_attention_layernorm.weight", d);
            if (postNorms) c.Random(p + "pre_feedforward_layernorm.weight", d);
            if (postNorms || behind) c.Random(p + "post_feedforward_layernorm.weight", d);
            c.Random(p + "mlp.gate_proj.weight", 40, d).Random(p + "mlp.up_proj.weight", 40, d).Random(p + "mlp.down_proj.weight", d, 40);
        }

        return c;
    }

    /// <summary>As the checkpoints of models with images have it, with a tensor of the part that sees.</summary>
    private static Checkpoint PrefixGemma3(Checkpoint c) =>
        c.Rename(n => "language_model." + n).Random("vision_tower.vision_model.embeddings.patch_embedding.bias", 3).Random("multi_modal_projector.mm_soft_emb_norm.weight", 3);

    private static Checkpoint PhiTensors(Checkpoint c)
    {
        c.Random("model.embed_tokens.weight", 61, 24).Norm("model.final_layernorm", 24).Linear("lm_head", 61, 24);
        for (var l = 0; l < 2; l++)
        {
            var p = $"model.layers.{l}.";
            c.Norm(p + "input_layernorm", 24).Linear(p + "self_attn.q_proj", 24, 24).Linear(p + "self_attn.k_proj", 24, 24).Linear(p + "self_attn.v_proj", 24, 24);
            c.Linear(p + "self_attn.dense", 24, 24).Linear(p + "mlp.fc1", 40, 24).Linear(p + "mlp.fc2", 24, 40);
        }

        return c;
    }

    private static Checkpoint Phi3Tensors(Checkpoint c)
    {
        c.Random("model.embed_tokens.weight", 61, 24).Random("model.norm.weight", 24).Random("lm_head.weight", 61, 24);
        for (var l = 0; l < 2; l++)
        {
            var p = $"model.layers.{l}.";
            c.Random(p + "input_layernorm.weight", 24).Random(p + "post_attention_layernorm.weight", 24).Random(p + "self_attn.qkv_proj.weight", 40, 24);
            c.Random(p + "self_attn.o_proj.weight", 24, 24).Random(p + "mlp.gate_up_proj.weight", 80, 24).Random(p + "mlp.down_proj.weight", 24, 40);
        }

        return c;
    }

    private static Checkpoint GptJTensors(Checkpoint c)
    {
        c.Random("transformer.wte.weight", 61, 24).Norm("transformer.ln_f", 24).Linear("lm_head", 61, 24);
        for (var l = 0; l < 2; l++)
        {
            var p = $"transformer.h.{l}.";
            c.Norm(p + "ln_1", 24).Linear(p + "mlp.fc_in", 96, 24).Linear(p + "mlp.fc_out", 24, 96);
            foreach (var name in new[] { "q_proj", "k_proj", "v_proj", "out_proj" }) c.Random($"{p}attn.{name}.weight", 24, 24);
            c.Random(p + "attn.bias", 1, 1, 64, 64).Random(p + "attn.masked_bias", 1);
        }

        return c;
    }

    private static Checkpoint OptTensors(Checkpoint c)
    {
        c.Random("model.decoder.embed_tokens.weight", 61, 24).Random("model.decoder.embed_positions.weight", 34, 24).Norm("model.decoder.final_layer_norm", 24)
            .Random("lm_head.weight", 61, 24);
        for (var l = 0; l < 2; l++)
        {
            var p = $"model.decoder.layers.{l}.";
            c.Norm(p + "self_attn_layer_norm", 24).Norm(p + "final_layer_norm", 24).Linear(p + "fc1", 40, 24).Linear(p + "fc2", 24, 40);
            foreach (var name in new[] { "q_proj", "k_proj", "v_proj", "out_proj" }) c.Linear($"{p}self_attn.{name}", 24, 24);
        }

        return c;
    }

    private static Checkpoint BloomTensors(Checkpoint c)
    {
        c.Random("transformer.word_embeddings.weight", 61, 24).Norm("transformer.word_embeddings_layernorm", 24).Norm("transformer.ln_f", 24);
        for (var l = 0; l < 2; l++)
        {
            var p = $"transformer.h.{l}.";
            c.Norm(p + "input_layernorm", 24).Norm(p + "post_attention_layernorm", 24).Linear(p + "self_attention.query_key_value", 72, 24);
            c.Linear(p + "self_attention.dense", 24, 24).Linear(p + "mlp.dense_h_to_4h", 96, 24).Linear(p + "mlp.dense_4h_to_h", 24, 96);
        }

        return c;
    }
}
