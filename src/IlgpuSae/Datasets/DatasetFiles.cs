using System.IO.Compression;
using IlgpuSae.Files;

namespace IlgpuSae.Datasets;

/// <summary>The files of a data set, and how they are opened.</summary>
internal static class DatasetFiles
{
    private static readonly string[] Forms = [".txt", ".jsonl", ".json", ".ndjson", ".parquet", ".arrow"];

    /// <summary>The files of a path, in order.</summary>
    /// <exception cref="InvalidFileException">There is none that can be read.</exception>
    public static List<string> Find(string path)
    {
        if (File.Exists(path)) return [path];
        if (!Directory.Exists(path)) throw new InvalidFileException(path, "no such file or folder; a data set is a file or folder of .txt, .jsonl (.gz, .zst), .parquet or .arrow");
        if (File.Exists(Path.Combine(path, "dataset_dict.json")))
        {
            var splits = JsonConfig.Read(Path.Combine(path, "dataset_dict.json")).GetStrings("splits");
            return Array.IndexOf(splits, "train") >= 0 ? Find(Inside(path, "train")) : throw new InvalidFileException(path, $"has no split \"train\"; name the folder of one of its splits: {string.Join(", ", splits)}");
        }

        if (File.Exists(Path.Combine(path, "state.json")))
        {
            var state = JsonConfig.Read(Path.Combine(path, "state.json"));
            if (!state.TryGet("_data_files", out var list) || list.ValueKind != System.Text.Json.JsonValueKind.Array) throw state.Wrong("_data_files", "is no list of files");
            var files = list.EnumerateArray().Select(f => Inside(path, state.Entry("_data_files", f).GetString("filename"))).ToList();
            foreach (var file in files)
                if (!File.Exists(file)) throw new InvalidFileException(file, "no such file; state.json names it");
            return files.Count > 0 ? files : throw new InvalidFileException(path, "state.json names no file");
        }

        var found = Directory.EnumerateFiles(path, "*", SearchOption.AllDirectories).Where(f => Array.IndexOf(Forms, Bare(f)) >= 0).GroupBy(Form).ToList();
        // Text lies beside a data set of another form as its description; .json files without lines, too.
        var form = found.OrderBy(g => g.Key == ".txt").ThenByDescending(g => g.Count()).FirstOrDefault()
            ?? throw new InvalidFileException(path, "the folder holds no .txt, .jsonl, .parquet or .arrow file");
        return [.. form.Order(StringComparer.Ordinal)];
    }

    /// <summary>The form of a file by its name, compression aside: .txt, .jsonl, .parquet or .arrow.</summary>
    public static string Form(string file) => Bare(file) switch
    {
        ".json" or ".ndjson" => ".jsonl",
        ".jsonl" or ".parquet" or ".arrow" => Bare(file),
        _ => ".txt",
    };

    /// <summary>A file's bytes, decompressed.</summary>
    public static Stream Open(string file)
    {
        var raw = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.Read, 1 << 16, FileOptions.SequentialScan);
        return Path.GetExtension(file) switch
        {
            ".gz" => new GZipStream(raw, CompressionMode.Decompress),
            ".zst" => new ZstdSharp.DecompressionStream(raw, leaveOpen: false),
            _ => raw,
        };
    }

    private static string Bare(string file)
    {
        var extension = Path.GetExtension(file).ToLowerInvariant();
        return extension is ".gz" or ".zst" ? Path.GetExtension(file[..^extension.Length]).ToLowerInvariant() : extension;
    }

    /// <summary>A file within the folder; names that lead out of it are refused.</summary>
    private static string Inside(string folder, string name)
    {
        if (name.Length == 0 || Path.IsPathRooted(name) || name.Split('/', '\\').Contains("..")) throw new InvalidFileException(folder, $"names the file {Say.Quote(name)}, which lies outside the folder");
        return Path.Combine(folder, name);
    }
}
