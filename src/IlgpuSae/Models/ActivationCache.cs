using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>
/// Activations of one forward pass by hook name, in the order in which they arose. The tensors belong to the pass's
/// scope. Each is what the model went on with: after the hooks that replaced it.
/// </summary>
public sealed class ActivationCache
{
    private readonly HookNames _names;
    private readonly OrderedDictionary<string, Tensor> _tensors = new(StringComparer.Ordinal);

    internal ActivationCache(HookNames names) => _names = names;

    /// <summary>Number of activations.</summary>
    public int Count => _tensors.Count;

    /// <summary>Hook names and activations in order.</summary>
    public IReadOnlyDictionary<string, Tensor> All => _tensors;

    /// <summary>The activation at a hook.</summary>
    /// <param name="name">Full name.</param>
    /// <exception cref="InvalidInputException">The hook does not exist or was not asked for.</exception>
    public Tensor this[string name]
    {
        get
        {
            if (_tensors.TryGetValue(name, out var t)) return t;
            _ = _names[name];
            var held = Count == 0 ? "nothing" : string.Join(", ", _tensors.Keys.Take(4)) + (Count > 4 ? ", ..." : "");
            throw new InvalidInputException($"hook \"{name}\" is not in the cache, which holds {held}; ask for it when running the model");
        }
    }

    /// <summary>The activation at a hook by short name.</summary>
    /// <param name="shortName">Such as <c>resid_pre</c>; see <see cref="HookNames.Full"/>.</param>
    /// <param name="layer">The block.</param>
    /// <exception cref="InvalidInputException">The hook does not exist or was not asked for.</exception>
    public Tensor this[string shortName, int layer] => this[_names.Full(shortName, layer)];

    /// <summary>Whether an activation is here.</summary>
    /// <param name="name">Full name.</param>
    public bool Contains(string name) => _tensors.ContainsKey(name);

    internal void Add(HookPoint point, Tensor tensor) => _tensors.Add(point.Name, tensor);
}
