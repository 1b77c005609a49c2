using System.Runtime.InteropServices;
using System.Security.Cryptography;
using IlgpuSae.Activations;
using IlgpuSae.Files;
using IlgpuSae.Models;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using IlgpuSae.Tests.Cli;
using Xunit;

namespace IlgpuSae.Tests.Activations;

public sealed class ActivationSourceTests : IDisposable
{
    private readonly CpuDevice _device = new(2);
    private readonly TempFolder _temp = new();

    public void Dispose()
    {
        _temp.Dispose();
        _device.Dispose();
    }

    [Fact]
    public void A_file_is_read_in_order_and_again_from_the_top()
    {
        using var source = new FileActivationSource(Numbered("a.safetensors", 10));
        Assert.Equal([0, 1, 2, 3, 4, 5, 6], Rows(source, 7));
        Assert.Equal(0, source.Wraps);
        Assert.Equal([7, 8, 9, 0, 1, 2, 3], Rows(source, 7));
        Assert.Equal(1, source.Wraps);
        Assert.Equal([4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5], Rows(source, 12));
    }

    [Fact]
    public void A_shuffled_file_gives_every_row_once_an_epoch_in_a_new_order()
    {
        using var source = new FileActivationSource(Numbered("a.safetensors", 50), shuffle: true, seed: 3);
        var (first, second) = (Rows(source, 50), Rows(source, 50));
        Assert.NotEqual(first, second);
        Assert.Equal(Enumerable.Range(0, 50), first.Order());
        Assert.Equal(Enumerable.Range(0, 50), second.Order());
        using var again = new FileActivationSource(_temp["a.safetensors"], shuffle: true, seed: 3);
        Assert.Equal(first, Rows(again, 50));
    }

    [Fact]
    public void The_mean_norm_is_that_of_all_rows()
    {
        new SafetensorsWriter().Add("acts", [3, 2], new float[] { 3, 4, 0, 1, 6, 8 }).Save(_temp["n.safetensors"]);
        using var source = new FileActivationSource(_temp["n.safetensors"]);
        Assert.Equal((5 + 1 + 10) / 3.0, source.MeanNorm(_device, 2)!.Value, 12);
        Assert.Equal([3, 0], Rows(source, 2));
    }

    [Theory]
    [InlineData(40, 0.5)]
    [InlineData(40, 0.0)]
    [InlineData(7, 0.5)]
    [InlineData(1000, 0.5)]
    public void The_buffer_serves_every_row_once_and_mixed(int capacity, double keep)
    {
        using var buffer = new MixingBuffer(new Counter(100), capacity, seed: 1, keep: keep);
        var served = new List<int>();
        while (TryRows(buffer, 7) is { } rows) served.AddRange(rows);
        Assert.Equal(Enumerable.Range(0, 100), served.Order());
        Assert.NotEqual(Enumerable.Range(0, 100), served);
        using var again = new MixingBuffer(new Counter(100), capacity, seed: 1, keep: keep);
        Assert.Equal(served[..7], Rows(again, 7));
        using var other = new MixingBuffer(new Counter(100), capacity, seed: 2, keep: keep);
        Assert.NotEqual(served[..7], Rows(other, 7));
    }

    [Fact]
    public void Half_of_the_buffer_is_served_between_refills()
    {
        var counter = new Counter(1000);
        using var buffer = new MixingBuffer(counter, 40, seed: 1);
        Rows(buffer, 10);
        Rows(buffer, 10);
        Assert.Equal(40, counter.Given);
        Rows(buffer, 10);
        Assert.Equal(60, counter.Given);
    }

    [Fact]
    public void Without_shuffling_the_buffer_only_fills_batches()
    {
        using var buffer = new MixingBuffer(new Counter(23, most: 4), 10, seed: 1, shuffle: false);
        Assert.Equal(Enumerable.Range(0, 10), Rows(buffer, 10));
        Assert.Equal(Enumerable.Range(10, 10), Rows(buffer, 10));
        Assert.Equal([20, 21, 22], Rows(buffer, 10));
        Assert.Null(TryRows(buffer, 10));
    }

