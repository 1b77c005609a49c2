using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>
/// Reads and replaces what passes an SAE's observation points: <see cref="Input"/>, <see cref="ActsPre"/>,
/// <see cref="ActsPost"/>, <see cref="Recons"/>, <see cref="Error"/>, <see cref="Output"/>. Dense [..., d_sae] tensors
/// are made only for points somebody asked for.
/// </summary>
public sealed class SaeHooks
{
    /// <summary>The input, flattened, before normalisation: [..., d_in].</summary>
    public const string Input = "hook_sae_input";

    /// <summary>Pre-activations, before any rescaling: [..., d_sae].</summary>
    public const string ActsPre = "hook_sae_acts_pre";

    /// <summary>Feature activations: [..., d_sae].</summary>
    public const string ActsPost = "hook_sae_acts_post";

    /// <summary>The decoder's result before normalisation is undone: [..., d_out].</summary>
    public const string Recons = "hook_sae_recons";

    /// <summary>What the SAE misses, x - reconstruction, if the error term is on: the input's shape.</summary>
    public const string Error = "hook_sae_error";

    /// <summary>What leaves the SAE: the input's shape.</summary>
    public const string Output = "hook_sae_output";

    private readonly Dictionary<string, List<Func<Tensor, Tensor?>>> _hooks = new(StringComparer.Ordinal);

    /// <summary>The observation points in the order they are passed.</summary>
    public static IReadOnlyList<string> Points { get; } = [Input, ActsPre, ActsPost, Recons, Error, Output];

    /// <summary>Adds a hook; those of one point run in the order they were added.</summary>
    /// <param name="point">One of <see cref="Points"/>.</param>
    /// <param name="hook">Given the value; returns its replacement, of the same shape, or null to leave it.</param>
    /// <returns>This object.</returns>
    /// <exception cref="InvalidInputException">No such point.</exception>
    public SaeHooks On(string point, Func<Tensor, Tensor?> hook)
    {
        if (!Points.Contains(point))
            throw new InvalidInputException($"hook \"{point}\" is no observation point of an SAE; those are: {string.Join(", ", Points)}");
        if (!_hooks.TryGetValue(point, out var list)) _hooks[point] = list = [];
        list.Add(hook);
        return this;
    }

    internal bool Wants(string point) => _hooks.ContainsKey(point);

    /// <summary>Runs a point's hooks.</summary>
    /// <returns>
    /// Whether a hook returned a tensor, <paramref name="value"/> itself included: what follows is then computed from
    /// it, so gradients with respect to it exist.
    /// </returns>
    internal bool Pass(string point, ref Tensor value)
    {
        if (!_hooks.TryGetValue(point, out var list)) return false;
        var replaced = false;
        foreach (var hook in list)
        {
            if (hook(value) is not { } other) continue;
            if (other.Shape != value.Shape)
                throw new ShapeException($"hook {point}: it was given {value.Shape} and returned {other.Shape}");
            value = other;
            replaced = true;
        }

        return replaced;
    }
}
