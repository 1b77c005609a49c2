using System.Text.Json;
using System.Text.Json.Nodes;
using IlgpuSae.Files;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes.Formats;

/// <summary>
/// SAELens' folder: <c>cfg.json</c>, <c>sae_weights.safetensors</c>, <c>sparsity.safetensors</c>,
/// <c>runner_cfg.json</c>. Reads the format of SAELens 6 and the flat configurations before it
/// (<see cref="SaeLensMigration"/>); writes that of 6. Fields an architecture does not have are passed over, as SAELens
/// does; values it cannot have are errors.
/// </summary>
public static class SaeLensFolder
{
    /// <summary>Settings.</summary>
    public const string ConfigFile = "cfg.json";

    /// <summary>Parameters.</summary>
    public const string WeightsFile = "sae_weights.safetensors";

    /// <summary>log10 of firing frequencies, [d_sae].</summary>
    public const string SparsityFile = "sparsity.safetensors";

    /// <summary>Settings of the run that trained it.</summary>
    public const string RunnerConfigFile = "runner_cfg.json";

    /// <summary>Folder of the training form, within that of the inference form.</summary>
    public const string TrainingFolder = "training";

    /// <summary>Loads an SAE for use.</summary>
    /// <param name="folder">The folder; one of a training form will do.</param>
    /// <param name="device">Where the parameters are to live.</param>
    /// <param name="registry">Known architectures; null: this library's.</param>
    /// <returns>The SAE, which the caller disposes of.</returns>
    /// <exception cref="InvalidInputException">A file is missing or cannot be used; the message names file and field or tensor.</exception>
    public static Sae Load(string folder, Device device, SaeRegistry? registry = null)
    {
        registry ??= SaeRegistry.Default;
        var config = ReadConfig(folder, training: false, registry);
        if (config is not TrainingSaeConfig training) return Fill(registry.Create(config, device), folder);
        using var sae = Fill(registry.CreateForTraining(training, device), folder);
        return sae.ToInference();
    }

    /// <summary>Loads an SAE to train it further.</summary>
    /// <param name="folder">The folder; fields that only training has take their defaults where absent.</param>
    /// <param name="device">Where the parameters are to live.</param>
    /// <param name="registry">Known architectures; null: this library's.</param>
    /// <returns>The SAE, which the caller disposes of.</returns>
    /// <exception cref="InvalidInputException">A file is missing or cannot be used; the message names file and field or tensor.</exception>
    public static TrainingSae LoadForTraining(string folder, Device device, SaeRegistry? registry = null)
    {
        registry ??= SaeRegistry.Default;
        var config = (TrainingSaeConfig)ReadConfig(folder, training: true, registry);
        return Fill(registry.CreateForTraining(config, device), folder);
    }

    /// <summary>Reads the settings alone.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="training">Whether the training form's record is wanted.</param>
    /// <param name="registry">Known architectures; null: this library's.</param>
    /// <exception cref="InvalidFileException">Missing, no JSON, of an unknown architecture, or with an impossible value.</exception>
    public static SaeConfig ReadConfig(string folder, bool training = false, SaeRegistry? registry = null)
    {
        var path = Path.Combine(folder, ConfigFile);
        var json = SaeLensMigration.Migrate(ReadJson(path), path);
        var architecture = json["architecture"] is JsonValue v && v.TryGetValue<string>(out var name)
            ? name
            : throw new InvalidFileException(path, $"field \"architecture\" is {json["architecture"]?.ToJsonString() ?? "missing"}, expected a name");
        try
        {
            registry ??= SaeRegistry.Default;
            // BatchTopK is only trained: what is used is the JumpReLU SAE it becomes.
            var trainedOnly = !registry.InferenceNames.Contains(architecture) && registry.TrainingNames.Contains(architecture);
            var type = registry.ConfigType(architecture, training || trainedOnly);
            var config = (SaeConfig)ConfigJson.FromJson(json, type, ConfigFile, unknownFields: true);
            config.Validate();
            return config;
        }
        catch (InvalidInputException e) when (e is not InvalidFileException)
        {
            throw new InvalidFileException(path, e.Message, e);
        }
    }

