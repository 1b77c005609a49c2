using IlgpuSae.Files;
using IlgpuSae.Models;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Models;

/// <summary>Processed weights against TransformerLens 2.16.1's load_and_process_state_dict (tests/Golden/lm).</summary>
public sealed class WeightProcessingTests
{
    public static TheoryData<string> Processed => ["gpt2_tiny", "gpt_neox_pythia", "llama_gqa", "qwen2_bias"];

    [Theory]
    [MemberData(nameof(Processed))]
    public void Folded_norms_give_the_activations_of_TransformerLens(string name) =>
        Activations(name, new WeightProcessing { FoldLayerNorm = true }, "expected_processed_fold_ln.safetensors");

    [Theory]
    [MemberData(nameof(Processed))]
    public void The_default_processing_gives_the_activations_of_TransformerLens(string name) =>
        Activations(name, WeightProcessing.Default, "expected_processed_default.safetensors");

    [Theory]
    [MemberData(nameof(Processed))]
    public void Processed_weights_are_those_of_TransformerLens_in_its_shapes(string name)
    {
        var golden = Golden.Open("lm", name);
        using var device = new CpuDevice(1);
        using var model = HookedTransformer.Load(golden.PathOf("model"), device, new ModelLoadOptions { Processing = WeightProcessing.Default });
        using var stacked = model.StackWeights();
        using var file = SafetensorsFile.Open(golden.PathOf("expected_processed_default_weights.safetensors"));
        int checkedTensors = 0, heads = model.Spec.NHeads, group = heads / model.Spec.NKvHeads;
        foreach (var entry in file.Tensors)
        {
            var expected = file.ReadFloat32(entry.Name);
            var parts = entry.Name.Split('.');
            // Under grouped heads TransformerLens keeps _W_K and its like once a group; its properties repeat them.
            var last = parts[^1].TrimStart('_');
            var all = last switch
            {
                "W_E" => stacked.WE,
                "W_pos" => stacked.WPos,
                "W_U" => stacked.WU,
                "b_U" => stacked.BU,
                "W_Q" => stacked.WQ,
                "W_K" => stacked.WK,
                "W_V" => stacked.WV,
                "W_O" => stacked.WO,
                "b_Q" => stacked.BQ,
                "b_K" => stacked.BK,
                "b_V" => stacked.BV,
                "b_O" => stacked.BO,
                "W_in" => stacked.WIn,
                "W_gate" => stacked.WGate,
                "W_out" => stacked.WOut,
                "b_in" => stacked.BIn,
                _ => stacked.BOut,
            };
            var values = all.ToArray<float>();
            if (parts[0] == "blocks")
            {
                var one = values.Length / model.Spec.NLayers;
                values = values[(int.Parse(parts[1], System.Globalization.CultureInfo.InvariantCulture) * one)..][..one];
                if (parts[^1][0] == '_')
                {
                    var perHead = one / heads;
                    values = [.. Enumerable.Range(0, heads / group).SelectMany(h => values[(h * group * perHead)..][..perHead])];
                }
                else
                {
                    Assert.Equal(entry.Shape, all.Shape.Dims[1..].ToArray().Select(d => (long)d));
                }
            }

            Golden.Close(entry.Name, values, expected, 2e-5, 1e-4);
            checkedTensors++;
        }

        Assert.True(checkedTensors >= (12 * model.Spec.NLayers) + 3);
    }

    [Theory]
    [InlineData("gpt2_tiny")]
    [InlineData("gpt_neo_tinystories")]
    [InlineData("gpt_neox_pythia")]
    [InlineData("gemma_mqa")]
    [InlineData("gemma2")]
    [InlineData("mistral_sliding")]
    public void Probabilities_stay_what_they_were(string name)
    {
        var golden = Golden.Open("lm", name);
        using var device = new CpuDevice(2);
        using var plain = HookedTransformer.Load(golden.PathOf("model"), device);
        using var processed = plain.Process(WeightProcessing.Default with { RefactorFactoredAttentionMatrices = true });
        Assert.True(processed.Spec.FoldedNorms);
        using var scope = new TensorScope(device);
        var tokens = HookedTransformer.Tokens(scope, golden.Rows("inputs.safetensors", "tokens"));
        Golden.Close("loss", processed.LossPerToken(scope, tokens).ToArray<float>(), plain.LossPerToken(scope, tokens).ToArray<float>(), 2e-5, 1e-5);
    }

