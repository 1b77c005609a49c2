using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;

namespace IlgpuSae.GpuTests;

/// <summary>What NVIDIA's assembler made of a kernel.</summary>
/// <param name="Registers">Registers a thread.</param>
/// <param name="SharedBytes">Static shared memory a group.</param>
/// <param name="SpillBytes">Spill stores and loads, and stack.</param>
/// <param name="Instructions">Opcodes of the machine code, in order.</param>
public sealed record MachineCode(int Registers, int SharedBytes, int SpillBytes, IReadOnlyList<string> Instructions)
{
    public int Count(string prefix) => Instructions.Count(i => i.StartsWith(prefix, StringComparison.Ordinal));
}

/// <summary>NVIDIA's ptxas and nvdisasm, where PATH has them; eng/check-sass.sh fetches them and sets it.</summary>
internal sealed partial class Assembler
{
    private readonly string _ptxas;
    private readonly string _nvdisasm;

    private Assembler(string ptxas, string nvdisasm)
    {
        _ptxas = ptxas;
        _nvdisasm = nvdisasm;
    }

    /// <summary>Null where the tools are not installed.</summary>
    public static Assembler? Find()
    {
        var folders = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Where(Path.IsPathFullyQualified);
        foreach (var folder in folders)
        {
            var tools = (Ptxas: Path.Combine(folder, "ptxas"), Nvdisasm: Path.Combine(folder, "nvdisasm"));
            if (File.Exists(tools.Ptxas) && File.Exists(tools.Nvdisasm)) return new Assembler(tools.Ptxas, tools.Nvdisasm);
        }

        return null;
    }

    /// <summary>Assembles a kernel.</summary>
    /// <exception cref="InvalidOperationException">The assembler refused the text; the message is its own.</exception>
    public MachineCode Assemble(string ptx, string architecture)
    {
        var folder = Directory.CreateTempSubdirectory("ilgpusae-ptx-");
        try
        {
            string text = Path.Combine(folder.FullName, "kernel.ptx"), binary = Path.Combine(folder.FullName, "kernel.cubin");
            File.WriteAllText(text, ptx);
            var report = Run(_ptxas, $"-arch={architecture}", "-v", "-o", binary, text);
            var code = Run(_nvdisasm, "-c", binary);
            return new MachineCode(
                Number(RegisterCount(), report),
                Number(SharedSize(), report),
                Number(StackSize(), report) + Number(SpillStores(), report) + Number(SpillLoads(), report),
                Instruction().Matches(code).Select(m => m.Groups[1].Value).ToArray());
        }
        finally
        {
            folder.Delete(true);
        }
    }

    private static int Number(Regex pattern, string report)
    {
        var m = pattern.Match(report);
        return m.Success ? int.Parse(m.Groups[1].Value, CultureInfo.InvariantCulture) : 0;
    }

    private static string Run(string program, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0
            ? output + errors.Result
            : throw new InvalidOperationException($"{Path.GetFileName(program)} failed: {output}{errors.Result}");
    }

    [GeneratedRegex(@"Used (\d+) registers")]
    private static partial Regex RegisterCount();

    [GeneratedRegex(@"(\d+) bytes smem")]
    private static partial Regex SharedSize();

    [GeneratedRegex(@"(\d+) bytes stack frame")]
    private static partial Regex StackSize();

    [GeneratedRegex(@"(\d+) bytes spill stores")]
    private static partial Regex SpillStores();

    [GeneratedRegex(@"(\d+) bytes spill loads")]
    private static partial Regex SpillLoads();

    [GeneratedRegex(@"(?m)^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)")]
    private static partial Regex Instruction();
}