    /// <summary>log10 of the features' firing frequencies, [d_sae]; null if the folder has none.</summary>
    /// <param name="folder">The folder.</param>
    /// <exception cref="InvalidFileException">The file cannot be used.</exception>
    public static float[]? ReadSparsity(string folder)
    {
        var path = Path.Combine(folder, SparsityFile);
        if (!File.Exists(path)) return null;
        using var file = SafetensorsFile.Open(path);
        return file.ReadFloat32("sparsity");
    }

    /// <summary>Settings of the run that trained the SAE; null if the folder has none.</summary>
    /// <param name="folder">The folder.</param>
    /// <exception cref="InvalidFileException">The file cannot be used.</exception>
    public static JsonObject? ReadRunnerConfig(string folder)
    {
        var path = Path.Combine(folder, RunnerConfigFile);
        return File.Exists(path) ? ReadJson(path) : null;
    }

    /// <summary>The tensors of a weights file as they are, for weights under SAELens' names that lie outside a folder.</summary>
    /// <param name="path">A safetensors file.</param>
    /// <exception cref="InvalidFileException">The file cannot be used.</exception>
    public static IReadOnlyList<NamedValues> ReadWeights(string path)
    {
        using var file = SafetensorsFile.Open(path);
        return [.. file.Tensors.Select(t =>
        {
            if (t.Count > Array.MaxLength || t.Shape.Any(d => d > int.MaxValue))
                throw new InvalidFileException(path, $"tensor \"{t.Name}\" is [{string.Join(", ", t.Shape)}]; at most {Array.MaxLength} elements can be loaded");
            var values = new float[t.Count];
            file.ReadFloat32(t.Name, values);
            return new NamedValues(t.Name, Shape.Create([.. t.Shape.Select(d => (int)d)]), values) { Doubles = Doubles(file, t) };
        })];
    }

    /// <summary>The tensors of a folder in today's form: what old versions wrote besides is folded in.</summary>
    /// <param name="folder">The folder, with its configuration.</param>
    /// <exception cref="InvalidFileException">A file is missing or cannot be used.</exception>
    public static IReadOnlyList<NamedValues> ReadState(string folder)
    {
        var path = Path.Combine(folder, WeightsFile);
        return SaeLensMigration.Migrate(ReadWeights(path), path, JsonConfig.Read(Path.Combine(folder, ConfigFile)).GetBool("finetuning_scaling_factor", false));
    }

    /// <summary>
    /// Writes a folder, whole or not at all. A folder that holds nothing but what this method writes is replaced.
    /// </summary>
    /// <param name="folder">The folder.</param>
    /// <param name="sae">The SAE, in the form to be written.</param>
    /// <param name="logSparsity">log10 of firing frequencies, [d_sae]; null: none known.</param>
    /// <param name="runnerConfig">Settings of the run; null: none.</param>
    /// <param name="training">The training form, written into <c>training/</c>; null: none.</param>
    /// <exception cref="IlgpuSaeException">It cannot be written, or holds other files.</exception>
    public static void Save(
        string folder, Sae sae, float[]? logSparsity = null, JsonObject? runnerConfig = null, TrainingSae? training = null)
    {
        using var target = AtomicDirectory.Create(folder, replace: HoldsOnlySae(folder));
        WriteInto(target.PartialPath, sae, logSparsity);
        if (runnerConfig is not null) WriteJson(target.FileIn(RunnerConfigFile), runnerConfig);
        if (training is not null)
        {
            Directory.CreateDirectory(target.FileIn(TrainingFolder));
            WriteSae(target.FileIn(TrainingFolder), training);
        }

        target.Commit();
    }

    /// <summary>Writes settings, weights and, if known, sparsity into a folder that exists.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="sae">The SAE.</param>
    /// <param name="logSparsity">log10 of firing frequencies, [d_sae]; null: none known.</param>
    internal static void WriteInto(string folder, Sae sae, float[]? logSparsity)
    {
        WriteSae(folder, sae);
        if (logSparsity is not null)
            new SafetensorsWriter().Add("sparsity", [logSparsity.Length], logSparsity).Save(Path.Combine(folder, SparsityFile));
    }

