using IlgpuSae.Autograd;
using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>Where a hook is called.</summary>
/// <param name="Point">The hook point.</param>
/// <param name="Scope">The forward pass's scope: a replacement made in it lives as long as the pass's results.</param>
/// <param name="FirstPosition">Context position of the first token seen; above 0 while generating with a cache.</param>
public sealed record HookSite(HookPoint Point, TensorScope Scope, int FirstPosition)
{
    /// <summary>How many positions at the beginning of each row are padding; empty: none are.</summary>
    public IReadOnlyList<int> Padding { get; init; } = [];
}

/// <summary>What a hook does: reads the activation, and returns null to leave it or a tensor of its shape to replace it.</summary>
/// <param name="activation">The activation; lives as long as the forward pass's scope. It must not be written to.</param>
/// <param name="site">Where.</param>
public delegate Tensor? HookFunction(Tensor activation, HookSite site);

/// <summary>A function attached to one or more hook points for the length of a forward pass.</summary>
public sealed class Hook
{
    private readonly string? _name;
    private readonly Func<HookPoint, bool>? _where;

    private Hook(string? name, Func<HookPoint, bool>? where, HookFunction function)
    {
        _name = name;
        _where = where;
        Function = function;
    }

    internal HookFunction Function { get; }

    /// <summary>Attaches to the hook of a name.</summary>
    /// <param name="name">Full name; checked when the forward pass begins.</param>
    /// <param name="function">What to do there.</param>
    public static Hook On(string name, HookFunction function) => new(name, null, function);

    /// <summary>Attaches to every hook a predicate chooses.</summary>
    /// <param name="where">The predicate.</param>
    /// <param name="function">What to do there.</param>
    public static Hook Where(Func<HookPoint, bool> where, HookFunction function) => new(null, where, function);

    /// <summary>Asks for the gradient with respect to an activation: read it with <see cref="Tape.Gradient"/> of the cached tensor.</summary>
    /// <param name="name">Full name.</param>
    /// <param name="tape">The tape attached to the forward pass's scope.</param>
    public static Hook Watch(string name, Tape tape) => new(name, null, Watching(tape));

    /// <summary>Asks for the gradient with respect to every activation a predicate chooses.</summary>
    /// <param name="where">The predicate.</param>
    /// <param name="tape">The tape attached to the forward pass's scope.</param>
    public static Hook Watch(Func<HookPoint, bool> where, Tape tape) => new(null, where, Watching(tape));

    internal bool AppliesTo(HookPoint point) => _where is { } where ? where(point) : point.Name == _name;

    internal void Check(HookNames names)
    {
        if (_name is not null) _ = names[_name];
    }

    private static HookFunction Watching(Tape tape) => (activation, _) =>
    {
        tape.Watch(activation);
        return null;
    };
}
