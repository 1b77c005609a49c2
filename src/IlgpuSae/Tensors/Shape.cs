using System.Globalization;
using System.Runtime.CompilerServices;

namespace IlgpuSae.Tensors;

/// <summary>Sizes of a tensor's axes, row-major, last axis contiguous. <c>[]</c> is a scalar. Immutable.</summary>
[CollectionBuilder(typeof(Shape), nameof(Create))]
public readonly struct Shape : IEquatable<Shape>
{
    private readonly int[]? _dims;

    private Shape(int[] dims)
    {
        _dims = dims;
        long count = 1;
        foreach (var d in dims)
        {
            if (d < 0) throw new ShapeException($"shape {Format(dims)} has a negative size");
            count = checked(count * d);
        }

        Count = count;
        IsSet = true;
    }

    private bool IsSet { get; }

    /// <summary>Number of axes; 0 for a scalar.</summary>
    public int Rank => _dims?.Length ?? 0;

    /// <summary>Number of elements: the product of all sizes, 1 for a scalar.</summary>
    public long Count { get => IsSet ? field : 1; }

    /// <summary>Size of one axis.</summary>
    /// <param name="axis">Index of the axis; <c>^1</c> is the last.</param>
    public int this[Index axis] => _dims is null ? throw new ShapeException("a scalar has no axes") : _dims[axis];

    /// <summary>Size of the last axis, 1 for a scalar.</summary>
    public int Last => Rank == 0 ? 1 : this[^1];

    /// <summary>Number of rows when all axes but the last are seen as one.</summary>
    public int Rows => Last == 0 ? LeadingCount() : checked((int)(Count / Last));

    /// <summary>The sizes.</summary>
    public ReadOnlySpan<int> Dims => _dims;

    /// <summary>Shape of the given sizes; also what a collection expression calls: <c>Shape s = [4, 8];</c></summary>
    /// <param name="dims">Sizes, outermost first, none negative.</param>
    /// <exception cref="ShapeException">A size is negative.</exception>
    public static Shape Create(ReadOnlySpan<int> dims) => new(dims.ToArray());

    /// <summary>This shape with another last axis.</summary>
    /// <param name="last">The new last size.</param>
    public Shape WithLast(int last)
    {
        var d = Dims.ToArray();
        d[^1] = last;
        return new Shape(d);
    }

    /// <summary>Enumerates the sizes.</summary>
    public IEnumerator<int> GetEnumerator() => ((IEnumerable<int>)(_dims ?? [])).GetEnumerator();

    /// <inheritdoc/>
    public bool Equals(Shape other) => Dims.SequenceEqual(other.Dims);

    /// <inheritdoc/>
    public override bool Equals(object? obj) => obj is Shape other && Equals(other);

    /// <inheritdoc/>
    public override int GetHashCode()
    {
        var h = new HashCode();
        foreach (var d in Dims) h.Add(d);
        return h.ToHashCode();
    }

    /// <summary>As <c>[512, 768]</c>.</summary>
    public override string ToString() => Format(Dims);

    /// <summary>Equality of all sizes.</summary>
    public static bool operator ==(Shape a, Shape b) => a.Equals(b);

    /// <summary>Inequality of any size.</summary>
    public static bool operator !=(Shape a, Shape b) => !a.Equals(b);

    private static string Format(ReadOnlySpan<int> dims)
    {
        var parts = new string[dims.Length];
        for (var i = 0; i < dims.Length; i++) parts[i] = dims[i].ToString(CultureInfo.InvariantCulture);
        return "[" + string.Join(", ", parts) + "]";
    }

    private int LeadingCount()
    {
        var n = 1;
        for (var i = 0; i < Rank - 1; i++) n = checked(n * this[i]);
        return n;
    }
}