    private static void WriteSae(string folder, Sae sae)
    {
        var config = sae.Config with { Metadata = sae.Config.Metadata.With("sae_lens_version", SaeMetadata.FormatVersion) };
        WriteJson(Path.Combine(folder, ConfigFile), ConfigJson.ToJson(config));
        var writer = new SafetensorsWriter();
        writer.Metadata["format"] = "pt";
        foreach (var state in sae.ExportState())
        {
            if (state.Doubles is { } doubles) writer.Add(state.Name, [.. state.Shape.Dims.ToArray().Select(d => (long)d)], doubles);
            else Add(writer, state.Name, state.Shape, state.Values, config.StorageType);
        }

        writer.Save(Path.Combine(folder, WeightsFile));
    }

    /// <summary>Small tensors in double precision, unrounded: state such as BatchTopK's threshold.</summary>
    private static double[]? Doubles(SafetensorsFile file, SafetensorsEntry entry)
    {
        if (entry.Type != SafetensorsType.F64 || entry.Count > 4096) return null;
        var bytes = new byte[8 * entry.Count];
        file.ReadBytes(entry.Name, 0, bytes);
        return [.. Enumerable.Range(0, (int)entry.Count).Select(i => System.Buffers.Binary.BinaryPrimitives.ReadDoubleLittleEndian(bytes.AsSpan(8 * i)))];
    }

    /// <summary>Adds a tensor in an element type of files.</summary>
    internal static void Add(SafetensorsWriter writer, string name, Shape shape, float[] values, DType type)
    {
        long[] dims = [.. shape.Dims.ToArray().Select(d => (long)d)];
        switch (type)
        {
            case DType.F64:
                writer.Add(name, dims, Array.ConvertAll(values, v => (double)v));
                break;
            case DType.F16:
                writer.Add(name, dims, Array.ConvertAll(values, v => (Half)v));
                break;
            case DType.BF16:
                writer.Add(name, SafetensorsType.BF16, dims, stream =>
                {
                    var bytes = new byte[2 * 4096];
                    for (var at = 0; at < values.Length; at += 4096)
                    {
                        var n = Math.Min(4096, values.Length - at);
                        for (var i = 0; i < n; i++)
                            System.Buffers.Binary.BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(2 * i), ToBFloat16(values[at + i]));
                        stream.Write(bytes.AsSpan(0, 2 * n));
                    }
                });
                break;
            default:
                writer.Add(name, dims, values);
                break;
        }
    }

    /// <summary>Round to nearest, ties to even; NaN stays NaN.</summary>
    private static ushort ToBFloat16(float value)
    {
        var bits = BitConverter.SingleToUInt32Bits(value);
        return float.IsNaN(value) ? (ushort)((bits >> 16) | 0x40) : (ushort)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
    }

    private static bool HoldsOnlySae(string folder)
    {
        string[] own = [ConfigFile, WeightsFile, SparsityFile, RunnerConfigFile, TrainingFolder];
        return Directory.Exists(folder) && Directory.EnumerateFileSystemEntries(folder).All(e => own.Contains(Path.GetFileName(e)));
    }

    /// <summary>The settings as version 6 has them.</summary>
    /// <param name="folder">The folder.</param>
    internal static JsonObject ReadMigrated(string folder)
    {
        var path = Path.Combine(folder, ConfigFile);
        return SaeLensMigration.Migrate(ReadJson(path), path);
    }

    private static T Fill<T>(T sae, string folder) where T : Sae
    {
        try
        {
            sae.ImportState(ReadState(folder), Path.Combine(folder, WeightsFile));
            return sae;
        }
        catch
        {
            sae.Dispose();
            throw;
        }
    }

    private static JsonObject ReadJson(string path) => JsonObject.Create(JsonConfig.Read(path).Element)!;

    internal static void WriteJson(string path, JsonObject json) =>
        AtomicFile.WriteText(path, json.ToJsonString(new JsonSerializerOptions { WriteIndented = true }) + "\n");
}
