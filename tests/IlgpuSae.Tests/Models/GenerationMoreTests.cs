using IlgpuSae.Models;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using IlgpuSae.Tests.Tokenizers;
using IlgpuSae.Tokenizers;
using Xunit;

namespace IlgpuSae.Tests.Models;

/// <summary>Prompts of different lengths, penalties, stop strings, the end of the context.</summary>
public sealed class GenerationMoreTests
{
    private static readonly int[][] Ragged = [[3, 17, 42, 5, 60], [9], [31, 77, 50]];

    public static TheoryData<string> Models => ["gpt2_tiny", "llama_gqa", "gemma2", "mistral_sliding", "gpt_neox_pythia"];

    [Theory]
    [MemberData(nameof(Models))]
    public void Prompts_of_different_lengths_get_the_bits_they_get_alone(string name) => Run(name, model =>
    {
        using var scope = new TensorScope(model.Device);
        int[] padding = [0, 4, 2];
        var tokens = HookedTransformer.Tokens(scope, [.. Ragged.Select((r, i) => Enumerable.Repeat(0, padding[i]).Concat(r).ToArray())]);
        var options = new ForwardOptions { Padding = padding };
        var (logits, cache) = model.RunWithCache(scope, tokens, "*", options);
        Assert.Equal(logits.ToArray<float>(), model.Forward(scope, tokens, options).ToArray<float>());
        for (var r = 0; r < 3; r++)
        {
            var (alone, own) = model.RunWithCache(scope, HookedTransformer.Tokens(scope, [Ragged[r]]), "*");
            Assert.Equal(alone.ToArray<float>(), Tail(logits, r, 1, padding[r]));
            foreach (var (hook, tensor) in own.All)
            {
                if (model.Hooks[hook].Width > 0) Assert.Equal(tensor.ToArray<float>(), Tail(cache[hook], r, 1, padding[r]));
                else Assert.Equal(tensor.ToArray<float>(), Square(cache[hook], r, padding[r]));
            }
        }

        // What a query must not see: the padding.
        var pattern = cache["pattern", 1].ToArray<float>();
        for (var q = 0; q < 5; q++)
            for (var k = 0; k < 4; k++) Assert.Equal(0, pattern[(((model.Spec.NHeads + 0) * 5) + q) * 5 + k]);
    });

    [Theory]
    [MemberData(nameof(Models))]
    public void A_batch_of_different_prompts_generates_what_each_generates_alone(string name) => Run(name, model =>
    {
        var looked = Hook.Where(h => h.Name.EndsWith("attn_scores", StringComparison.Ordinal), (_, _) => null);
        foreach (var options in new[]
        {
            new GenerationOptions { MaxNewTokens = 9 }, new GenerationOptions { MaxNewTokens = 9, UseCache = false },
            new GenerationOptions { MaxNewTokens = 7, Temperature = 1, TopK = 30, Seed = 4, RepetitionPenalty = 1.3, FrequencyPenalty = 0.4 },
            new GenerationOptions { MaxNewTokens = 4, Hooks = [looked] },
        })
        {
            var together = model.Generate(Ragged, options, TestContext.Current.CancellationToken);
            for (var r = 0; r < 3; r++)
                Assert.Equal([together[r]], model.Generate([Ragged[r]], options with { FirstRow = (ulong)r }, TestContext.Current.CancellationToken));
        }
    });

    [Fact]
    public void Penalties_follow_their_formulas()
    {
        float[] logits = [2, -1, 1.5f, 0];
        int Greedy(GenerationOptions o, params int[] seen) => Sampler.Draw(logits, o, 0, 0, seen);
        Assert.Equal(0, Greedy(new()));
        // 2 / 1.5 falls below 1.5; -1 * 1.5 falls further.
        Assert.Equal(2, Greedy(new() { RepetitionPenalty = 1.5 }, 0, 1, 0));
        Assert.Equal(0, Greedy(new() { FrequencyPenalty = 0.2 }, 0, 0));
        Assert.Equal(2, Greedy(new() { FrequencyPenalty = 0.2 }, 0, 0, 0));
        // After the temperature, as TransformerLens has it: 2 / 4 - 0.2 < 1.5 / 4.
        Assert.Equal(2, Greedy(new() { Temperature = 4, TopK = 1, FrequencyPenalty = 0.2 }, 0));
        Assert.Equal("generate: repetition penalty is 0, expected more than 0 (1: none)", Assert.Throws<InvalidInputException>(() => new GenerationOptions { RepetitionPenalty = 0 }.Validate()).Message);
        Assert.Equal("generate: frequency penalty is NaN, expected a number (0: none)", Assert.Throws<InvalidInputException>(() => new GenerationOptions { FrequencyPenalty = double.NaN }.Validate()).Message);
    }

