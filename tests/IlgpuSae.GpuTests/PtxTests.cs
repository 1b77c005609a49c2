using System.Reflection;
using System.Text.RegularExpressions;
using ILGPU;
using ILGPU.Runtime.Cuda;
using IlgpuSae.Tensors;
using Xunit;

namespace IlgpuSae.GpuTests;

/// <summary>
/// Every [GpuKernel] method compiles to PTX without a GPU, and the text holds nothing that a CUDA device would refuse,
/// compute differently or do slowly. ILGPU's CPU accelerator does not go through this code generator.
/// </summary>
public sealed partial class PtxTests(KernelCatalog catalog) : IClassFixture<KernelCatalog>
{
    public static TheoryData<string> Kernels => KernelCatalog.Names();

    [Theory]
    [MemberData(nameof(Kernels))]
    public void Compiles_to_text_that_a_device_runs_well(string kernel)
    {
        var method = KernelCatalog.Method(kernel);
        var attribute = method.GetCustomAttribute<GpuKernelAttribute>()!;
        var problems = new List<string>(KernelIl.MiscompiledDivisions(method));
        foreach (var architecture in KernelCatalog.Architectures)
        {
            var compiled = catalog.Get(kernel, architecture);
            if (compiled.Error is { } error)
            {
                problems.Add($"{architecture}: does not compile: {error}");
                continue;
            }

            problems.AddRange(Problems(compiled, attribute).Select(p => $"{architecture}: {p}"));
            if (!compiled.Text.Contains($".target {architecture}", StringComparison.Ordinal)) problems.Add($"{architecture}: is not the target");
        }

        Assert.True(problems.Count == 0, $"{kernel}:\n{string.Join('\n', problems)}");
    }

    [Fact]
    public void Ilgpu_lets_the_text_be_replaced() => Assert.True(PtxPipeline.CanReplaceText);

