namespace IlgpuSae.Files;

/// <summary>The memory that PyTorch's tensors are views of, as a file holds it.</summary>
/// <param name="key">Its name in the file.</param>
/// <param name="type">Its element type; null: bytes whose meaning the tensor states.</param>
/// <param name="count">Number of elements, or of bytes.</param>
internal sealed class PyTorchStorage(string key, SafetensorsType? type, long count)
{
    /// <summary>Its name in the file.</summary>
    public string Key => key;

    /// <summary>Its element type; null: bytes whose meaning the tensor states.</summary>
    public SafetensorsType? Type => type;

    /// <summary>Number of elements, or of bytes where it has no type.</summary>
    public long Count => count;

    /// <summary>Size in bytes.</summary>
    public long Bytes => count * (type is { } t ? t.Bits() / 8 : 1);

    /// <summary>Opens its bytes, front to back; set once the container knows where they lie.</summary>
    public Func<Stream>? Open { get; set; }
}

/// <summary>A view of a storage: sizes and distances, checked to stay within it.</summary>
/// <param name="Type">Element type.</param>
/// <param name="Shape">Sizes of the axes.</param>
/// <param name="Strides">Distances along the axes, in elements.</param>
/// <param name="Offset">First element.</param>
/// <param name="Storage">The memory.</param>
internal sealed record PickleTensor(SafetensorsType Type, long[] Shape, long[] Strides, long Offset, PyTorchStorage Storage)
{
    private const int MaxAxes = 32;

    /// <summary>Checks and makes a view.</summary>
    /// <param name="type">Element type; null: the storage's.</param>
    /// <param name="storage">A <see cref="PyTorchStorage"/>.</param>
    /// <param name="offset">A number.</param>
    /// <param name="shape">A tuple of numbers.</param>
    /// <param name="strides">A tuple of numbers.</param>
    /// <exception cref="PickleArgumentException">Not of these kinds, or reaching out of the storage.</exception>
    public static PickleTensor Create(SafetensorsType? type, object? storage, object? offset, object? shape, object? strides)
    {
        if (storage is not PyTorchStorage memory) throw new PickleArgumentException("a storage that is none");
        if (offset is not long first || first < 0) throw new PickleArgumentException("an offset that is no place in a storage");
        long[] sizes = Numbers(shape, "sizes"), steps = Numbers(strides, "strides");
        if (sizes.Length != steps.Length || sizes.Length > MaxAxes)
            throw new PickleArgumentException($"{sizes.Length} sizes and {steps.Length} strides; as many of one as of the other are expected, and at most {MaxAxes}");
        var element = type ?? memory.Type ?? throw new PickleArgumentException("a storage of bytes and no element type");
        if (element.Bits() < 8) throw new PickleArgumentException($"elements of type {element}");
        var elements = memory.Type is null ? memory.Count / (element.Bits() / 8) : memory.Count;
        if (memory.Type is { } own && own != element) throw new PickleArgumentException($"a storage of {own} for elements of {element}");
        Int128 count = 1, last = first;
        for (var axis = 0; axis < sizes.Length; axis++)
        {
            count *= sizes[axis];
            last += (Int128)Math.Max(0, sizes[axis] - 1) * steps[axis];
            // Sizes of 63 bits each would overflow even this.
            if (count > elements || last > long.MaxValue) break;
        }

        if (count != 0 && (count > elements || last >= elements) || count == 0 && first > elements)
        {
            throw new PickleArgumentException(
                $"sizes {SafetensorsHeader.Show(sizes)}, strides {SafetensorsHeader.Show(steps)} and offset {first}, which reach beyond the {elements} elements of storage {Say.Quote(memory.Key)}");
        }

        return new PickleTensor(element, sizes, steps, first, memory);
    }

    private static long[] Numbers(object? value, string what) => value is PickleTuple tuple && tuple.Items.All(i => i is >= 0L)
        ? [.. tuple.Items.Select(i => (long)i!)]
        : throw new PickleArgumentException($"{what} that are no tuple of numbers");
}