    [Fact]
    public void A_repetition_penalty_ends_loops() => Run("gpt2_tiny", model =>
    {
        var plain = model.Generate([[3, 17]], new() { MaxNewTokens = 20 }, TestContext.Current.CancellationToken)[0];
        var penalized = model.Generate([[3, 17]], new() { MaxNewTokens = 20, RepetitionPenalty = 50 }, TestContext.Current.CancellationToken)[0];
        Assert.True(penalized.Distinct().Count() > plain.Distinct().Count());
    });

    [Fact]
    public void A_full_context_ends_a_row_or_slides_as_asked() => Run("gpt2_tiny", model =>
    {
        int[] prompt = [.. Enumerable.Range(0, 30)];
        var stopped = model.Stream([prompt], new() { MaxNewTokens = 10, Overflow = ContextOverflow.Stop }, TestContext.Current.CancellationToken).ToList();
        Assert.Equal(2, stopped.Count);
        Assert.Equal([FinishReason.ContextFull], stopped[^1].Finished);
        Assert.Equal([FinishReason.None], stopped[0].Finished);
        var slid = model.Generate([prompt, [5, 6]], new() { MaxNewTokens = 40, Overflow = ContextOverflow.Slide }, TestContext.Current.CancellationToken);
        Assert.Equal([70, 42], slid.Select(r => r.Length));
        Assert.Equal(slid, model.Generate([prompt, [5, 6]], new() { MaxNewTokens = 40, Overflow = ContextOverflow.Slide, UseCache = false }, TestContext.Current.CancellationToken));
        // The 33rd token is the first made from a window of 16.
        var window = model.Generate([slid[0][17..33]], new() { MaxNewTokens = 1 }, TestContext.Current.CancellationToken)[0];
        Assert.Equal(slid[0][33], window[^1]);
        Assert.Equal([FinishReason.Length], model.Stream([[1]], new() { MaxNewTokens = 3 }, TestContext.Current.CancellationToken).Last().Finished);
        Assert.Equal("generate: a sliding context has no end of its own; give the number of new tokens",
            Assert.Throws<InvalidInputException>(() => model.Stream([[1]], new() { Overflow = ContextOverflow.Slide }, TestContext.Current.CancellationToken)).Message);
    });

    [Fact]
    public void Padding_that_does_not_fit_is_refused() => Run("gpt2_tiny", model =>
    {
        using var scope = new TensorScope(model.Device);
        var tokens = HookedTransformer.Tokens(scope, [1, 2], [3, 4]);
        string Message(ForwardOptions o) => Assert.Throws<InvalidInputException>(() => model.Forward(scope, tokens, o)).Message;
        Assert.Equal("padding: 1 numbers for 2 rows", Message(new() { Padding = [0] }));
        Assert.Equal("padding: row 1 has 2 of 2 positions, expected 0 to 1", Message(new() { Padding = [0, 2] }));
        Assert.Equal("loss: the batch is padded; give sequences of equal length, or one by one",
            Assert.Throws<InvalidInputException>(() => model.Loss(scope, tokens, new() { Padding = [0, 1] })).Message);
        using var tape = new Autograd.Tape(scope);
        Assert.StartsWith("model: gradients do not pass through a padded batch", Message(new() { Padding = [0, 1] }), StringComparison.Ordinal);
    });

