using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;
using Xunit;

namespace IlgpuSae.GpuTests;

/// <summary>Stand-ins for NVIDIA's libraries, compiled into a folder of their own when a C compiler is present.</summary>
public sealed class FakeCudaLibraries : IDisposable
{
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("ilgpusae-cuda-");

    public FakeCudaLibraries()
    {
        if (!OperatingSystem.IsLinux())
        {
            Absent = "the stand-in for NVIDIA's driver is a Linux library";
            return;
        }

        Absent = Compile("fakecuda.c", "libcuda.so.1") ?? Compile("fakecublas.c", "libcublas.so.12");
    }

    /// <summary>Why the libraries are not there; null when they are.</summary>
    public string? Absent { get; }

    public void Dispose() => _folder.Delete(true);

    /// <summary>Runs the host program with the libraries on its path.</summary>
    public FakeCudaRun Run(string[] arguments, params (string Name, string Value)[] environment) => Run(_folder.FullName, arguments, environment);

    /// <summary>Runs the host program, with the libraries or without.</summary>
    public FakeCudaRun Run(string libraryPath, string[] arguments, (string Name, string Value)[] environment)
    {
        var log = Path.Combine(_folder.FullName, Guid.NewGuid().ToString("N"));
        var start = new ProcessStartInfo(Path.Combine(AppContext.BaseDirectory, "IlgpuSae.FakeCudaHost"), arguments)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["LD_LIBRARY_PATH"] = libraryPath;
        start.Environment["FAKE_CUDA_LOG"] = log;
        foreach (var (name, value) in environment) start.Environment[name] = value;
        using var process = Process.Start(start)!;
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return new FakeCudaRun(process.ExitCode, output.TrimEnd(), errors.Result, File.Exists(log) ? File.ReadAllLines(log) : []);
    }

    private string? Compile(string source, string library)
    {
        try
        {
            using var process = Process.Start(new ProcessStartInfo("cc",
                ["-shared", "-fPIC", "-O1", "-o", Path.Combine(_folder.FullName, library), Path.Combine(Repository.Root, "tests", "FakeCuda", source)])
            { RedirectStandardError = true })!;
            var errors = process.StandardError.ReadToEnd();
            process.WaitForExit();
            if (process.ExitCode != 0) throw new InvalidOperationException($"{source} does not compile: {errors}");
            return null;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return "no C compiler (cc) to build the stand-in for NVIDIA's driver with";
        }
    }
}

/// <summary>What a run of the host program left.</summary>
public sealed record FakeCudaRun(int ExitCode, string Output, string Errors, string[] Log);

/// <summary>
/// The whole host side of a CUDA device against a stand-in for NVIDIA's driver, in a child process each: finding the
/// device, or saying why there is none; the memory pool; loading and launching every kernel.
/// </summary>
public sealed partial class FakeCudaTests(FakeCudaLibraries libraries) : IClassFixture<FakeCudaLibraries>
{
    [Fact]
    public void A_device_is_found_and_described()
    {
        var run = Run("describe");
        Assert.Equal("cuda:0: Stand-in for H200, compute capability 9.0, CUDA driver 13.0, 132 multiprocessors, 144384 MiB; groups of 256", run.Output);
    }

    [Theory]
    [InlineData("FAKE_CUDA_DEVICES", "0", "error 100: it sees no CUDA device")]
    [InlineData("FAKE_CUDA_INIT_ERROR", "802", "error 802: the system is not ready")]
    [InlineData("FAKE_CUDA_FAIL_ATTRIBUTE", "13", "lists the device, but one of its properties could not be read")]
    public void A_missing_device_is_explained(string name, string value, string reason)
    {
        var run = Run(["describe"], (name, value));
        Assert.Equal(2, run.ExitCode);
        Assert.StartsWith("device cuda:0: ", run.Output, StringComparison.Ordinal);
        Assert.Contains(reason, run.Output, StringComparison.Ordinal);
        Assert.EndsWith("use --device cpu", run.Output, StringComparison.Ordinal);
    }

    [Fact]
    public void A_number_beyond_the_last_device_is_explained()
    {
        var run = Run(["describe", "3"], ("FAKE_CUDA_DEVICES", "2"));
        Assert.Equal((2, "device cuda:3: the machine has 2 CUDA device(s), cuda:0 .. cuda:1"), (run.ExitCode, run.Output));
    }

    [Fact]
    public void A_missing_driver_is_explained()
    {
        Assert.SkipWhen(Tensors.CudaDriver.Ask().Version > 0, "this machine has NVIDIA's driver");
        var run = libraries.Run("/nonexistent", ["describe"], []);
        Assert.Equal((2, "device cuda:0: NVIDIA's driver library (libcuda.so.1) was not found; install NVIDIA's driver, or use --device cpu"), (run.ExitCode, run.Output));
    }

    [Fact]
    public void Memory_is_pooled_copied_and_its_end_explained()
    {
        var run = Run("memory");
        var lines = run.Output.Split('\n');
        Assert.Equal(4, lines.Length);
        // Three steps, three blocks: later steps find the first step's in the pool.
        Assert.All(lines[..3], l => Assert.Equal("row 3 starts with 300, zeros sum to 0, 3 allocations", l));
        Assert.StartsWith("cuda:0: no room for a block of 4194304.0 MiB", lines[3], StringComparison.Ordinal);
        Assert.Equal(3, run.Log.Count(l => l.StartsWith("alloc", StringComparison.Ordinal)));
        Assert.Equal(3, run.Log.Count(l => l.StartsWith("free", StringComparison.Ordinal)));
    }

    [Fact]
    public void Every_kernel_is_loaded_with_its_improved_text_and_launched() =>
        CheckKernels(Run("kernels"), KernelCatalog.Methods().Count(), ".version 8.8 .target sm_90");

    [Fact]
    public void An_older_device_and_driver_get_text_they_know() =>
        CheckKernels(Run(["kernels", "0", "Add"], ("FAKE_CUDA_DRIVER", "11040"), ("FAKE_CUDA_CC", "80")), 1, ".version 7.4 .target sm_80");

    [Theory]
    [InlineData("cublas-f32")]
    [InlineData("cublas-bf16")]
    public void Products_reach_cublas_with_the_right_operands(string task)
    {
        var run = Run(task);
        Assert.True(run.ExitCode == 0, run.Output + run.Errors);
        Assert.Equal(["cuBLAS found: True", .. Enumerable.Repeat("largest error 0.000000", 4)], run.Output.Split('\n'));
    }

    private static void CheckKernels(FakeCudaRun run, int kernels, string header)
    {
        Assert.True(run.Output == string.Create(CultureInfo.InvariantCulture, $"{kernels} kernels"), run.Output + run.Errors);
        var modules = run.Log.Where(l => l.StartsWith("module", StringComparison.Ordinal)).ToArray();
        Assert.Equal(kernels, modules.Length);
        Assert.All(modules, m => Assert.Equal("module " + header, m));
        Assert.Equal(kernels, run.Log.Count(l => Launch().IsMatch(l)));
    }

    private FakeCudaRun Run(string task) => Run([task]);

    private FakeCudaRun Run(string[] arguments, params (string Name, string Value)[] environment)
    {
        Assert.SkipWhen(libraries.Absent is not null, libraries.Absent ?? "");
        return libraries.Run(arguments, environment);
    }

    [GeneratedRegex(@"^launch \(1,1,1\) \(\d+,1,1\)$")]
    private static partial Regex Launch();
}
