using IlgpuSae.Activations;
using Xunit;

namespace IlgpuSae.Tests.Activations;

/// <summary>Exact contexts as SAELens 6.18 makes them: token ids are their own positions in the running text.</summary>
public sealed class TokenPackerTests
{
    private static readonly int[][] Even = [Range(0, 2), Range(3, 9), Range(10, 16), Range(17, 19)];
    private static readonly int[][] Short = [Range(0, 2), Range(3, 9), Range(10, 16), Range(17, 18)];
    private static readonly int[][] Five = [Range(0, 2), Range(3, 7), Range(8, 10), Range(11, 16), Range(17, 18)];

    [Fact]
    public void Without_special_tokens_sequences_run_on() => Same(Even, new() { ContextSize = 5 },
        Range(0, 4), Range(5, 9), Range(10, 14), Range(15, 19));

    [Fact]
    public void A_begin_batch_token_starts_every_context() => Same(Short, new() { ContextSize = 5, BeginBatchToken = 999 },
        [999, 0, 1, 2, 3], [999, .. Range(4, 7)], [999, .. Range(8, 11)], [999, .. Range(12, 15)]);

    [Fact]
    public void A_begin_sequence_token_starts_every_sequence() => Same(Short, new() { ContextSize = 5, BeginSequenceToken = 998 },
        [998, 0, 1, 2, 998], Range(3, 7), [8, 9, 998, 10, 11], Range(12, 16));

    [Fact]
    public void A_separator_stands_between_sequences() => Same(Short, new() { ContextSize = 5, SequenceSeparatorToken = 997 },
        [0, 1, 2, 997, 3], Range(4, 8), [9, 997, 10, 11, 12], [13, 14, 15, 16, 997]);

    [Fact]
    public void All_three_stand_in_order() => Same(Five,
        new() { ContextSize = 5, SequenceSeparatorToken = 997, BeginSequenceToken = 998, BeginBatchToken = 999 },
        [999, 998, 0, 1, 2], [999, 998, 3, 4, 5], [999, 6, 7, 997, 998], [999, 8, 9, 10, 997], [999, .. Range(11, 14)], [999, 15, 16, 997, 998]);

    [Fact]
    public void Equal_special_tokens_collapse() => Same(Five,
        new() { ContextSize = 5, SequenceSeparatorToken = 999, BeginSequenceToken = 999, BeginBatchToken = 999 },
        [999, 0, 1, 2, 999], [999, .. Range(3, 6)], [999, 7, 999, 8, 9], [999, 10, 999, 11, 12], [999, .. Range(13, 16)]);

    [Theory]
    [InlineData(null, null)]
    [InlineData(999, null)]
    [InlineData(null, 999)]
    [InlineData(999, 888)]
    [InlineData(0, null)]
    public void One_context_a_sequence(int? batch, int? sequence)
    {
        var options = new PackingOptions { ContextSize = 5, DisableConcatSequences = true, BeginBatchToken = batch, BeginSequenceToken = sequence };
        var first = sequence ?? batch;
        if (first is { } t) Same(Short, options, [t, 3, 4, 5, 6], [t, 10, 11, 12, 13]);
        else Same(Short, options, Range(3, 7), Range(10, 14));
    }

    [Fact]
    public void A_token_already_there_is_not_doubled()
    {
        Same([[7, 1, 2], [7, 3]], new() { ContextSize = 5, BeginBatchToken = 7, SequenceSeparatorToken = 7 }, [7, 1, 2, 7, 3]);
        Same([[7, 1, 2]], new() { ContextSize = 3, BeginBatchToken = 7, DisableConcatSequences = true }, [7, 1, 2]);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Empty_sequences_are_passed_over(bool disableConcat) => Same([[], [1, 2, 3], []],
        new() { ContextSize = 3, BeginSequenceToken = 1, DisableConcatSequences = disableConcat }, [1, 2, 3]);

    [Fact]
    public void A_context_without_room_is_refused()
    {
        Assert.Contains("context_size: 0", Assert.Throws<InvalidInputException>(() => new TokenPacker(new() { ContextSize = 0 })).Message, StringComparison.Ordinal);
        Assert.Throws<InvalidInputException>(() => new TokenPacker(new() { ContextSize = 1, BeginBatchToken = 3 }));
    }

    [Theory]
    [InlineData(":", 4, new[] { 0, 1, 2, 3 })]
    [InlineData("1:", 4, new[] { 1, 2, 3 })]
    [InlineData("3", 4, new[] { 0, 1, 2 })]
    [InlineData("-2:", 4, new[] { 2, 3 })]
    [InlineData("0:9:2", 5, new[] { 0, 2, 4 })]
    [InlineData("1:-1:1", 4, new[] { 1, 2 })]
    public void Position_slices_are_pythons(string text, int size, int[] expected)
    {
        var slice = PositionSlice.Parse(text);
        Assert.Equal(expected, slice.Positions(size));
        Assert.Equal(slice, PositionSlice.FromArguments(slice.ToArguments()));
        Assert.Equal(slice, PositionSlice.Parse(slice.ToString()));
    }

    [Theory]
    [InlineData("a")]
    [InlineData("1:2:3:4")]
    [InlineData("1:2:0")]
    [InlineData("1:2:-1")]
    public void Bad_slices_are_refused(string text) =>
        Assert.StartsWith("seqpos_slice: \"" + text, Assert.Throws<InvalidInputException>(() => PositionSlice.Parse(text)).Message, StringComparison.Ordinal);

    [Fact]
    public void An_empty_slice_is_refused() =>
        Assert.Contains("leaves no position", Assert.Throws<InvalidInputException>(() => PositionSlice.Parse("5:").Positions(5)).Message, StringComparison.Ordinal);

    private static int[] Range(int first, int last) => [.. Enumerable.Range(first, last - first + 1)];

    private static void Same(int[][] sequences, PackingOptions options, params int[][] expected) =>
        Assert.Equal(expected, new TokenPacker(options).Pack(sequences));
}
