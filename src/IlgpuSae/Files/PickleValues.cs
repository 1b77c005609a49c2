namespace IlgpuSae.Files;

/// <summary>A Python tuple.</summary>
/// <param name="Items">Its items.</param>
internal sealed record PickleTuple(object?[] Items);

/// <summary>A Python dictionary, ordered or not: pairs in the order they were set.</summary>
internal sealed class PickleDict
{
    private readonly Dictionary<object, int> _at = [];
    private readonly List<KeyValuePair<object?, object?>> _pairs = [];

    /// <summary>The pairs. Keys that are no strings, numbers or booleans are kept but cannot be asked for.</summary>
    public IReadOnlyList<KeyValuePair<object?, object?>> Pairs => _pairs;

    /// <summary>Sets a key, replacing an earlier value.</summary>
    /// <param name="key">A string, number, boolean, or anything else.</param>
    /// <param name="value">Its value.</param>
    public void Set(object? key, object? value)
    {
        if (key is string or long or bool && _at.TryGetValue(key, out var at))
        {
            _pairs[at] = new(key, value);
            return;
        }

        if (key is string or long or bool) _at.Add(key, _pairs.Count);
        _pairs.Add(new(key, value));
    }

    /// <summary>The value of a string key; null if it is absent.</summary>
    /// <param name="key">The key.</param>
    public object? this[string key] => _at.TryGetValue(key, out var at) ? _pairs[at].Value : null;
}

/// <summary>An object of a class that is kept as its fields; nothing of the class is known or run.</summary>
/// <param name="Class">Module and name.</param>
internal sealed record PickleRecord(string Class)
{
    /// <summary>Its fields.</summary>
    public PickleDict Fields { get; } = new();
}

/// <summary>A class or function that the allow-list knows.</summary>
/// <param name="Name">Module and name.</param>
/// <param name="Call">What calling it with arguments means here; null: it cannot be called.</param>
internal sealed record PickleGlobal(string Name, Func<object?[], object?>? Call);

/// <summary>A number of more than 64 bits or another value that is passed over: no weights or settings are made of it.</summary>
/// <param name="Kind">What it is.</param>
internal sealed record PickleOpaque(string Kind);

/// <summary>The element type of a PyTorch tensor, as a value.</summary>
/// <param name="Type">The type.</param>
internal sealed record PickleDType(SafetensorsType Type);

/// <summary>What a pickle may ask for. Anything else is an error that names it.</summary>
internal interface IPickleHost
{
    /// <summary>A class, function or constant.</summary>
    /// <param name="module">Its module.</param>
    /// <param name="name">Its name within the module.</param>
    /// <returns>A <see cref="PickleGlobal"/> or <see cref="PickleDType"/>; null if the pickle may not ask for it.</returns>
    object? Find(string module, string name);

    /// <summary>The object of a persistent id: a storage.</summary>
    /// <param name="id">The id.</param>
    /// <exception cref="InvalidFileException">It is none.</exception>
    object Persistent(object? id);
}
