using System.Globalization;
using System.Reflection;
using System.Text;
using IlgpuSae.Tensors;
using Xunit;

namespace IlgpuSae.GpuTests;

/// <summary>
/// NVIDIA's assembler takes every kernel for both architectures, and its machine code keeps within its registers.
/// Skipped where the assembler is not on the path; eng/check-sass.sh fetches it, runs this test and writes the table.
/// </summary>
public sealed class SassTests(KernelCatalog catalog) : IClassFixture<KernelCatalog>
{
    private const string TableVariable = "ILGPUSAE_KERNEL_TABLE";

    [Fact]
    public void Every_kernel_assembles_without_spills_and_within_its_registers()
    {
        var assembler = Assembler.Find();
        Assert.SkipWhen(assembler is null, "NVIDIA's assembler (ptxas, nvdisasm) is not on the path; eng/check-sass.sh fetches it and runs this test");
        var methods = KernelCatalog.Methods().ToArray();
        var rows = new string[methods.Length];
        var problems = new SortedSet<string>(StringComparer.Ordinal);
        Parallel.For(0, methods.Length, new ParallelOptions { MaxDegreeOfParallelism = 2 }, i =>
        {
            var name = KernelCatalog.Name(methods[i]);
            var limit = methods[i].GetCustomAttribute<GpuKernelAttribute>()!.MaxRegisters;
            var code = new Dictionary<string, MachineCode>();
            foreach (var architecture in KernelCatalog.Architectures)
            {
                try
                {
                    code[architecture] = assembler.Assemble(catalog.Get(name, architecture).Text, architecture);
                    foreach (var p in Problems(code[architecture], limit)) lock (problems) problems.Add($"{name} {architecture}: {p}");
                }
                catch (InvalidOperationException e)
                {
                    lock (problems) problems.Add($"{name} {architecture}: {e.Message}");
                    return;
                }
            }

            rows[i] = Row(name, code["sm_80"], code["sm_90"]);
        });
        Assert.True(problems.Count == 0, string.Join('\n', problems));
        if (Environment.GetEnvironmentVariable(TableVariable) is { Length: > 0 } path) File.WriteAllText(path, Table(rows));
    }

    private static IEnumerable<string> Problems(MachineCode code, int limit)
    {
        var local = code.Count("LDL") + code.Count("STL");
        if (code.SpillBytes > 0 || local > 0) yield return $"{code.SpillBytes} bytes of stack and spills, {local} local accesses";
        if (code.Registers > limit) yield return $"{code.Registers} registers, MaxRegisters is {limit}";
    }

    private static string Row(string name, MachineCode a100, MachineCode h100)
    {
        var wide = h100.Instructions.Count(o => o.StartsWith("LDG", StringComparison.Ordinal) && o.Contains(".128", StringComparison.Ordinal));
        return string.Create(CultureInfo.InvariantCulture,
            $"| {name} | {a100.Registers} | {h100.Registers} | {h100.SharedBytes} | {h100.Instructions.Count} | {h100.Count("FFMA")} | {h100.Count("HMMA")} | {wide} of {h100.Count("LDG")} |");
    }

    private static string Table(string[] rows) => new StringBuilder()
        .Append("# GPU kernels in machine code\n\n")
        .Append("Written by `eng/check-sass.sh` with NVIDIA's assembler (CUDA 12.4), without a GPU: registers a thread on sm_80 (A100) and sm_90 (H100, H200); on sm_90 bytes of static shared memory a group, instructions, fused multiply-adds, tensor-core multiply-adds, global loads of 16 bytes of all global loads. No kernel spills or uses local memory on either. Instructions are counted in the program's text, not as they run.\n\n")
        .Append("| kernel | registers sm_80 | registers sm_90 | shared bytes | instructions | FFMA | HMMA | 16-byte loads |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
        .AppendJoin('\n', rows).Append('\n').ToString();
}
