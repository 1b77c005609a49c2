using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Saes;

/// <summary>SAEs of every architecture that SAELens has against SAELens 6.18's own numbers, within the cases' tolerances.</summary>
public sealed class SaeGoldenTests
{
    private static readonly CpuDevice Device = new(2);

    [Theory]
    [InlineData("gated")]
    [InlineData("gated_layer_norm_nobdec")]
    [InlineData("jumprelu")]
    [InlineData("jumprelu_const_norm_nobdec")]
    [InlineData("standard_bdec")]
    [InlineData("standard_constant_norm_rescale")]
    [InlineData("standard_expected_average")]
    [InlineData("standard_hook_z")]
    [InlineData("standard_layer_norm")]
    [InlineData("standard_nobdec_3d")]
    [InlineData("topk")]
    [InlineData("topk_big_k")]
    [InlineData("topk_rescale_decnorm")]
    public void An_SAE_from_a_folder_computes_what_SAELens_computes(string name)
    {
        var golden = Golden.Open("sae", name);
        using var sae = SaeLensFolder.Load(golden.PathOf("sae"), Device);
        SaeGolden.Check(golden, sae, "expected.safetensors");
    }

    [Theory]
    [InlineData("gated")]
    [InlineData("jumprelu")]
    [InlineData("standard_bdec")]
    [InlineData("standard_nobdec_3d")]
    [InlineData("topk_rescale_decnorm")]
    public void Folding_decoder_norms_gives_what_SAELens_gives(string name)
    {
        var golden = Golden.Open("sae", name);
        using var sae = SaeLensFolder.Load(golden.PathOf("sae"), Device);
        sae.FoldDecoderNorm();
        SaeGolden.Check(golden, sae, "expected_W_dec_folded.safetensors");
        SaeGolden.SameParameters(golden, sae, "sae_W_dec_folded");
    }

    [Fact]
    public void Folding_the_activation_scale_gives_what_SAELens_gives()
    {
        var golden = Golden.Open("sae", "standard_expected_average");
        using var sae = SaeLensFolder.Load(golden.PathOf("sae"), Device);
        sae.FoldActivationScale(golden.Case.GetProperty("scaling_factor").GetDouble());
        Assert.Equal(NormalizeActivations.None, sae.Config.NormalizeActivations);
        SaeGolden.Check(golden, sae, "expected_scale_folded.safetensors");
        SaeGolden.SameParameters(golden, sae, "sae_scale_folded");
    }

    [Theory]
    [InlineData("train_batchtopk")]
    [InlineData("train_gated")]
    [InlineData("train_jumprelu")]
    [InlineData("train_matryoshka_batchtopk")]
    [InlineData("train_standard")]
    [InlineData("train_topk")]
    public void A_training_form_computes_and_converts_as_in_SAELens(string name)
    {
        var golden = Golden.Open("sae", name);
        using var sae = SaeLensFolder.LoadForTraining(golden.PathOf("sae"), Device);
        SaeGolden.Check(golden, sae, "expected.safetensors");
        using var inference = sae.ToInference();
        SaeGolden.Check(golden, inference, "expected_inference.safetensors");
        SaeGolden.SameParameters(golden, inference, "sae_inference");
    }

    [Fact]
    public void The_error_term_restores_the_input_and_keeps_what_a_hook_changed()
    {
        var golden = Golden.Open("sae", "standard_bdec");
        var expected = golden.Floats("expected_error_term.safetensors");
        using var sae = SaeLensFolder.Load(golden.PathOf("sae"), Device);
        using var scope = new TensorScope(Device);
        var x = SaeGolden.Input(golden, scope);
        golden.Close("forward", sae.Forward(scope, x, useErrorTerm: true).ToArray<float>(), expected["forward"]);

        var calls = new List<string>();
        var hooks = new SaeHooks().On(SaeHooks.ActsPost, f =>
        {
            calls.Add(SaeHooks.ActsPost);
            var values = f.ToArray<float>();
            for (var i = 0; i < values.Length; i++)
                if (i % f.Shape.Last % 3 == 0) values[i] = 0;
            return scope.From<float>(values, f.Shape);
        }).On(SaeHooks.Error, e =>
        {
            calls.Add(SaeHooks.Error);
            return null;
        });
        golden.Close("ablated", sae.Forward(scope, x, hooks, useErrorTerm: true).ToArray<float>(), expected["forward_ablate_every_3rd"]);
        Assert.Equal([SaeHooks.ActsPost, SaeHooks.Error], calls);
    }

    [Fact]
    public void Pre_activations_can_be_replaced()
    {
        var golden = Golden.Open("sae", "topk_rescale_decnorm");
        using var sae = SaeLensFolder.Load(golden.PathOf("sae"), Device);
        using var scope = new TensorScope(Device);
        var x = SaeGolden.Input(golden, scope);
        var hooks = new SaeHooks().On(SaeHooks.ActsPre, pre =>
        {
            var values = pre.ToArray<float>();
            for (var i = 0; i < values.Length; i++) values[i] = i % pre.Shape.Last == 7 ? 2 : -1;
            return scope.From<float>(values, pre.Shape);
        });
        var f = sae.Encode(scope, x, hooks);
        Assert.All(f.Indices.ToArray<int>(), i => Assert.Equal(7, i));
        Assert.Equal(f.Rows, f.EntryCount);
        var norm = RowNorm.L2(scope, sae.WDec).ToArray<float>()[7];
        Assert.All(f.Values.ToArray<float>(), v => Assert.Equal(2 * norm, v, 1e-6f));
    }
}
