using System.Reflection;
using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>
/// The model families one can load, by architecture. <see cref="Builtin"/> has those of this library; an application adds
/// its own with <see cref="Including"/> and hands the result to <see cref="HookedTransformer.Load"/>. Immutable.
/// </summary>
public sealed class ModelFamilies
{
    private readonly SortedDictionary<string, ModelFamily> _byArchitecture = new(StringComparer.Ordinal);
    private readonly Dictionary<string, string> _byModelType = new(StringComparer.Ordinal);

    private ModelFamilies(IEnumerable<Type> types)
    {
        foreach (var type in types)
        {
            if (type.GetCustomAttribute<ModelFamilyAttribute>() is not { } a) continue;
            var family = (ModelFamily)(Activator.CreateInstance(type)
                ?? throw new InvalidInputException($"{type.FullName}: no instance could be made; a model family needs a constructor without parameters"));
            foreach (var name in a.Architectures) _byArchitecture[name] = family;
            if (a.ModelType is { } t) _byModelType[t] = a.Architectures[0];
        }
    }

    /// <summary>The families of this library.</summary>
    public static ModelFamilies Builtin { get; } = new(typeof(ModelFamily).Assembly.GetTypes());

    /// <summary>Known architectures in alphabetical order.</summary>
    public IReadOnlyCollection<string> Architectures => _byArchitecture.Keys;

    /// <summary>These families and those of other assemblies, which win where both know an architecture.</summary>
    /// <param name="assemblies">Assemblies with classes that carry <see cref="ModelFamilyAttribute"/>.</param>
    public ModelFamilies Including(params Assembly[] assemblies)
    {
        var all = new ModelFamilies(assemblies.SelectMany(a => a.GetTypes()));
        foreach (var (name, family) in _byArchitecture) all._byArchitecture.TryAdd(name, family);
        foreach (var (type, name) in _byModelType) all._byModelType.TryAdd(type, name);
        return all;
    }

    /// <summary>The family a configuration belongs to.</summary>
    /// <param name="config">config.json.</param>
    /// <param name="architecture">The architecture's name.</param>
    /// <exception cref="InvalidFileException">None; the message lists those known.</exception>
    public ModelFamily Of(JsonConfig config, out string architecture)
    {
        var named = config.Has("architectures") ? config.GetStrings("architectures") : null;
        if (named is { Length: > 0 })
        {
            architecture = named[0];
            if (_byArchitecture.TryGetValue(architecture, out var family)) return family;
            throw new InvalidFileException(config.Path,
                $"architecture \"{architecture}\" is not known; known: {string.Join(", ", _byArchitecture.Keys)}");
        }

        var type = config.GetStringOrNull("model_type");
        if (type is not null && _byModelType.TryGetValue(type, out var byType))
        {
            architecture = byType;
            return _byArchitecture[byType];
        }

        throw new InvalidFileException(config.Path, type is null
            ? "names neither \"architectures\" nor \"model_type\"; is this a language model's config.json?"
            : $"model_type \"{type}\" is not known and \"architectures\" is missing; known: {string.Join(", ", _byModelType.Keys.Order(StringComparer.Ordinal))}");
    }
}
