using System.Reflection;
using System.Text.Json.Nodes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes.Formats;

/// <summary>
/// The published formats by name. <see cref="Default"/> holds this library's; <see cref="With"/> gives those of another
/// assembly as well.
/// </summary>
public sealed class SaeFormats
{
    /// <summary>Norms of decoder rows that differ from 1 by less are rounding of unit norms.</summary>
    private const double UnitTolerance = 1e-5;

    private readonly SortedDictionary<string, SaeFormat> _formats = new(StringComparer.Ordinal);
    private readonly Dictionary<string, string> _descriptions = new(StringComparer.Ordinal);

    private SaeFormats(IEnumerable<Assembly> assemblies)
    {
        foreach (var type in assemblies.SelectMany(a => a.GetTypes()))
        {
            if (type.GetCustomAttribute<SaeFormatAttribute>() is not { } attribute) continue;
            if (type.GetConstructor([])?.Invoke(null) is not SaeFormat format)
                throw new InvalidInputException($"format \"{attribute.Name}\": {type} is no SaeFormat with a public constructor without parameters");
            if (!_formats.TryAdd(attribute.Name, format))
                throw new InvalidInputException($"format \"{attribute.Name}\" is registered twice: {_formats[attribute.Name].GetType()} and {type}");
            _descriptions.Add(attribute.Name, attribute.Description);
        }
    }

    /// <summary>This library's formats.</summary>
    public static SaeFormats Default { get; } = new([typeof(SaeFormats).Assembly]);

    /// <summary>Names and what they mean.</summary>
    public IReadOnlyDictionary<string, string> Known => _descriptions;

    /// <summary>The default formats and those of another assembly.</summary>
    /// <param name="assembly">Classes with <see cref="SaeFormatAttribute"/> are taken from it.</param>
    /// <exception cref="InvalidInputException">A name is taken.</exception>
    public static SaeFormats With(Assembly assembly) => new([typeof(SaeFormats).Assembly, assembly]);

    /// <summary>Reads what a file or folder holds, without its weights.</summary>
    /// <param name="path">A file or folder.</param>
    /// <param name="hints">What the path does not say; null: nothing.</param>
    /// <param name="format">Name of the format; null: the one that recognises the path.</param>
    /// <exception cref="InvalidInputException">No format knows it, or a file is damaged.</exception>
    public PublishedSae Describe(string path, SaeHints? hints = null, string? format = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        hints ??= SaeHints.None;
        var name = format ?? Find(path);
        if (!_formats.TryGetValue(name, out var reader))
            throw new InvalidInputException($"format \"{name}\" is not known; known: {string.Join(", ", _formats.Keys)}");
        return Overridden(reader.Read(path, hints) with { Format = name }, hints.Overrides);
    }

    /// <summary>Loads an SAE of any known format.</summary>
    /// <param name="path">A file or folder.</param>
    /// <param name="device">Where the parameters are to live.</param>
    /// <param name="hints">What the path does not say; null: nothing.</param>
    /// <param name="format">Name of the format; null: the one that recognises the path.</param>
    /// <param name="registry">Known architectures; null: this library's.</param>
    /// <returns>The SAE, which the caller disposes of.</returns>
    /// <exception cref="InvalidInputException">No format knows it, a file is damaged, or its architecture is not known.</exception>
    public Sae Load(string path, Device device, SaeHints? hints = null, string? format = null, SaeRegistry? registry = null) =>
        Load(Describe(path, hints, format), device, registry);

    /// <summary>Loads what <see cref="Describe"/> found.</summary>
    /// <param name="published">The SAE.</param>
    /// <param name="device">Where the parameters are to live.</param>
    /// <param name="registry">Known architectures; null: this library's.</param>
    /// <returns>The SAE, which the caller disposes of.</returns>
    /// <exception cref="InvalidInputException">The weights are damaged or do not fit, or the architecture is not known.</exception>
    public static Sae Load(PublishedSae published, Device device, SaeRegistry? registry = null)
    {
        registry ??= SaeRegistry.Default;
        var sae = Create(published, device, registry);
        try
        {
            sae.ImportState(published.ReadState(), published.Path);
            // What was saved in the middle of training is used in the form that training yields.
            if (sae is TrainingSae training)
            {
                using (training) sae = training.ToInference();
            }

            if (published.ActivationScale is { } scale) sae.FoldActivationScale(scale);
            if (published.UnitDecoder && !IsUnit(sae)) sae.FoldDecoderNorm();
            return sae;
        }
        catch
        {
            sae.Dispose();
            throw;
        }
    }

