using IlgpuSae.Activations;
using IlgpuSae.Files;
using IlgpuSae.Models;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using IlgpuSae.Tests.Cli;
using Xunit;

namespace IlgpuSae.Tests.Activations;

/// <summary>Activations of several hooks side by side, from one pass of the model or one file.</summary>
public sealed class SeveralHooksTests : IDisposable
{
    private readonly CpuDevice _device = new(2);
    private readonly TempFolder _temp = new();
    private readonly HookedTransformer _model;

    public SeveralHooksTests() => _model = HookedTransformer.Load(Golden.FolderOf("eval", "gpt2_resid_standard", "model"), _device);

    public static TheoryData<bool> BothOrders => [true, false];

    public void Dispose()
    {
        _model.Dispose();
        _temp.Dispose();
        _device.Dispose();
    }

    [Theory]
    [MemberData(nameof(BothOrders))]
    public void A_mixed_stream_of_several_hooks_holds_each_hooks_own_stream_bit_for_bit(bool shuffle)
    {
        ActivationHook[] hooks = [new("blocks.1.hook_mlp_out"), new("blocks.0.attn.hook_z", 3), new("blocks.0.hook_resid_pre"), new("blocks.0.attn.hook_z")];
        using var wide = new Stream(this, shuffle, hooks);
        var alone = hooks.Select(h => new Stream(this, shuffle, h)).ToList();
        Assert.Equal(["blocks.1.hook_mlp_out", "blocks.0.attn.hook_z[3]", "blocks.0.hook_resid_pre", "blocks.0.attn.hook_z"], wide.Buffer.Blocks.Select(b => b.Name));
        Assert.Equal([32, 8, 32, 32], wide.Buffer.Blocks.Select(b => b.Width));
        Assert.Equal([0, 32, 40, 72], wide.Buffer.Blocks.Select(b => b.First));
        Assert.Equal(104, wide.Buffer.Width);
        var rows = 0;
        while (wide.Next(13) is { } batch)
        {
            var n = batch.Length / 104;
            foreach (var (block, stream) in wide.Buffer.Blocks.Zip(alone))
                Assert.Equal(stream.Next(13)!, Enumerable.Range(0, n).SelectMany(r => batch.AsSpan((r * 104) + block.First, block.Width).ToArray()));
            rows += n;
        }

        Assert.True(rows > 100);
        Assert.All(alone, s => Assert.Null(s.Next(13)));
        foreach (var s in alone) s.Dispose();
    }

    [Fact]
    public void Hooks_that_cannot_be_taken_are_refused()
    {
        void Refused(string message, params ActivationHook[] hooks) => Assert.StartsWith(message,
            Assert.ThrowsAny<InvalidInputException>(() => new Stream(this, true, hooks)).Message, StringComparison.Ordinal);
        Refused("hook_name: missing");
        Refused("hook \"blocks.7.hook_resid_pre\"", new("blocks.0.hook_resid_pre"), new("blocks.7.hook_resid_pre"));
        Refused("hook_head_index: 4, but blocks.0.attn.hook_z has 4 heads (0 to 3)", new("blocks.0.hook_resid_pre"), new("blocks.0.attn.hook_z", 4));
        Refused("hook_head_index: 0, but blocks.0.hook_resid_pre", new ActivationHook("blocks.0.hook_resid_pre", 0));
        Refused("hook_name: blocks.0.attn.hook_pattern", new("blocks.0.hook_resid_pre"), new("blocks.0.attn.hook_pattern"));
    }

