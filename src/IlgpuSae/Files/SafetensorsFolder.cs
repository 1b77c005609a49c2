using System.Text.Json;
using PathOf = System.IO.Path;

namespace IlgpuSae.Files;

/// <summary>
/// The weights of a Hugging Face folder, whole (<c>model.safetensors</c>) or in shards
/// (<c>model.safetensors.index.json</c> maps every tensor to its file): one look-up by name over all of them.
/// </summary>
public sealed class SafetensorsFolder : ISafetensors
{
    private const string Whole = "model.safetensors";
    private const string Index = "model.safetensors.index.json";
    private readonly Dictionary<string, SafetensorsFile> _fileOf;
    private readonly List<SafetensorsFile> _files;

    private SafetensorsFolder(string path, List<SafetensorsFile> files, Dictionary<string, SafetensorsFile> fileOf)
    {
        Path = path;
        _files = files;
        _fileOf = fileOf;
    }

    /// <inheritdoc/>
    public string Path { get; }

    /// <summary>The files, in the order the index first names them.</summary>
    public IReadOnlyList<SafetensorsFile> Files => _files;

    /// <inheritdoc/>
    public IReadOnlyCollection<string> Names => _fileOf.Keys;

    /// <summary>Opens all weight files of a folder and checks their headers, and that every listed tensor is there.</summary>
    /// <param name="path">The folder.</param>
    /// <exception cref="InvalidFileException">No such folder, no weights in it, a missing shard, a tensor that its shard lacks, or a bad file.</exception>
    public static SafetensorsFolder Open(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        if (!Directory.Exists(path)) throw new InvalidFileException(path, File.Exists(path) ? "is a file, a model's folder was expected" : "no such folder");
        var files = new List<SafetensorsFile>();
        try
        {
            var whole = PathOf.Combine(path, Whole);
            var index = PathOf.Combine(path, Index);
            if (File.Exists(whole))
            {
                var file = SafetensorsFile.Open(whole);
                files.Add(file);
                return new SafetensorsFolder(path, files, file.Names.ToDictionary(n => n, _ => file, StringComparer.Ordinal));
            }

            if (File.Exists(index)) return new SafetensorsFolder(path, files, OpenShards(path, JsonConfig.Read(index), files));
            var pickled = Directory.EnumerateFiles(path, "*.bin").Any()
                ? "; its .bin weights are pickled Python, convert them to safetensors"
                : "";
            throw new InvalidFileException(path, $"has neither {Whole} nor {Index}{pickled}");
        }
        catch
        {
            foreach (var f in files) f.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public bool Contains(string name) => _fileOf.ContainsKey(name);

    /// <inheritdoc/>
    public SafetensorsFile FileOf(string name) => _fileOf.TryGetValue(name, out var file)
        ? file
        : throw new InvalidFileException(Path, $"its weights have no tensor {Say.Quote(name)}; they have {Say.Some(Names, name)}");

    /// <summary>Closes all files.</summary>
    public void Dispose()
    {
        foreach (var f in _files) f.Dispose();
    }

    private static Dictionary<string, SafetensorsFile> OpenShards(string folder, JsonConfig index, List<SafetensorsFile> files)
    {
        var map = index.GetObject("weight_map");
        var open = new Dictionary<string, SafetensorsFile>(StringComparer.Ordinal);
        var fileOf = new Dictionary<string, SafetensorsFile>(StringComparer.Ordinal);
        foreach (var entry in map.Element.EnumerateObject())
        {
            if (entry.Value.ValueKind != JsonValueKind.String) throw map.Wrong(entry.Name, "names no file");
            var shard = map.GetString(entry.Name);
            if (shard.Length == 0 || shard is "." or ".." || shard.IndexOfAny(['/', '\\', '\0']) >= 0)
                throw map.Wrong(entry.Name, $"names {Say.Quote(shard)}, expected the name of a file in the same folder");
            if (!open.TryGetValue(shard, out var file))
            {
                var path = PathOf.Combine(folder, shard);
                if (!File.Exists(path)) throw new InvalidFileException(path, $"this shard is missing; {Index} needs it for {Say.Quote(entry.Name)}");
                file = SafetensorsFile.Open(path);
                open.Add(shard, file);
                files.Add(file);
            }

            if (!file.Contains(entry.Name)) throw new InvalidFileException(file.Path, $"lacks tensor {Say.Quote(entry.Name)}, which {Index} says is in it");
            fileOf.Add(entry.Name, file);
        }

        return fileOf;
    }
}
