using System.Diagnostics;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests;

/// <summary>README's program is the compiled sample, and the samples run.</summary>
public sealed class ReadmeTests
{
    private static string Root => Path.GetFullPath(Path.Combine(Golden.FolderOf(), "..", ".."));

    [Fact]
    public void The_program_in_README_is_the_QuickStart_sample()
    {
        var readme = File.ReadAllText(Path.Combine(Root, "README.md"));
        var start = readme.IndexOf("```csharp\n", StringComparison.Ordinal) + "```csharp\n".Length;
        var program = readme[start..readme.IndexOf("```", start, StringComparison.Ordinal)];
        var sample = File.ReadAllText(Path.Combine(Root, "samples", "QuickStart", "Program.cs"));
        Assert.Equal(sample, program);
        Assert.InRange(program.Split('\n').Length, 10, 40);
    }

    [Fact]
    public void README_names_files_that_exist()
    {
        var readme = File.ReadAllText(Path.Combine(Root, "README.md"));
        var links = System.Text.RegularExpressions.Regex.Matches(readme, @"\]\(([^)#]+)\)").Select(m => m.Groups[1].Value).Where(l => !l.StartsWith("http", StringComparison.Ordinal)).ToList();
        Assert.NotEmpty(links);
        Assert.All(links, l => Assert.True(Path.Exists(Path.Combine(Root, l)), l));
    }

    [Theory]
    [InlineData("QuickStart", "of 64 true features found")]
    [InlineData("LoadAndAnalyze", "position 4, token 7: #")]
    public async Task Samples_run_in_seconds(string name, string expected)
    {
        var path = Path.Combine(Root, "samples", name, "bin", Configuration, "net10.0", name + ".dll");
        if (!File.Exists(path)) Assert.Skip($"samples/{name} is not built");
        using var process = Process.Start(new ProcessStartInfo("dotnet", [path]) { RedirectStandardOutput = true })!;
        var output = await process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.Equal(0, process.ExitCode);
        Assert.Contains(expected, output, StringComparison.Ordinal);
    }

#if DEBUG
    private const string Configuration = "Debug";
#else
    private const string Configuration = "Release";
#endif
}
