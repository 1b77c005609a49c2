using System.Globalization;
using System.Reflection;
using System.Text;
using IlgpuSae.Tensors;
using Xunit;

namespace IlgpuSae.GpuTests;

/// <summary>
/// NVIDIA's assembler takes every kernel for both architectures, and its machine code keeps within its registers.
/// Skipped where the assembler is not installed; eng/check-sass.sh fetches it, runs these tests and writes the table.
/// </summary>
public sealed class SassTests(KernelCatalog catalog) : IClassFixture<KernelCatalog>
{
    private const string TableVariable = "ILGPUSAE_WRITE_KERNEL_TABLE";
    private const string Absent = "NVIDIA's assembler is not installed; eng/gpu-tools.sh fetches it";

    public static TheoryData<string> Kernels => KernelCatalog.Names();

    [Theory]
    [MemberData(nameof(Kernels))]
    public void Assembles_without_spills_and_within_its_registers(string kernel)
    {
        var assembler = Assembler.Find();
        Assert.SkipWhen(assembler is null, Absent);
        var limit = KernelCatalog.Method(kernel).GetCustomAttribute<GpuKernelAttribute>()!.MaxRegisters;
        foreach (var architecture in KernelCatalog.Architectures)
        {
            var compiled = catalog.Get(kernel, architecture);
            Assert.True(compiled.Error is null, $"{kernel} {architecture}: {compiled.Error}");
            var code = assembler.Assemble(compiled.Text, architecture);
            var local = code.Count("LDL") + code.Count("STL");
            Assert.True(code.SpillBytes == 0 && local == 0, $"{kernel} {architecture}: {code.SpillBytes} bytes of stack and spills, {local} local accesses");
            Assert.True(code.Registers <= limit, $"{kernel} {architecture}: {code.Registers} registers, MaxRegisters is {limit}");
        }
    }

    [Fact]
    public void The_table_of_kernels_is_written()
    {
        Assert.SkipUnless(Environment.GetEnvironmentVariable(TableVariable) == "1", $"only with {TableVariable}=1, which eng/check-sass.sh sets");
        var assembler = Assembler.Find();
        Assert.SkipWhen(assembler is null, Absent);
        var names = KernelCatalog.Methods().Select(KernelCatalog.Name).ToArray();
        var rows = new string[names.Length];
        Parallel.For(0, names.Length, new ParallelOptions { MaxDegreeOfParallelism = 2 }, i =>
        {
            var a100 = assembler.Assemble(catalog.Get(names[i], "sm_80").Text, "sm_80");
            var h100 = assembler.Assemble(catalog.Get(names[i], "sm_90").Text, "sm_90");
            rows[i] = string.Create(CultureInfo.InvariantCulture,
                $"| {names[i]} | {a100.Registers} | {h100.Registers} | {h100.SharedBytes} | {h100.Instructions.Count} | {h100.Count("FFMA")} | {h100.Count("HMMA")} | {h100.Instructions.Count(o => o.StartsWith("LDG", StringComparison.Ordinal) && o.Contains(".128", StringComparison.Ordinal))} of {h100.Count("LDG")} | {a100.SpillBytes + h100.SpillBytes} |");
        });

        var text = new StringBuilder()
            .Append("# GPU kernels in machine code\n\n")
            .Append("Written by `eng/check-sass.sh` with NVIDIA's assembler (CUDA 12.4), without a GPU: registers a thread on sm_80 (A100) and sm_90 (H100, H200); on sm_90 bytes of static shared memory a group, instructions, fused multiply-adds, tensor-core multiply-adds, global loads of 16 bytes of all global loads; bytes of stack and spills on both. A figure of instructions counts the text of the program, not what runs.\n\n")
            .Append("| kernel | registers sm_80 | registers sm_90 | shared | instructions | FFMA | HMMA | 16-byte loads | spills |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
            .AppendJoin('\n', rows).Append('\n').ToString();
        File.WriteAllText(Path.Combine(Repository.Root, "docs", "gpu-kernels.md"), text);
    }
}
