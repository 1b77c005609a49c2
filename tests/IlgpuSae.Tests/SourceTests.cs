using System.Text.RegularExpressions;
using Xunit;

namespace IlgpuSae.Tests;

/// <summary>What the source text itself must keep to: file sizes, no marks of unfinished work, a test for each kernel.</summary>
public sealed partial class SourceTests
{
    private const int MaxLines = 600;

    [Fact]
    public void No_source_file_is_longer_than_600_lines()
    {
        var long_ = Sources("src").Concat(Sources("tests")).Select(f => (f, n: File.ReadLines(f).Count())).Where(x => x.n > MaxLines);
        Assert.Empty(long_.Select(x => $"{x.f}: {x.n}"));
    }

    [Fact]
    public void No_mark_of_unfinished_work_is_left()
    {
        // Built from pieces so that this file does not find itself.
        var marks = new Regex(@"\b(TO" + "DO|FIX" + "ME|HA" + "CK)\b|NotImplemented" + "Exception");
        var found = Sources("src").Concat(Sources("tests")).Concat(Sources("samples"))
            .SelectMany(f => File.ReadLines(f).Select((line, i) => (f, i, line))).Where(x => marks.IsMatch(x.line));
        Assert.Empty(found.Select(x => $"{x.f}:{x.i + 1}: {x.line.Trim()}"));
    }

    [Fact]
    public void Every_kernel_lists_cases_for_the_generic_test()
    {
        foreach (var t in Testing.KernelHarness.KernelTypes()) Assert.NotEmpty(Testing.KernelHarness.CasesOf(t));
    }

    private static IEnumerable<string> Sources(string folder)
    {
        var root = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(root, "IlgpuSae.sln"))) root = Path.GetDirectoryName(root) ?? throw new InvalidOperationException("IlgpuSae.sln was not found");
        var start = Path.Combine(root, folder);
        return !Directory.Exists(start) ? [] : Directory.EnumerateFiles(start, "*.cs", SearchOption.AllDirectories).Where(f => !BuildOutput().IsMatch(f));
    }

    [GeneratedRegex(@"[\\/](bin|obj)[\\/]")]
    private static partial Regex BuildOutput();
}
