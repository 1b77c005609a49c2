namespace IlgpuSae.Evaluation;

/// <summary>
/// The one-to-one assignment of rows to columns with the largest sum, exactly: the Hungarian problem, solved by shortest
/// augmenting paths with dual prices (Jonker and Volgenant; the rectangular form of Crouse 2016, which SciPy's
/// <c>linear_sum_assignment</c> uses too). At most rows^2 * columns operations, in practice far fewer.
/// </summary>
public static class OptimalAssignment
{
    /// <summary>Assigns min(rows, columns) pairs.</summary>
    /// <param name="gain">What each pair is worth, finite, row-major [rows, columns].</param>
    /// <param name="rows">Number of rows.</param>
    /// <param name="columns">Number of columns.</param>
    /// <returns>[rows]: each row's column; -1 where there are more rows than columns and the row is left over.</returns>
    public static int[] Maximize(ReadOnlySpan<float> gain, int rows, int columns)
    {
        if (gain.Length != (long)rows * columns) throw new ShapeException($"assignment: {gain.Length} numbers for [{rows}, {columns}]");
        if (rows <= columns) return Solve(gain, rows, columns);
        var transposed = new float[gain.Length];
        for (var r = 0; r < rows; r++)
            for (var c = 0; c < columns; c++) transposed[((long)c * rows) + r] = gain[(r * columns) + c];
        var rowOfColumn = Solve(transposed, columns, rows);
        var result = new int[rows];
        Array.Fill(result, -1);
        for (var c = 0; c < columns; c++) result[rowOfColumn[c]] = c;
        return result;
    }

    /// <summary>For at most as many rows as columns.</summary>
    private static int[] Solve(ReadOnlySpan<float> gain, int rows, int columns)
    {
        double[] rowPrice = new double[rows], columnPrice = new double[columns], distance = new double[columns];
        int[] columnOf = new int[rows], rowOf = new int[columns], from = new int[columns], open = new int[columns];
        Array.Fill(columnOf, -1);
        Array.Fill(rowOf, -1);
        var visitedRows = new List<int>();
        var visitedColumns = new List<int>();
        for (var start = 0; start < rows; start++)
        {
            Array.Fill(distance, double.PositiveInfinity);
            for (var c = 0; c < columns; c++) open[c] = columns - 1 - c;
            visitedRows.Clear();
            visitedColumns.Clear();
            var left = columns;
            var (row, sink, length) = (start, -1, 0.0);
            while (sink < 0)
            {
                visitedRows.Add(row);
                var (best, at) = (double.PositiveInfinity, -1);
                var costs = gain.Slice(row * columns, columns);
                var offset = length - rowPrice[row];
                for (var i = 0; i < left; i++)
                {
                    var c = open[i];
                    // Costs are minus gains.
                    var through = offset - costs[c] - columnPrice[c];
                    if (through < distance[c])
                    {
                        distance[c] = through;
                        from[c] = row;
                    }

                    // Among equals a free column ends the search at once.
                    if (distance[c] < best || (distance[c] == best && rowOf[c] < 0)) (best, at) = (distance[c], i);
                }

                length = best;
                var column = open[at];
                visitedColumns.Add(column);
                open[at] = open[--left];
                if (rowOf[column] < 0) sink = column;
                else row = rowOf[column];
            }

            rowPrice[start] += length;
            foreach (var r in visitedRows.Where(r => r != start)) rowPrice[r] += length - distance[columnOf[r]];
            foreach (var c in visitedColumns) columnPrice[c] -= length - distance[c];
            for (var column = sink; ;)
            {
                var r = from[column];
                rowOf[column] = r;
                (columnOf[r], column) = (column, columnOf[r]);
                if (r == start) break;
            }
        }

        return columnOf;
    }
}
