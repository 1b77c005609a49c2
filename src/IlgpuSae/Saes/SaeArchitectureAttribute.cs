namespace IlgpuSae.Saes;

/// <summary>
/// Registers an SAE (used after training) or an SAE in training under the name that files carry.
/// The class has one public constructor (TConfig config, Device device), TConfig being its <see cref="SaeConfig"/> record.
/// </summary>
/// <param name="name">The name: <c>standard</c>, <c>topk</c>, ...</param>
[AttributeUsage(AttributeTargets.Class, Inherited = false)]
public sealed class SaeArchitectureAttribute(string name) : Attribute
{
    /// <summary>The name in files and options.</summary>
    public string Name { get; } = name;
}
