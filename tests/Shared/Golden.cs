using System.Text.Json;
using IlgpuSae.Files;
using Xunit;

namespace IlgpuSae.Testing;

/// <summary>Reference numbers in tests/Golden: one folder a case, with case.json and safetensors files.</summary>
internal sealed class Golden
{
    private readonly JsonElement _case;

    private Golden(string folder)
    {
        Folder = folder;
        using var document = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "case.json")));
        _case = document.RootElement.Clone();
    }

    /// <summary>The case's folder.</summary>
    public string Folder { get; }

    /// <summary>case.json.</summary>
    public JsonElement Case => _case;

    /// <summary>The case's allowed absolute difference.</summary>
    public double Abs => _case.GetProperty("tolerance").GetProperty("abs").GetDouble();

    /// <summary>The case's allowed relative difference, of the expected value.</summary>
    public double Rel => _case.GetProperty("tolerance").GetProperty("rel").GetDouble();

    /// <summary>Opens a case, such as "lm", "gpt2_tiny".</summary>
    public static Golden Open(params string[] parts) => new(FolderOf(parts));

    /// <summary>A folder in tests/Golden.</summary>
    public static string FolderOf(params string[] parts)
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "IlgpuSae.sln"))) folder = folder.Parent;
        Assert.NotNull(folder);
        var path = Path.Combine([folder.FullName, "tests", "Golden", .. parts]);
        Assert.True(Directory.Exists(path), $"no golden case {string.Join('/', parts)}");
        return path;
    }

    /// <summary>The path of a file of the case.</summary>
    public string PathOf(string name) => Path.Combine(Folder, name);

    /// <summary>All floating-point tensors of one of the case's files.</summary>
    public Dictionary<string, float[]> Floats(string file)
    {
        using var f = SafetensorsFile.Open(PathOf(file));
        return f.Names.Where(n => f[n].Type is SafetensorsType.F32 or SafetensorsType.F64).ToDictionary(n => n, n => f.ReadFloat32(n), StringComparer.Ordinal);
    }

    /// <summary>An integer tensor of one of the case's files as rows.</summary>
    public int[][] Rows(string file, string tensor)
    {
        using var f = SafetensorsFile.Open(PathOf(file));
        var width = (int)f[tensor].Shape[^1];
        return f.ReadInt32(tensor).Chunk(width).ToArray();
    }

    /// <summary>|actual - expected| is at most abs + rel |expected| everywhere; returns the largest difference.</summary>
    public double Close(string what, ReadOnlySpan<float> actual, ReadOnlySpan<float> expected) => Close(what, actual, expected, Abs, Rel);

    /// <summary>|actual - expected| is at most abs + rel |expected| everywhere; returns the largest difference.</summary>
    public static double Close(string what, ReadOnlySpan<float> actual, ReadOnlySpan<float> expected, double abs, double rel)
    {
        Assert.True(actual.Length == expected.Length, $"{what}: {actual.Length} numbers, expected {expected.Length}");
        double worst = 0;
        for (var i = 0; i < actual.Length; i++)
        {
            var difference = Math.Abs((double)actual[i] - expected[i]);
            worst = Math.Max(worst, difference);
            Assert.True(difference <= abs + (rel * Math.Abs(expected[i])), $"{what}: element {i} is {actual[i]:R}, expected {expected[i]:R} within {abs} + {rel} relative");
        }

        return worst;
    }
}