    /// <summary>Names of the formats that can be written.</summary>
    public IReadOnlyList<string> Written => [.. _formats.Where(f => f.Value.Writes).Select(f => f.Key)];

    /// <summary>A format that can be written.</summary>
    /// <param name="name">Its name.</param>
    /// <exception cref="InvalidInputException">It is not known, or only read.</exception>
    public SaeFormat Writer(string name) => _formats.TryGetValue(name, out var format) && format.Writes
        ? format
        : throw new InvalidInputException($"format \"{name}\" is {(format is null ? "not known" : "read, not written")}; written are {string.Join(", ", Written)}");

    /// <summary>The settings of what <see cref="Describe"/> found.</summary>
    /// <param name="published">The SAE.</param>
    /// <param name="registry">Known architectures; null: this library's.</param>
    /// <exception cref="InvalidFileException">The architecture is not known, or a value is impossible.</exception>
    public static SaeConfig ConfigOf(PublishedSae published, SaeRegistry? registry = null)
    {
        registry ??= SaeRegistry.Default;
        var json = (JsonObject)published.Config.DeepClone();
        // Folding computes in single precision: a narrower type would round what it makes.
        if ((published.ActivationScale is not null || published.UnitDecoder) && json["dtype"]?.ToString() is "bfloat16" or "float16") json["dtype"] = "float32";
        var architecture = json["architecture"]?.ToString() ?? throw new InvalidFileException(published.Path, "names no architecture");
        try
        {
            var training = !registry.InferenceNames.Contains(architecture) && registry.TrainingNames.Contains(architecture);
            var config = (SaeConfig)ConfigJson.FromJson(json, registry.ConfigType(architecture, training), SaeLensFolder.ConfigFile, unknownFields: true);
            config.Validate();
            return config;
        }
        catch (InvalidInputException e) when (e is not InvalidFileException)
        {
            throw new InvalidFileException(published.Path, e.Message, e);
        }
    }

    private static Sae Create(PublishedSae published, Device device, SaeRegistry registry)
    {
        var config = ConfigOf(published, registry);
        return config is TrainingSaeConfig training ? registry.CreateForTraining(training, device) : registry.Create(config, device);
    }

    private static PublishedSae Overridden(PublishedSae published, JsonObject overrides)
    {
        if (overrides.Count == 0) return published;
        var config = (JsonObject)published.Config.DeepClone();
        var metadata = config["metadata"] as JsonObject ?? [];
        foreach (var (name, value) in overrides) (config.ContainsKey(name) ? config : metadata)[name] = value?.DeepClone();
        config["metadata"] = metadata.Parent is null ? metadata : config["metadata"];
        return published with { Config = config };
    }

    /// <summary>Whether every decoder row has norm 1, but for rounding.</summary>
    internal static bool IsUnit(Sae sae)
    {
        var decoder = sae.WDec.ToArray<float>();
        var width = sae.Config.OutputWidth;
        for (var at = 0; at < decoder.Length; at += width)
        {
            double squares = 0;
            foreach (var v in decoder.AsSpan(at, width)) squares += (double)v * v;
            if (Math.Abs(Math.Sqrt(squares) - 1) > UnitTolerance) return false;
        }

        return true;
    }

    private string Find(string path)
    {
        if (!File.Exists(path) && !Directory.Exists(path)) throw new InvalidFileException(path, "no such file or folder");
        var found = _formats.Where(f => f.Value.Recognises(path)).Select(f => f.Key).ToList();
        return found switch
        {
            [var one] => one,
            [] => throw new InvalidFileException(path, $"holds no SAE of a known format; known: {string.Join(", ", _formats.Keys)}"
                + (Directory.Exists(path) && !File.Exists(Path.Combine(path, SaeLensFolder.ConfigFile)) ? $" ({SaeLensFolder.ConfigFile} is missing)" : "")),
            _ => throw new InvalidFileException(path, $"could be of the formats {string.Join(", ", found)}; say which"),
        };
    }
}
