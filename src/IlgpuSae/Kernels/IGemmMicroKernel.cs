namespace IlgpuSae.Kernels;

/// <summary>
/// The innermost loop of <see cref="PackedGemm"/>: a tile of sums held in registers. One implementation a vector
/// width; the engine is compiled once for each that runs.
/// </summary>
internal unsafe interface IGemmMicroKernel
{
    /// <summary>Rows of the tile, MR: the width of a packed panel of a.</summary>
    static abstract int Rows { get; }

    /// <summary>Columns of the tile, NR: the width of a packed panel of b.</summary>
    static abstract int Columns { get; }

    /// <summary>
    /// c[i, j] = fma(a[s, i], b[s, j], c[i, j]) for s = 0, 1, .. steps-1 in this order, starting from c's content
    /// (<paramref name="resume"/>) or from +0.
    /// </summary>
    /// <param name="steps">Number of steps, 0 or more.</param>
    /// <param name="a">Packed panel [steps, Rows].</param>
    /// <param name="b">Packed panel [steps, Columns], 64-byte aligned.</param>
    /// <param name="c">Tile [Rows, Columns].</param>
    /// <param name="ldc">Floats from one row of <paramref name="c"/> to the next.</param>
    /// <param name="resume">Whether to continue chains that lie in <paramref name="c"/>.</param>
    static abstract void Run(long steps, float* a, float* b, float* c, long ldc, bool resume);
}
