using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>A sparse pattern as inputs of a <see cref="KernelCase"/>: offsets, indices and the number of columns.</summary>
internal sealed class SparseCase
{
    private SparseCase(int rows, int columns, int[] offsets, int[] indices)
    {
        Rows = rows;
        Columns = columns;
        Offsets = offsets;
        Indices = indices;
    }

    internal int Rows { get; }

    internal int Columns { get; }

    internal int[] Offsets { get; }

    internal int[] Indices { get; }

    internal int Count => Indices.Length;

    /// <summary>Row offsets as an input.</summary>
    internal KernelInput OffsetsInput => new([Rows + 1], Fill.Given, Values: [.. Offsets.Select(v => (double)v)], Type: DType.I32);

    /// <summary>Feature indices as an input.</summary>
    internal KernelInput IndicesInput => new([Count], Fill.Given, Values: [.. Indices.Select(v => (double)v)], Type: DType.I32);

    /// <summary>A pattern in which each entry is present with the given probability, the same on every run.</summary>
    internal static SparseCase Random(int rows, int columns, double density, int seed = 1)
    {
        var random = new Random(seed);
        var offsets = new int[rows + 1];
        var indices = new List<int>();
        for (var r = 0; r < rows; r++)
        {
            for (var c = 0; c < columns; c++)
                if (random.NextDouble() < density) indices.Add(c);
            offsets[r + 1] = indices.Count;
        }

        return new SparseCase(rows, columns, offsets, [.. indices]);
    }

    /// <summary>Sparse features over the input tensors.</summary>
    internal SparseFeatures Of(Tensor offsets, Tensor indices, Tensor values) => new(Columns, offsets, indices, values);

    /// <summary>The dense [rows, columns] view of values in this pattern.</summary>
    internal double[] Dense(double[] values)
    {
        var y = new double[Rows * Columns];
        for (var r = 0; r < Rows; r++)
            for (var e = Offsets[r]; e < Offsets[r + 1]; e++) y[(r * Columns) + Indices[e]] = values[e];
        return y;
    }
}
