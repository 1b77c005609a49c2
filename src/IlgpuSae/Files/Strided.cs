namespace IlgpuSae.Files;

/// <summary>Elements that lie at given distances, put side by side in row-major order.</summary>
internal static class Strided
{
    private const int Tile = 32;

    /// <summary>Whether elements of these strides already lie in row-major order without gaps.</summary>
    /// <param name="shape">Sizes of the axes.</param>
    /// <param name="strides">Distances, in elements.</param>
    public static bool IsContiguous(IReadOnlyList<long> shape, IReadOnlyList<long> strides)
    {
        long expected = 1;
        for (var axis = shape.Count - 1; axis >= 0; axis--)
        {
            if (shape[axis] != 1 && strides[axis] != expected) return false;
            expected *= shape[axis];
        }

        return true;
    }

    /// <summary>Copies; the innermost two axes go tile by tile, so that a transpose stays within the cache.</summary>
    /// <param name="source">Holds every element that the strides reach.</param>
    /// <param name="offset">Where the first element lies.</param>
    /// <param name="shape">Sizes of the axes.</param>
    /// <param name="strides">Distances, in elements.</param>
    /// <param name="result">As long as the product of the sizes.</param>
    public static void Gather<T>(ReadOnlySpan<T> source, long offset, IReadOnlyList<long> shape, IReadOnlyList<long> strides, Span<T> result)
    {
        if (result.Length == 0) return;
        if (shape.Count == 0)
        {
            result[0] = source[(int)offset];
            return;
        }

        int columns = (int)shape[^1], rows = shape.Count > 1 ? (int)shape[^2] : 1;
        long across = strides[^1], down = shape.Count > 1 ? strides[^2] : 0;
        var index = new long[Math.Max(0, shape.Count - 2)];
        for (var done = 0; done < result.Length; done += rows * columns)
        {
            var start = offset;
            for (var axis = 0; axis < index.Length; axis++) start += index[axis] * strides[axis];
            for (var r0 = 0; r0 < rows; r0 += Tile)
            {
                for (var c0 = 0; c0 < columns; c0 += Tile)
                {
                    int r1 = Math.Min(rows, r0 + Tile), c1 = Math.Min(columns, c0 + Tile);
                    for (var r = r0; r < r1; r++)
                    {
                        var from = start + (r * down);
                        for (var c = c0; c < c1; c++) result[done + (r * columns) + c] = source[(int)(from + (c * across))];
                    }
                }
            }

            for (var axis = index.Length - 1; axis >= 0 && ++index[axis] == shape[axis]; axis--) index[axis] = 0;
        }
    }
}
