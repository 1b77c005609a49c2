namespace IlgpuSae.GpuTests;

/// <summary>Where the tests find the repository's files.</summary>
internal static class Repository
{
    /// <summary>The folder that holds IlgpuSae.sln, above the test program.</summary>
    public static string Root { get; } = FindRoot();

    private static string FindRoot()
    {
        for (var d = new DirectoryInfo(AppContext.BaseDirectory); d is not null; d = d.Parent)
            if (File.Exists(Path.Combine(d.FullName, "IlgpuSae.sln"))) return d.FullName;
        throw new InvalidOperationException($"no folder above {AppContext.BaseDirectory} holds IlgpuSae.sln");
    }
}
