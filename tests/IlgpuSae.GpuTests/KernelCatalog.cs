using System.Reflection;
using ILGPU;
using ILGPU.Backends.PTX;
using ILGPU.Runtime.Cuda;
using IlgpuSae.Tensors;
using Xunit;

namespace IlgpuSae.GpuTests;

/// <summary>A kernel's PTX for one architecture, as the driver would get it; or why there is none.</summary>
public sealed record CompiledKernel(string Text, string? Error)
{
    /// <summary>The instructions alone, without declarations and comments.</summary>
    public IEnumerable<string> Instructions => Text.Split('\n').Select(l => l.Trim())
        .Where(l => l.EndsWith(';') && !l.StartsWith('.') && !l.StartsWith("//", StringComparison.Ordinal));
}

/// <summary>Every method marked [GpuKernel], compiled once for both architectures on two threads; no device is needed.</summary>
public sealed class KernelCatalog
{
    private readonly Dictionary<(string Kernel, string Architecture), CompiledKernel> _compiled = [];

    /// <summary>Names of the architectures: A100, and H100/H200.</summary>
    public static readonly string[] Architectures = ["sm_80", "sm_90"];

    public KernelCatalog()
    {
        var all = Methods().ToArray();
        Parallel.For(0, 2, part =>
        {
            Context? context = null;
            for (var i = part; i < all.Length; i += 2)
            {
                foreach (var architecture in Architectures)
                {
                    context ??= GpuDevice.NewContext(_ => { });
                    var result = Compile(context, all[i], architecture);
                    lock (_compiled) _compiled.Add((Name(all[i]), architecture), result);
                    if (result.Error is null) continue;
                    // A context in which a compilation failed fails every later one.
                    context.Dispose();
                    context = null;
                }
            }

            context?.Dispose();
        });
    }

    public static string Name(MethodInfo m) => $"{m.DeclaringType!.Name}.{m.Name}";

    public static TheoryData<string> Names()
    {
        var data = new TheoryData<string>();
        foreach (var m in Methods()) data.Add(Name(m));
        return data;
    }

    public static MethodInfo Method(string name) => Methods().Single(m => Name(m) == name);

    public CompiledKernel Get(string name, string architecture) => _compiled[(name, architecture)];

    public static IEnumerable<MethodInfo> Methods() => typeof(Tensor).Assembly.GetTypes()
        .SelectMany(t => t.GetMethods(BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly))
        .Where(m => m.GetCustomAttribute<GpuKernelAttribute>() is not null)
        .OrderBy(Name, StringComparer.Ordinal);

    /// <summary>Compiles a kernel, by default to the newest version of PTX that the assembler in Debian (CUDA 12.4) reads.</summary>
    internal static CompiledKernel Compile(Context context, MethodInfo method, string architecture, CudaInstructionSet? version = null)
    {
        var target = architecture == "sm_80" ? CudaArchitecture.SM_80 : CudaArchitecture.SM_90;
        try
        {
            using var backend = new PTXBackend(context, new CudaCapabilityContext(target), target, version ?? CudaInstructionSet.ISA_84, null);
            return new CompiledKernel(PtxPipeline.Compile(backend, target, method).PTXAssembly, null);
        }
        catch (Exception e)
        {
            return new CompiledKernel("", e.GetBaseException().Message);
        }
    }
}
