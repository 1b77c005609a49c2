using IlgpuSae.Activations;
using IlgpuSae.Autograd;
using IlgpuSae.Evaluation;
using IlgpuSae.Kernels;
using IlgpuSae.Models;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using IlgpuSae.Tests.Cli;
using Xunit;

namespace IlgpuSae.Tests.Evaluation;

/// <summary>A transcoder in a model: it reads one hook and stands in for another.</summary>
public sealed class TranscoderEvaluationTests : IDisposable
{
    private const string From = "blocks.0.ln2.hook_normalized";
    private const string To = "blocks.0.hook_mlp_out";
    private readonly CpuDevice _device = new(2);
    private readonly TempFolder _temp = new();
    private readonly HookedTransformer _model;
    private readonly TrainingSae _sae;

    public TranscoderEvaluationTests()
    {
        _model = HookedTransformer.Load(Golden.FolderOf("eval", "gpt2_resid_standard", "model"), _device);
        _sae = SaeRegistry.Default.CreateForTraining(new SkipTranscoderTrainingConfig { DIn = 32, DOut = 32, DSae = 64, DecoderInitNorm = 0.5 }, _device, seed: 2);
        _sae.Parameters["W_skip"].CopyFrom<float>([.. Enumerable.Range(0, 1024).Select(i => 0.1f * MathF.Sin(i))]);
    }

    public void Dispose()
    {
        _sae.Dispose();
        _model.Dispose();
        _temp.Dispose();
        _device.Dispose();
    }

    [Fact]
    public void The_model_goes_on_with_what_the_transcoder_gives()
    {
        using var scope = new TensorScope(_device);
        int[][] rows = [.. Enumerable.Range(0, 4).Select(r => Enumerable.Range(0, 9).Select(i => ((r * 11) + (i * i)) % 61).ToArray())];
        var tokens = HookedTransformer.Tokens(scope, rows);
        var (clean, cache) = _model.RunWithCache(scope, tokens, $"{From},{To}");
        var given = _sae.Forward(scope, cache[From]);
        var expected = _model.Forward(scope, tokens, new ForwardOptions { Hooks = [Hook.On(To, (_, _) => given)] });
        var spliced = _model.Forward(scope, tokens, new ForwardOptions { Hooks = SaeSplice.Transcoder(From, To, _sae) });
        Assert.Equal(expected.ToArray<float>(), spliced.ToArray<float>());
        Assert.NotEqual(clean.ToArray<float>(), spliced.ToArray<float>());

        var restored = _model.Forward(scope, tokens, new ForwardOptions { Hooks = SaeSplice.Transcoder(From, To, _sae, useErrorTerm: true) });
        Golden.Close("with the error term", restored.ToArray<float>(), clean.ToArray<float>(), 2e-5, 1e-4);

        // Its own evaluation says the same.
        var source = new TokenFileSource(Ilgpusae.Tokens(_temp, "t.safetensors", 4, 9, i => rows[i / 9][i % 9]));
        var result = new SaeEvaluator(_model, _sae, From, new EvaluationOptions { HookNameOut = To, BatchSizePrompts = 4, NEvalReconstructionBatches = 1, NEvalSparsityVarianceBatches = 1 })
            .Run(source, cancellation: TestContext.Current.CancellationToken);
        Assert.Equal(Reduce.Mean(scope, CrossEntropy.PerToken(scope, spliced, tokens)).Scalar(), result.ModelPerformancePreservation!.CeLossWithSae, 1e-5);
        Assert.Equal(Reduce.Mean(scope, KlDivergence.PerToken(scope, clean, spliced)).Scalar(), result.ModelBehaviorPreservation!.KlDivWithSae, 1e-5);
        float[] a = cache[To].ToArray<float>(), y = given.ToArray<float>();
        double[] mean = [.. Enumerable.Range(0, 32).Select(i => Enumerable.Range(0, 36).Average(r => (double)a[(r * 32) + i]))];
        var variance = a.Select((v, n) => Math.Pow(v - mean[n % 32], 2)).Sum();
        Assert.Equal(1 - (a.Zip(y).Sum(p => Math.Pow((double)p.First - p.Second, 2)) / variance), result.ReconstructionQuality!.ExplainedVariance, 1e-4);
        Assert.Equal(_sae.Encode(scope, cache[From]).L0, result.Sparsity!.L0, 1e-9);
    }

    [Fact]
    public void Gradients_reach_the_transcoders_parameters_through_the_model()
    {
        using var scope = new TensorScope(_device);
        var tokens = HookedTransformer.Tokens(scope, [1, 2, 3, 4, 5]);
        using var tape = new Tape(scope);
        foreach (var p in _sae.Parameters.Values) tape.Watch(p);
        tape.Backward(_model.Loss(scope, tokens, new ForwardOptions { Hooks = SaeSplice.Transcoder(From, To, _sae) }));
        Assert.All(_sae.Parameters.Values, p => Assert.Contains(tape.Gradient(p).ToArray<float>(), g => g != 0));
    }

    [Fact]
    public void What_cannot_be_spliced_is_refused()
    {
        using var scope = new TensorScope(_device);
        var tokens = HookedTransformer.Tokens(scope, [1, 2, 3]);
        Assert.StartsWith($"splice: {From} is reached before {To}", Assert.Throws<InvalidInputException>(() =>
            _model.Forward(scope, tokens, new ForwardOptions { Hooks = SaeSplice.Transcoder(To, From, _sae) })).Message, StringComparison.Ordinal);
        using var standard = SaeRegistry.Default.CreateForTraining(new StandardTrainingConfig { DIn = 32, DSae = 40 }, _device);
        Assert.StartsWith("splice: architecture standard is no transcoder", Assert.Throws<InvalidInputException>(() => SaeSplice.Transcoder(From, To, standard)).Message, StringComparison.Ordinal);
        Assert.StartsWith("hook_name_out: missing", Assert.Throws<InvalidInputException>(() => new SaeEvaluator(_model, _sae, From)).Message, StringComparison.Ordinal);
        Assert.StartsWith("eval: blocks.0.attn.hook_z", Assert.Throws<ShapeException>(() =>
            new SaeEvaluator(_model, _sae, From, new EvaluationOptions { HookNameOut = "blocks.0.attn.hook_z", HookHeadIndexOut = 1 })).Message, StringComparison.Ordinal);
    }
}