    [Fact]
    public void Text_streams_in_whole_characters_and_ends_before_a_stop_string()
    {
        using var folder = new TempFolder();
        TinyBpe.WriteFolder(folder);
        var tokenizer = Tokenizer.Load(folder.Path);
        // A model that says what it is told: a hook on the last norm puts the next token's logit on top.
        var c = Checkpoint.Of("gpt2_tiny");
        var name = c.Tensors.Keys.Single(k => k.EndsWith("wte.weight", StringComparison.Ordinal));
        var random = new Random(1);
        var rows = Enumerable.Range(0, TinyBpe.EndOfText + 1).Select(_ => Enumerable.Range(0, 32).Select(_ => (float)random.NextDouble() - 0.5f).ToArray())
            .SelectMany(r => r.Select(v => v / MathF.Sqrt(r.Sum(w => w * w)))).ToArray();
        c.Set(name, [TinyBpe.EndOfText + 1, 32], i => rows[i]);
        c.Config["vocab_size"] = TinyBpe.EndOfText + 1;
        using var saved = new TempFolder();
        using var device = new CpuDevice(1);
        using var model = HookedTransformer.Load(c.Save(saved), device);
        int[] answer = tokenizer.Encode("Zwölf Äpfel, END und", addBos: false), prompt = tokenizer.Encode("Sag: ", addBos: false);
        var n = 0;
        var say = Hook.On("ln_final.hook_normalized", (x, site) =>
        {
            // The rows have length 1: the token whose row this is has the largest logit.
            var y = x.ToArray<float>();
            for (var i = 0; i < 32; i++) y[y.Length - 32 + i] = 1000 * rows[(answer[Math.Min(n, answer.Length - 1)] * 32) + i];
            n++;
            return site.Scope.From<float>(y, x.Shape);
        });
        var options = new GenerationOptions { MaxNewTokens = Math.Min(answer.Length, 30 - prompt.Length), Hooks = [say] };
        var told = model.Generate([prompt], options, TestContext.Current.CancellationToken)[0][prompt.Length..];
        n = 0;
        var text = tokenizer.Decode(told);
        Assert.StartsWith("Zwölf Äpfel, END", text, StringComparison.Ordinal);
        var pieces = model.StreamText(tokenizer, [prompt], options, null, TestContext.Current.CancellationToken).ToList();
        Assert.Equal(text, string.Concat(pieces.Select(p => p.Text)));
        Assert.All(pieces, p => Assert.DoesNotContain('\uFFFD', p.Text));
        // Any part of what it says, as a stop string that spans tokens.
        const string Stop = "el, E";
        n = 0;
        var (stopped, reason) = model.GenerateText(tokenizer, [prompt], options, [Stop, "never"], TestContext.Current.CancellationToken)[0];
        Assert.Equal(FinishReason.StopString, reason);
        Assert.Equal(text[..text.IndexOf(Stop, StringComparison.Ordinal)], stopped);
        Assert.Equal("generate: a stop string is empty",
            Assert.Throws<InvalidInputException>(() => model.StreamText(tokenizer, [prompt], options, [""], TestContext.Current.CancellationToken)).Message);
    }

    /// <summary>One row of a batch without its first positions.</summary>
    private static float[] Tail(Tensor t, int row, int axis, int skipped)
    {
        var one = (int)(t.Count / t.Shape[0]);
        var inner = one / t.Shape[axis];
        return t.ToArray<float>()[((row * one) + (skipped * inner))..((row + 1) * one)];
    }

    /// <summary>One row's own queries and keys of scores or patterns.</summary>
    private static float[] Square(Tensor t, int row, int skipped)
    {
        int heads = t.Shape[1], n = t.Shape[2];
        var values = t.ToArray<float>();
        return [.. Enumerable.Range(0, heads).SelectMany(h => Enumerable.Range(skipped, n - skipped)
            .SelectMany(q => Enumerable.Range(skipped, n - skipped).Select(k => values[(((((row * heads) + h) * n) + q) * n) + k])))];
    }

    private static void Run(string name, Action<HookedTransformer> body)
    {
        using var device = new CpuDevice(2);
        using var model = HookedTransformer.Load(Golden.Open("lm", name).PathOf("model"), device);
        body(model);
    }
}