    [Fact]
    public void A_batch_larger_than_the_buffer_is_refused()
    {
        using var buffer = new MixingBuffer(new Counter(100), 5, seed: 1);
        Assert.Contains("a batch of 6 tokens is larger than the buffer of 5", Assert.Throws<InvalidInputException>(() => Rows(buffer, 6)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(FeatureGroups.None)]
    [InlineData(FeatureGroups.Hierarchical)]
    [InlineData(FeatureGroups.Correlated)]
    public void Synthetic_features_are_as_frequent_as_stated(FeatureGroups groups)
    {
        // With as many dimensions as features and directions close to orthogonal the features can be read off.
        var config = new SyntheticConfig { DIn = 512, NTrue = 8, MeanActive = 2, MagnitudeSpread = 0, Groups = groups, GroupSize = 4 };
        var source = new SyntheticSuperposition(config);
        Assert.Equal(2, source.Probability.Sum(), 9);
        Assert.True(source.Probability[0] > source.Probability[7]);
        const int Rows = 20000;
        var counts = new int[8];
        int together = 0, orphans = 0;
        using var scope = new TensorScope(_device);
        var values = source.Next(scope, Rows)!.ToArray<float>();
        for (var r = 0; r < Rows; r++)
        {
            var active = new bool[8];
            for (var j = 0; j < 8; j++)
            {
                double dot = 0;
                for (var i = 0; i < 512; i++) dot += values[(r * 512) + i] * source.Directions[(j * 512) + i];
                active[j] = dot > 0.5;
                if (active[j]) counts[j]++;
            }

            if (active[1] && active[2]) together++;
            if (active[1] && !active[0]) orphans++;
        }

        for (var j = 0; j < 8; j++) Assert.Equal(source.Probability[j], counts[j] / (double)Rows, 0.02);
        var independent = source.Probability[1] * source.Probability[2];
        if (groups == FeatureGroups.Hierarchical) Assert.Equal(0, orphans);
        else Assert.True(orphans > 0);
        if (groups == FeatureGroups.None) Assert.Equal(independent, together / (double)Rows, 0.01);
        else Assert.True(together / (double)Rows > independent + 0.02);
    }

    [Fact]
    public void Synthetic_rows_are_the_same_however_they_are_asked_for()
    {
        var config = new SyntheticConfig { DIn = 8, NTrue = 20, NoiseStd = 0.1, Groups = FeatureGroups.Correlated };
        using var one = new CpuDevice(1);
        using TensorScope a = new(_device), b = new(one);
        var whole = new SyntheticSuperposition(config).Next(a, 300)!.ToArray<float>();
        var source = new SyntheticSuperposition(config);
        float[] parts = [.. source.Next(b, 100)!.ToArray<float>(), .. source.Next(b, 200)!.ToArray<float>()];
        Assert.Equal(whole, parts);
        Assert.NotEqual(whole, new SyntheticSuperposition(config with { Seed = 1 }).Next(a, 300)!.ToArray<float>());
    }

    [Theory]
    [InlineData(FeatureGroups.None, "28BE2CA2729F835C")]
    [InlineData(FeatureGroups.Hierarchical, "F03940EB7ABADB35")]
    [InlineData(FeatureGroups.Correlated, "90BD132B85DB11C2")]
    public void Synthetic_rows_never_change_their_bytes(FeatureGroups groups, string hash)
    {
        using var scope = new TensorScope(_device);
        var x = new SyntheticSuperposition(new SyntheticConfig { NTrue = 50, DIn = 24, NoiseStd = 0.1, Groups = groups }).Next(scope, 200)!.ToArray<float>();
        Assert.Equal(hash, Convert.ToHexString(SHA256.HashData(MemoryMarshal.AsBytes<float>(x)))[..16]);
    }

    [Fact]
    public void Recovery_matches_one_to_one()
    {
        var source = new SyntheticSuperposition(new SyntheticConfig { DIn = 16, NTrue = 5, MeanActive = 1 });
        using var scope = new TensorScope(_device);
        var decoder = new float[4 * 16];
        // Feature 0 twice, feature 1 with the other sign and longer, and a row of zeros.
        source.Directions[..16].CopyTo(decoder);
        source.Directions[..16].CopyTo(decoder.AsSpan(16));
        for (var i = 0; i < 16; i++) decoder[32 + i] = -3 * source.Directions[16 + i];
        var found = source.Recovery(scope.From<float>(decoder, [4, 16]));
        Assert.Equal(2, found.Found);
        Assert.Equal([0, 2, -1, -1, -1], found.Match);
        Assert.InRange(found.MeanMaxCosine, 0.4, 0.999);
        var all = source.Recovery(scope.From<float>(source.Directions, [5, 16]));
        Assert.Equal((5, 1.0), (all.Found, Math.Round(all.MeanMaxCosine, 6)));
    }

    [Fact]
    public void A_model_gives_the_rows_of_kept_tokens_and_positions()
    {
        using var model = HookedTransformer.Load(Golden.FolderOf("eval", "gpt2_resid_standard", "model"), _device);
        var path = Ilgpusae.Tokens(_temp, "t.safetensors", 5, 8, i => (i * 7) % 61);
        using var tokens = new TokenFileSource(path);
        const string Hook = "blocks.0.attn.hook_z";
        var options = new ModelActivationOptions { Hooks = [new(Hook)], BatchSizePrompts = 2, Positions = PositionSlice.Parse("1::3"), ExcludedTokens = [7], Wrap = false };
        using var source = new ModelActivationSource(model, tokens, options);
        using var head = new ModelActivationSource(model, new TokenFileSource(path), options with { Hooks = [new(Hook, 2)] });
        Assert.Equal((32, 8), (source.Width, head.Width));
        using var scope = new TensorScope(_device);
        List<float> rows = [], heads = [];
        while (source.Next(scope, 3) is { } part) rows.AddRange(part.ToArray<float>());
        while (head.Next(scope, 100) is { } part) heads.AddRange(part.ToArray<float>());

        var ids = Enumerable.Range(0, 40).Select(i => (i * 7) % 61).ToArray();
        var all = model.Activations(scope, HookedTransformer.Tokens(scope, [.. ids.Chunk(8)]), Hook)[Hook].ToArray<float>();
        var kept = Enumerable.Range(0, 40).Where(i => i % 8 is 1 or 4 or 7 && ids[i] != 7).ToList();
        Assert.True(kept.Count is > 10 and < 15);
        // Batches of another size differ by the order of sums in the matrix product alone.
        Golden.Close("rows", [.. rows], [.. kept.SelectMany(i => all.Skip(i * 32).Take(32))], 1e-5, 1e-5);
        Golden.Close("one head", [.. heads], [.. kept.SelectMany(i => all.Skip((i * 32) + 16).Take(8))], 1e-5, 1e-5);
        Assert.Equal(40, source.TokensRun);
    }

    [Fact]
    public void Token_files_wrap_are_cut_and_take_ranges()
    {
        var path = Ilgpusae.Tokens(_temp, "t.safetensors", 4, 6, i => i);
        using var range = new TokenFileSource(path, contexts: PositionSlice.Parse("1:3"));
        Assert.Equal([6, 7, 8, 9, 10, 11], range.Next()!);
        Assert.Equal([12, 13, 14, 15, 16, 17], range.Next()!);
        Assert.Null(range.Next(wrap: false));
        Assert.Equal([6, 7, 8, 9, 10, 11], range.Next()!);
        using var cut = new TokenFileSource(path, contextSize: 4);
        Assert.Equal([0, 1, 2, 3, 6, 7, 8, 9], cut.NextBatch(2));
        Assert.Contains("cut to context_size = 4", Assert.Single(cut.Notes), StringComparison.Ordinal);
        Assert.Equal(8, cut.NextBatch(5, wrap: false).Length);
        Assert.Throws<InvalidFileException>(() => new TokenFileSource(path, contextSize: 7));
        Assert.Throws<InvalidInputException>(() => new TokenFileSource(path, contexts: PositionSlice.Parse("2:9")));
        new SafetensorsWriter().Add("tokens", [11], Enumerable.Range(0, 11).ToArray()).Save(_temp["flat.safetensors"]);
        using var flat = new TokenFileSource(_temp["flat.safetensors"], contextSize: 4);
        Assert.Equal([4, 5, 6, 7], flat.NextBatch(2).Skip(4));
        Assert.Equal(1, flat.Next(wrap: true)![1]);
        Assert.Equal(1, flat.Wraps);
    }

    private string Numbered(string name, int rows) => Ilgpusae.Activations(_temp, name, rows, 2, [.. Enumerable.Range(0, rows * 2).Select(i => (float)(i / 2))]);

    private int[] Rows(IActivationSource source, int rows) => TryRows(source, rows)!;

    private int[]? TryRows(IActivationSource source, int rows)
    {
        using var scope = new TensorScope(_device);
        return source.Next(scope, rows)?.ToArray<float>().Where((_, i) => i % source.Width == 0).Select(v => (int)v).ToArray();
    }

    /// <summary>Rows 0, 1, 2, ... of width 2, a few at a time.</summary>
    private sealed class Counter(int rows, int most = 9) : IActivationSource
    {
        public int Given { get; private set; }

        public int Width => 2;

        public Tensor? Next(TensorScope scope, int wanted)
        {
            var n = Math.Min(Math.Min(wanted, most), rows - Given);
            if (n == 0) return null;
            var values = Enumerable.Range(Given * 2, n * 2).Select(i => (float)(i / 2)).ToArray();
            Given += n;
            return scope.From<float>(values, [n, 2]);
        }
    }
}
