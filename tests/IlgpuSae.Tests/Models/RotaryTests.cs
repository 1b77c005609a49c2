using System.Text;
using IlgpuSae.Files;
using IlgpuSae.Models;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Models;

/// <summary>
/// Rotary frequencies against numbers computed in Python, in double, from the formulas of transformers'
/// modeling_rope_utils.py (_compute_llama3_parameters and so on).
/// </summary>
public sealed class RotaryTests
{
    [Theory]
    // Llama 3.1 8B: pairs 29..34 lie between the wavelengths 2048 and 8192.
    [InlineData(128, 500000, "\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192", 1.0,
        new[] { 0, 1, 28, 29, 32, 34, 35, 63 },
        new[] { 1.0, 0.8146172338565447, 0.0032114459947525913, 0.002166570763503359, 0.0005248461609929547, 0.00017850781276799638, 9.556212353964683e-05, 3.068925988914511e-07 })]
    // Llama 3.2 1B.
    [InlineData(64, 500000, "\"rope_type\":\"llama3\",\"factor\":32.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192", 1.0,
        new[] { 0, 14, 15, 16, 17, 18, 31 },
        new[] { 1.0, 0.0032114459947525913, 0.001290547928209264, 0.00042955679655936815, 9.70828780262767e-05, 1.9461638184831125e-05, 9.418306725434909e-08 })]
    [InlineData(64, 10000, "\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":2048", 1.138629436111989,
        new[] { 0, 7, 8, 12, 16, 20, 21, 31 },
        new[] { 1.0, 0.1333521432163324, 0.1, 0.024325212770525993, 0.005384615384615384, 0.0009730085108210396, 0.0005928434264154137, 3.33380358040831e-05 })]
    [InlineData(64, 10000, "\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":2048,\"truncate\":false", 1.138629436111989,
        new[] { 12 }, new[] { 0.023870192321736323 })]
    [InlineData(64, 10000, "\"rope_type\":\"yarn\",\"factor\":40,\"original_max_position_embeddings\":4096,\"mscale\":0.707,\"mscale_all_dim\":1.0", 0.9210423553163399, new[] { 0 }, new[] { 1.0 })]
    [InlineData(64, 10000, "\"rope_type\":\"yarn\",\"original_max_position_embeddings\":2048,\"attention_factor\":1.5", 1.5, new[] { 31 }, new[] { 3.33380358040831e-05 })]
    [InlineData(8, 10000, "\"type\":\"linear\",\"factor\":2.0", 1.0, new[] { 0, 1, 2, 3 }, new[] { 0.5, 0.05, 0.005, 0.0005 })]
    [InlineData(8, 10000, "\"type\":\"dynamic\",\"factor\":2.0", 1.0, new[] { 0, 1, 2, 3 }, new[] { 1, 0.1, 0.01, 0.001 })]
    [InlineData(8, 10000, "\"rope_type\":\"default\"", 1.0, new[] { 0, 1, 2, 3 }, new[] { 1, 0.1, 0.01, 0.001 })]
    public void Scaled_frequencies_are_those_of_transformers(int dim, double theta, string scaling, double attention, int[] pairs, double[] expected)
    {
        var spec = Spec(dim, theta, $"{{\"rope_scaling\":{{{scaling}}}}}");
        var f = RotaryTables.Frequencies(spec);
        Assert.Equal(dim / 2, f.Length);
        for (var i = 0; i < pairs.Length; i++) Assert.Equal(1, f[pairs[i]] / expected[i], 2e-7);
        Assert.Equal(attention, spec.RotaryScaling.AttentionFactor, 1e-12);
    }

    [Fact]
    public void The_newer_spelling_of_the_configuration_is_read_too()
    {
        var json = JsonConfig.Parse("config.json", Encoding.UTF8.GetBytes(
            "{\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4.0,\"rope_theta\":123.0},\"rope_theta\":7}"));
        Assert.Equal(new RopeScaling.Linear(4), RopeScaling.Read(json, 8192));
        Assert.Equal(123, RopeScaling.ReadTheta(json, 10000));
        Assert.Equal(10000, RopeScaling.ReadTheta(JsonConfig.Parse("config.json", "{}"u8.ToArray()), 10000));
    }

    [Theory]
    [InlineData("\"rope_type\":\"linear\",\"factor\":0", "\"rope_scaling.factor\" in line 1 is 0, expected more than 0")]
    [InlineData("\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":4.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192",
        "\"rope_scaling.high_freq_factor\" in line 1 is 4, expected more than low_freq_factor 4")]
    public void Impossible_scalings_are_refused(string scaling, string problem) => Assert.Equal("config.json: " + problem,
        Assert.Throws<InvalidFileException>(() => Spec(8, 10000, $"{{\"rope_scaling\":{{{scaling}}}}}")).Message);

    [Fact]
    public void Tables_hold_cos_and_sin_of_angles_rounded_to_float()
    {
        using var device = new CpuDevice(1);
        var spec = Spec(64, 10000, "{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":2048}}");
        using var tables = new RotaryTables(spec, device);
        Assert.Equal([2048, 32], tables.For(1).Cos.Shape.Dims.ToArray());
        var (c, s) = tables.For(8192);
        float[] cos = c.ToArray<float>(), sin = s.ToArray<float>();
        var angle = 8191 * RotaryTables.Frequencies(spec)[7];
        Assert.Equal((float)(Math.Cos(angle) * 1.138629436111989), cos[(8191 * 32) + 7]);
        Assert.Equal((float)(Math.Sin(angle) * 1.138629436111989), sin[(8191 * 32) + 7]);
    }

    private static ModelSpec Spec(int dim, double theta, string config) =>
        HookedTransformer.ReadSpec(Golden.Open("lm", "llama_gqa").PathOf("model")) with
        {
            RotaryDim = dim,
            RotaryBase = theta,
            NCtx = 8192,
            RotaryScaling = RopeScaling.Read(JsonConfig.Parse("config.json", Encoding.UTF8.GetBytes(config)), 8192),
        };
}
