using IlgpuSae.Evaluation;
using Xunit;

namespace IlgpuSae.Tests.Evaluation;

public sealed class OptimalAssignmentTests
{
    [Fact]
    public void No_other_assignment_is_worth_more()
    {
        var random = new Random(3);
        for (var trial = 0; trial < 300; trial++)
        {
            int rows = random.Next(1, 7), columns = random.Next(1, 7);
            // Few different numbers in half of the trials: ties.
            var gain = Enumerable.Range(0, rows * columns).Select(_ => trial % 2 == 0 ? random.NextSingle() : random.Next(3)).ToArray();
            var match = OptimalAssignment.Maximize(gain, rows, columns);
            var assigned = match.Where(c => c >= 0).ToList();
            Assert.Equal(Math.Min(rows, columns), assigned.Count);
            Assert.Equal(assigned.Count, assigned.Distinct().Count());
            Assert.Equal(Best(gain, rows, columns, 0, 0), match.Select((c, r) => c < 0 ? 0 : (double)gain[(r * columns) + c]).Sum(), 1e-5);
        }
    }

    [Fact]
    public void A_hidden_permutation_is_found_in_a_large_matrix()
    {
        const int Rows = 300, Columns = 700;
        var random = new Random(5);
        var columns = Enumerable.Range(0, Columns).OrderBy(_ => random.Next()).Take(Rows).ToArray();
        var gain = Enumerable.Range(0, Rows * Columns).Select(_ => 0.4f * random.NextSingle()).ToArray();
        for (var r = 0; r < Rows; r++) gain[(r * Columns) + columns[r]] = 0.5f + (0.5f * random.NextSingle());
        Assert.Equal(columns, OptimalAssignment.Maximize(gain, Rows, Columns));
    }

    [Fact]
    public void A_greedy_choice_is_not_enough()
    {
        // The largest pair, (0, 0), would leave 0.1 for the other row.
        Assert.Equal([1, 0], OptimalAssignment.Maximize([0.9f, 0.8f, 0.7f, 0.1f], 2, 2));
        Assert.Throws<ShapeException>(() => OptimalAssignment.Maximize([1f, 2f, 3f], 2, 2));
    }

    private static double Best(float[] gain, int rows, int columns, int row, int used)
    {
        if (row == rows) return 0;
        var best = rows - row > columns - int.PopCount(used) ? Best(gain, rows, columns, row + 1, used) : double.NegativeInfinity;
        for (var c = 0; c < columns; c++)
            if ((used & (1 << c)) == 0) best = Math.Max(best, gain[(row * columns) + c] + Best(gain, rows, columns, row + 1, used | (1 << c)));
        return best;
    }
}