    [Fact]
    public void The_text_is_improved()
    {
        const string Text = ".version 8.8\n.target sm_80\n\t.shared .align 4 .b8 s[64];\n\tbra.uni L1;\n";
        Assert.Equal(".version 8.8\n.target sm_90\n\t.shared .align 16 .b8 s[64];\n\tbra L1;\n",
            PtxPipeline.Improve(Text, CudaArchitecture.SM_90));
        Assert.Contains(".target sm_80\n", PtxPipeline.Improve(Text, CudaArchitecture.SM_80), StringComparison.Ordinal);
        Assert.Contains(".target sm_80\n", PtxPipeline.Improve(Text.Replace("8.8", "7.4", StringComparison.Ordinal), CudaArchitecture.SM_90), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("Gemm.Tile128NtKernel")]
    [InlineData("Gemm.TileBf16Kernel")]
    [InlineData("Softmax.GpuKernel")]
    public void The_newest_drivers_get_the_text_that_the_assembler_is_asked_about(string kernel)
    {
        using var context = GpuDevice.NewContext(_ => { });
        string Body(CudaInstructionSet version)
        {
            var text = KernelCatalog.Compile(context, KernelCatalog.Method(kernel), "sm_90", version).Text;
            return Identifier().Replace(text[text.IndexOf(".target", StringComparison.Ordinal)..], "_");
        }

        Assert.Equal(Body(CudaInstructionSet.ISA_84), Body(CudaInstructionSet.ISA_88));
    }

    [Fact]
    public void Divisions_that_ilgpu_miscompiles_are_found()
    {
        static IReadOnlyList<string> Found(string name) =>
            KernelIl.MiscompiledDivisions(typeof(Samples).GetMethod(name, BindingFlags.Static | BindingFlags.Public)!);
        Assert.Single(Found(nameof(Samples.IntegerByFour)));
        Assert.Single(Found(nameof(Samples.UnsignedLongByFourInCallee)));
        Assert.Empty(Found(nameof(Samples.FloatByFour)));
        Assert.Empty(Found(nameof(Samples.IntegerByThree)));
    }

    [Theory]
    [InlineData(nameof(Samples.CallsMissingFunction), "calls a function no device has")]
    [InlineData(nameof(Samples.IndexesLocalArray), "keeps variables in local memory")]
    [InlineData(nameof(Samples.ConvertsUnsigned), "computes in double")]
    [InlineData(nameof(Samples.Approximates), "approximates")]
    [InlineData(nameof(Samples.AddsAtomically), "adds floats in no fixed order")]
    [InlineData(nameof(Samples.FloatByFour), null)]
    public void Text_that_a_device_would_not_run_well_is_found(string sample, string? problem)
    {
        var method = typeof(Samples).GetMethod(sample, BindingFlags.Static | BindingFlags.Public)!;
        using var context = GpuDevice.NewContext(_ => { });
        var compiled = KernelCatalog.Compile(context, method, "sm_80");
        Assert.Null(compiled.Error);
        var found = Problems(compiled, method.GetCustomAttribute<GpuKernelAttribute>()!).ToArray();
        if (problem is null) Assert.Empty(found);
        else Assert.Contains(found, f => f.StartsWith(problem, StringComparison.Ordinal));
    }

    private static IEnumerable<string> Problems(CompiledKernel kernel, GpuKernelAttribute attribute)
    {
        if (kernel.Text.Contains(".extern .func", StringComparison.Ordinal))
            yield return "calls a function no device has: " + ExternFunction().Match(kernel.Text).Value;
        if (LocalVariable().IsMatch(kernel.Text))
            yield return "keeps variables in local memory: arrays in a kernel need constant indices, and no value may be passed by reference to an instruction";
        foreach (var line in kernel.Instructions)
        {
            if (line.Contains(".approx", StringComparison.Ordinal)) yield return $"approximates ({line}): use GpuMath";
            if (!attribute.AllowDouble && line.Contains(".f64", StringComparison.Ordinal))
                yield return $"computes in double ({line}): a conversion from an unsigned integer does; or set AllowDouble";
            if (GenericAccess().IsMatch(line)) yield return $"does not know which memory it accesses ({line})";
            if (FloatAtomic().IsMatch(line)) yield return $"adds floats in no fixed order ({line})";
        }
    }

    [GeneratedRegex(@"\.extern \.func[^\n]*(\n[^;]*)?;")]
    private static partial Regex ExternFunction();

    [GeneratedRegex(@"(?m)^\s*\.local ")]
    private static partial Regex LocalVariable();

    [GeneratedRegex(@"^(@!?%\w+ )?(ld|st)\.(v[24]\.)?[busf]\d")]
    private static partial Regex GenericAccess();

    [GeneratedRegex(@"^(@!?%\w+ )?(atom|red)\.(\w+\.)*add\.(\w+\.)*f\d")]
    private static partial Regex FloatAtomic();

    [GeneratedRegex(@"_\d+")]
    private static partial Regex Identifier();

    private static class Samples
    {
        public static void IntegerByFour(ArrayView<int> x) => x[0] = x[1] / 4;

        public static void UnsignedLongByFourInCallee(ArrayView<ulong> x) => x[0] = Quarter(x[1]);

        [GpuKernel]
        public static void FloatByFour(ArrayView<float> x) => x[0] = x[1] / 4f;

        public static void IntegerByThree(ArrayView<int> x) => x[0] = (x[1] / 3) + (x[1] >> 2);

        [GpuKernel]
        public static void CallsMissingFunction(ArrayView<float> x) => x[0] = MathF.FusedMultiplyAdd(x[0], x[1], x[2]);

        [GpuKernel]
        public static void IndexesLocalArray(ArrayView<int> x)
        {
            var a = LocalMemory.Allocate<int>(8);
            for (var i = 0; i < 8; i++) a[i] = x[i];
            x[0] = a[x[8]];
        }

        [GpuKernel]
        public static void ConvertsUnsigned(ArrayView<uint> x, ArrayView<float> y) => y[0] = x[0];

        [GpuKernel]
        public static void Approximates(ArrayView<float> x) => x[0] = MathF.Sin(x[0]);

        [GpuKernel]
        public static void AddsAtomically(ArrayView<float> x) => Atomic.Add(ref x[0], 1f);

        private static ulong Quarter(ulong x) => x / 4;
    }
}