    [Fact]
    public void A_file_gives_inputs_and_targets_of_the_same_rows()
    {
        using var plain = new FileActivationSource(Pairs(20, 20), shuffle: false, tensors: ["acts", "targets"]);
        Assert.Equal([new("acts", 0, 2), new("targets", 2, 3)], plain.Blocks);
        Assert.Equal(Enumerable.Range(0, 7).Select(r => (r, r)), Read(plain, 7));
        Assert.Equal(Enumerable.Range(7, 20).Select(r => (r % 20, r % 20)), Read(plain, 20));
        using var mixed = new FileActivationSource(_temp["p.safetensors"], shuffle: true, seed: 3, tensors: ["acts", "targets"]);
        using var one = new FileActivationSource(_temp["p.safetensors"], shuffle: true, seed: 3);
        var rows = Read(mixed, 20);
        Assert.All(rows, r => Assert.Equal(r.Input, r.Target));
        using var scope = new TensorScope(_device);
        Assert.Equal(one.Next(scope, 20)!.ToArray<float>().Where((_, i) => i % 2 == 0), rows.Select(r => (float)r.Input));
        Assert.Equal(Enumerable.Range(0, 20).Average(r => r * Math.Sqrt(2)), plain.MeanNorm(_device, 7, plain.Blocks[0])!.Value, 1e-9);
        Assert.Equal(Enumerable.Range(0, 20).Average(r => 100 * r * Math.Sqrt(3)), plain.MeanNorm(_device, 7, plain.Blocks[1])!.Value, 1e-6);
    }

    [Fact]
    public void Targets_that_do_not_fit_are_refused()
    {
        var e = Assert.Throws<InvalidFileException>(() => new FileActivationSource(Pairs(20, 19), tensors: ["acts", "targets"]));
        Assert.Contains("tensor \"acts\" has 20 rows but \"targets\" has 19; row by row they belong to the same token", e.Message, StringComparison.Ordinal);
        Ilgpusae.Activations(_temp, "a.safetensors", 4, 2);
        Assert.Contains("\"targets\"", Assert.Throws<InvalidFileException>(() => new FileActivationSource(_temp["a.safetensors"], tensors: ["acts", "targets"])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Rows_in_memory_know_the_norms_of_their_blocks()
    {
        using var scope = new TensorScope(_device);
        var source = new RowSource(scope.From<float>([3, 4, 1, 0, 0, 2], [2, 3]));
        Assert.Equal(2.5, source.MeanNorm(_device, 1, new ColumnBlock("x", 0, 2))!.Value, 1e-6);
        Assert.Equal(1.5, source.MeanNorm(_device, 9, new ColumnBlock("y", 2, 1))!.Value, 1e-6);
        Assert.Equal(new ColumnBlock("", 0, 3), Assert.Single(((IActivationSource)source).Blocks));
    }

    /// <summary>Row r holds r twice and, as its target, 100 r three times.</summary>
    private string Pairs(int inputs, int targets)
    {
        new SafetensorsWriter()
            .Add("acts", [inputs, 2], Enumerable.Range(0, inputs * 2).Select(i => (float)(i / 2)).ToArray())
            .Add("targets", [targets, 3], Enumerable.Range(0, targets * 3).Select(i => 100f * (i / 3)).ToArray())
            .Save(_temp["p.safetensors"]);
        return _temp["p.safetensors"];
    }

    private List<(int Input, int Target)> Read(FileActivationSource source, int rows)
    {
        using var scope = new TensorScope(_device);
        return [.. source.Next(scope, rows)!.ToArray<float>().Chunk(5).Select(r =>
        {
            Assert.Equal((r[0], r[2], r[2]), (r[1], r[3], r[4]));
            return ((int)r[0], (int)(r[2] / 100));
        })];
    }

    /// <summary>Activations of a short corpus with left-out tokens, mixed.</summary>
    private sealed class Stream : IDisposable
    {
        private readonly SeveralHooksTests _owner;
        private readonly TokenFileSource _tokens;
        private readonly ModelActivationSource _source;

        public Stream(SeveralHooksTests owner, bool shuffle, params ActivationHook[] hooks)
        {
            _owner = owner;
            _tokens = new TokenFileSource(Ilgpusae.Tokens(owner._temp, "t.safetensors", 20, 8, i => (i * 7) % 61));
            var options = new ModelActivationOptions { Hooks = hooks, BatchSizePrompts = 3, ExcludedTokens = [7, 11], Wrap = false };
            _source = new ModelActivationSource(owner._model, _tokens, options);
            Buffer = new MixingBuffer(_source, 50, seed: 5, shuffle);
        }

        public MixingBuffer Buffer { get; }

        public float[]? Next(int rows)
        {
            using var scope = new TensorScope(_owner._device);
            return Buffer.Next(scope, rows)?.ToArray<float>();
        }

        public void Dispose()
        {
            Buffer.Dispose();
            _source.Dispose();
            _tokens.Dispose();
        }
    }
}