    [Fact]
    public void Refactored_attention_has_balanced_and_orthogonal_factors_and_the_same_products()
    {
        using var device = new CpuDevice(1);
        using var plain = HookedTransformer.Load(Golden.Open("lm", "gpt2_tiny").PathOf("model"), device);
        var folded = new WeightProcessing { FoldValueBiases = true };
        using var before = plain.Process(folded);
        using var after = plain.Process(folded with { RefactorFactoredAttentionMatrices = true });
        int d = plain.Spec.DModel, width = plain.Spec.DHead;
        foreach (var layer in new[] { 0, 2 })
        {
            var b = $"blocks.{layer}.attn.";
            double[][] q0 = Head(before, b + "W_Q", b + "b_Q", 1), k0 = Head(before, b + "W_K", b + "b_K", 1);
            double[][] q1 = Head(after, b + "W_Q", b + "b_Q", 1), k1 = Head(after, b + "W_K", b + "b_K", 1);
            for (var i = 0; i <= d; i += 5)
                for (var j = 0; j <= d; j += 3) Assert.Equal(Product(q0, k0, i, j), Product(q1, k1, i, j), 1e-5);
            for (var i = 0; i < width; i++)
            {
                Assert.Equal(Dot(q1[i], q1[i]), Dot(k1[i], k1[i]), 1e-5);
                for (var j = 0; j < i; j++) Assert.Equal(0, Dot(q1[i], q1[j]), 1e-5);
                if (i > 0) Assert.True(Dot(q1[i], q1[i]) <= Dot(q1[i - 1], q1[i - 1]) + 1e-6);
            }

            // W_O's rows of a head are orthonormal.
            var o = after.Parameters[b + "W_O"].ToArray<float>();
            var rows = Enumerable.Range(0, width).Select(c => Enumerable.Range(0, d).Select(r => (double)o[(r * d) + width + c]).ToArray()).ToArray();
            for (var i = 0; i < width; i++)
                for (var j = 0; j <= i; j++) Assert.Equal(i == j ? 1 : 0, Dot(rows[i], rows[j]), 1e-5);
        }

        double[][] Head(HookedTransformer m, string matrix, string bias, int head)
        {
            float[] w = m.Parameters[matrix].ToArray<float>(), v = m.Parameters[bias].ToArray<float>();
            return [.. Enumerable.Range(head * width, width).Select(r => w[(r * d)..((r + 1) * d)].Append(v[r]).Select(x => (double)x).ToArray())];
        }

        static double Product(double[][] a, double[][] b, int i, int j) => a.Zip(b, (x, y) => x[i] * y[j]).Sum();
        static double Dot(double[] a, double[] b) => a.Zip(b, (x, y) => x * y).Sum();
    }

    [Fact]
    public void Singular_values_of_a_product_that_lacks_rank_are_found()
    {
        // (1, 0, 0)(3, 4)^T twice: one singular value, 10.
        var s = LowRankSvd.Of([[1, 0, 0], [1, 0, 0]], [[3, 4], [3, 4]]);
        Assert.Equal(10, s.Values[0], 1e-12);
        Assert.Equal(0, s.Values[1], 1e-12);
        for (var i = 0; i < 3; i++)
            for (var j = 0; j < 2; j++)
                Assert.Equal(i == 0 ? 2 * (j + 3) : 0, Enumerable.Range(0, 2).Sum(k => s.Values[k] * s.Left[k][i] * s.Right[k][j]), 1e-12);
    }

    [Fact]
    public void What_a_model_does_not_allow_is_left_out_and_said()
    {
        var notes = new List<string>();
        var gemma2 = HookedTransformer.ReadSpec(Golden.Open("lm", "gemma2").PathOf("model"));
        var left = (WeightProcessing.Default with { RefactorFactoredAttentionMatrices = true }).For(gemma2, notes.Add);
        Assert.Equal(new WeightProcessing { FoldLayerNorm = true, FoldValueBiases = true }, left);
        Assert.Equal(3, notes.Count);
        Assert.StartsWith("center_writing_weights is left out: Gemma2ForCausalLM has RMSNorm", notes[0], StringComparison.Ordinal);
        Assert.Equal(new WeightProcessing { CenterWritingWeights = true },
            WeightProcessing.Read(JsonConfig.Parse("kwargs", "{\"center_writing_weights\":true,\"dtype\":\"x\"}"u8.ToArray()), WeightProcessing.None));
    }

    private static void Activations(string name, WeightProcessing processing, string file)
    {
        var golden = Golden.Open("lm", name);
        using var device = new CpuDevice(2);
        using var model = HookedTransformer.Load(golden.PathOf("model"), device, new ModelLoadOptions { Processing = processing });
        using var scope = new TensorScope(device);
        var (logits, cache) = model.RunWithCache(scope, HookedTransformer.Tokens(scope, golden.Rows("inputs.safetensors", "tokens")));
        var expected = golden.Floats(file);
        Assert.True(expected.Count > 10);
        foreach (var (hook, values) in expected) golden.Close(hook, (hook == "logits" ? logits : cache[hook]).ToArray<float>(), values);
        foreach (var (parameter, shape) in model.Spec.Parameters()) Assert.Equal(shape, model.Parameters[parameter].Shape);
        Assert.Equal(model.Spec.Parameters().Count(), model.Parameters.Count);
    }
}
