using System.Reflection;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>
/// The architectures by name. <see cref="Default"/> holds this library's; <see cref="With"/> gives a registry with
/// those of another assembly as well.
/// </summary>
public sealed class SaeRegistry
{
    private readonly SortedDictionary<string, ConstructorInfo> _inference = new(StringComparer.Ordinal);
    private readonly SortedDictionary<string, ConstructorInfo> _training = new(StringComparer.Ordinal);

    private SaeRegistry(IEnumerable<Assembly> assemblies)
    {
        foreach (var type in assemblies.SelectMany(a => a.GetTypes()))
        {
            if (type.GetCustomAttribute<SaeArchitectureAttribute>() is not { } attribute) continue;
            var constructor = Array.Find(type.GetConstructors(), c => c.GetParameters() is [var config, var device]
                && config.ParameterType.IsSubclassOf(typeof(SaeConfig)) && device.ParameterType == typeof(Device))
                ?? throw new InvalidInputException($"architecture \"{attribute.Name}\": {type} has no public constructor (settings, Device)");
            var known = type.IsSubclassOf(typeof(TrainingSae)) ? _training : _inference;
            if (!known.TryAdd(attribute.Name, constructor))
                throw new InvalidInputException($"architecture \"{attribute.Name}\" is registered twice: {known[attribute.Name].DeclaringType} and {type}");
        }
    }

    /// <summary>This library's architectures.</summary>
    public static SaeRegistry Default { get; } = new([typeof(SaeRegistry).Assembly]);

    /// <summary>Names that can be loaded and run.</summary>
    public IReadOnlyCollection<string> InferenceNames => _inference.Keys;

    /// <summary>Names that can be trained.</summary>
    public IReadOnlyCollection<string> TrainingNames => _training.Keys;

    /// <summary>The default architectures and those of another assembly.</summary>
    /// <param name="assembly">Classes with <see cref="SaeArchitectureAttribute"/> are taken from it.</param>
    /// <exception cref="InvalidInputException">A name is taken.</exception>
    public static SaeRegistry With(Assembly assembly) => new([typeof(SaeRegistry).Assembly, assembly]);

    /// <summary>The config record of an architecture, for options and JSON.</summary>
    /// <param name="architecture">Its name.</param>
    /// <param name="training">Whether the training form is meant.</param>
    /// <exception cref="InvalidInputException">The name is not known; the message lists those that are.</exception>
    public Type ConfigType(string architecture, bool training) => Find(architecture, training).GetParameters()[0].ParameterType;

    /// <summary>A new SAE with parameters of zero.</summary>
    /// <param name="config">Valid settings of an inference form.</param>
    /// <param name="device">Where the parameters live.</param>
    /// <exception cref="InvalidInputException">The settings are out of range, or the architecture is not known.</exception>
    public Sae Create(SaeConfig config, Device device) => (Sae)New(config, device, training: false);

    /// <summary>A new SAE to train, initialised (section "Initialisation" of docs/saes.md).</summary>
    /// <param name="config">Valid settings of a training form.</param>
    /// <param name="device">Where the parameters live.</param>
    /// <param name="seed">Seed of the draw.</param>
    /// <exception cref="InvalidInputException">The settings are out of range, or the architecture is not known.</exception>
    public TrainingSae CreateForTraining(TrainingSaeConfig config, Device device, ulong seed = 42)
    {
        var sae = (TrainingSae)New(config, device, training: true);
        sae.Initialize(seed);
        return sae;
    }

    private object New(SaeConfig config, Device device, bool training)
    {
        config.Validate();
        var constructor = Find(config.Architecture, training);
        if (!constructor.GetParameters()[0].ParameterType.IsInstanceOfType(config))
        {
            throw new InvalidInputException(
                $"architecture \"{config.Architecture}\": settings are {config.GetType().Name}, not {constructor.GetParameters()[0].ParameterType.Name}");
        }

        return constructor.Invoke(BindingFlags.DoNotWrapExceptions, null, [config, device], null);
    }

    private ConstructorInfo Find(string architecture, bool training)
    {
        var known = training ? _training : _inference;
        return known.TryGetValue(architecture, out var constructor) ? constructor : throw new InvalidInputException(
            $"architecture \"{architecture}\" is not known{(training ? " in training" : "")}; known: {string.Join(", ", known.Keys)}");
    }
}
