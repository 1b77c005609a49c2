using System.Reflection;
using System.Text.RegularExpressions;
using ILGPU.Backends.EntryPoints;
using ILGPU.Backends.PTX;
using ILGPU.Runtime;
using ILGPU.Runtime.Cuda;

namespace IlgpuSae.Tensors;

/// <summary>
/// The way of a [GpuKernel] method to a CUDA device: ILGPU compiles it to PTX text, the text is improved, the driver
/// assembles it. The one place that touches ILGPU's private parts; where those are not as in ILGPU 1.5.3, kernels are
/// loaded as ILGPU wrote them, slower and with the same results.
/// </summary>
internal static partial class PtxPipeline
{
    private static readonly FieldInfo? TextField = FindTextField();

    /// <summary>Whether ILGPU's compiled kernel lets its text be replaced.</summary>
    internal static bool CanReplaceText => TextField is not null;

    /// <summary>Compiles and loads a kernel.</summary>
    /// <param name="accelerator">Where it will run.</param>
    /// <param name="method">A static method marked [GpuKernel].</param>
    /// <exception cref="InvalidOperationException">The method is not marked.</exception>
    internal static Kernel Load(CudaAccelerator accelerator, MethodInfo method)
    {
        var specialization = Specialization(method);
        if (CanReplaceText)
        {
            try
            {
                return accelerator.LoadKernel(Compile((PTXBackend)accelerator.Backend, accelerator.Architecture, method));
            }
            catch (CudaException)
            {
                // A driver that refuses the changed text may take the original; if not, its error is the one to see.
            }
        }

        return accelerator.LoadKernel(method, specialization);
    }

    /// <summary>Compiles a kernel to PTX and improves the text. Needs no device.</summary>
    /// <param name="backend">ILGPU's code generator.</param>
    /// <param name="architecture">The device's architecture, which may be newer than ILGPU knows.</param>
    /// <param name="method">A static method marked [GpuKernel].</param>
    /// <exception cref="InvalidOperationException">The method is not marked.</exception>
    internal static PTXCompiledKernel Compile(PTXBackend backend, CudaArchitecture architecture, MethodInfo method)
    {
        var entry = EntryPointDescription.FromExplicitlyGroupedKernel(method);
        var kernel = (PTXCompiledKernel)backend.Compile(entry, Specialization(method));
        TextField?.SetValue(kernel, Improve(kernel.PTXAssembly, architecture));
        return kernel;
    }

    /// <summary>
    /// The text the driver gets. <c>bra.uni</c> becomes <c>bra</c>: the hint keeps NVIDIA's assembler from unrolling
    /// loops (a tiled product had one multiply-add an iteration instead of sixteen). ILGPU asks for sm_80 on every newer
    /// device; sm_90 is asked for where the device and the text's version allow. Shared memory is aligned for 16-byte
    /// accesses even where ILGPU saw only scalar ones.
    /// </summary>
    internal static string Improve(string ptx, CudaArchitecture architecture)
    {
        ptx = ptx.Replace("bra.uni", "bra", StringComparison.Ordinal);
        ptx = SharedAlignment().Replace(ptx, ".shared .align 16 ");
        var version = Version().Match(ptx);
        var knowsSm90 = version.Success && System.Version.Parse(version.Groups[1].Value) >= new Version(7, 8);
        return architecture >= CudaArchitecture.SM_90 && knowsSm90 ? Target().Replace(ptx, ".target sm_90") : ptx;
    }

    private static KernelSpecialization Specialization(MethodInfo method)
    {
        var kernel = method.GetCustomAttribute<GpuKernelAttribute>()
            ?? throw new InvalidOperationException($"{method.DeclaringType?.Name}.{method.Name} is launched but not marked [GpuKernel]");
        return kernel.GroupSize == 0 ? KernelSpecialization.Empty : new KernelSpecialization(kernel.GroupSize, kernel.MinGroups);
    }

    private static FieldInfo? FindTextField()
    {
        var field = typeof(PTXCompiledKernel).GetField("<PTXAssembly>k__BackingField", BindingFlags.NonPublic | BindingFlags.Instance);
        return field?.FieldType == typeof(string) ? field : null;
    }

    [GeneratedRegex(@"\.shared \.align [1248] ")]
    private static partial Regex SharedAlignment();

    [GeneratedRegex(@"(?m)^\.version (\d+\.\d+)")]
    private static partial Regex Version();

    [GeneratedRegex(@"(?m)^\.target sm_80\b")]
    private static partial Regex Target();
}
