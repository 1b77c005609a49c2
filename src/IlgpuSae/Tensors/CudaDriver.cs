using System.Globalization;
using System.Runtime.InteropServices;
using ILGPU.Runtime.Cuda;

namespace IlgpuSae.Tensors;

/// <summary>
/// NVIDIA's driver library, found and asked before ILGPU is: ILGPU looks for <c>libcuda.so</c> only, a name that
/// comes with development packages, and reports every failure as "no devices".
/// </summary>
internal static unsafe class CudaDriver
{
    private static readonly Lazy<nint> Library = new(Find);

    /// <summary>What the driver answered.</summary>
    /// <param name="Problem">Why no device can be used; null when there is one.</param>
    /// <param name="Version">Highest CUDA version the driver supports, such as 13000 for 13.0; 0: unknown.</param>
    /// <param name="Devices">Number of devices.</param>
    internal sealed record Answer(string? Problem, int Version = 0, int Devices = 0)
    {
        /// <summary>The version as people write it: 13.0.</summary>
        internal string VersionText => string.Create(CultureInfo.InvariantCulture, $"{Version / 1000}.{Version % 1000 / 10}");
    }

    /// <summary>Asks the driver for its version and devices; never throws.</summary>
    internal static Answer Ask()
    {
        var library = Library.Value;
        if (library == 0) return new Answer($"NVIDIA's driver library ({Names()[0]}) was not found; install NVIDIA's driver");
        if (!NativeLibrary.TryGetExport(library, "cuInit", out var init)
            || !NativeLibrary.TryGetExport(library, "cuDriverGetVersion", out var getVersion)
            || !NativeLibrary.TryGetExport(library, "cuDeviceGetCount", out var getCount))
        {
            return new Answer($"{Names()[0]} is not NVIDIA's driver library: a function is missing");
        }

        int version, count;
        if (((delegate* unmanaged<int*, int>)getVersion)(&version) != 0) version = 0;
        var error = ((delegate* unmanaged<uint, int>)init)(0);
        if (error != 0) return new Answer(Explain("cuInit", error), version);
        error = ((delegate* unmanaged<int*, int>)getCount)(&count);
        if (error != 0) return new Answer(Explain("cuDeviceGetCount", error), version);
        return count == 0 ? new Answer(Explain("cuDeviceGetCount", NoDevice), version) : new Answer(null, version, count);
    }

    private const int NoDevice = 100;

    private static string Explain(string call, int error)
    {
        var reason = error switch
        {
            NoDevice => "it sees no CUDA device (a GPU must be present, and CUDA_VISIBLE_DEVICES must not hide it)",
            802 => "the system is not ready (on NVSwitch machines: is the fabric manager running?)",
            803 => "the driver library and the kernel module are of different versions (reboot after a driver update)",
            804 => "the installed forward-compatibility library does not support this GPU",
            999 => "unknown error (is the kernel module loaded, are /dev/nvidia* readable?)",
            _ => "see CUresult in NVIDIA's documentation",
        };
        return string.Create(CultureInfo.InvariantCulture, $"NVIDIA's driver failed in {call} with error {error}: {reason}");
    }

    private static nint Find()
    {
        foreach (var name in Names())
        {
            if (!NativeLibrary.TryLoad(name, out var handle)) continue;
            LeadIlgpuTo(handle);
            return handle;
        }

        return 0;
    }

    private static string[] Names() => OperatingSystem.IsWindows()
        ? ["nvcuda.dll"]
        : ["libcuda.so.1", "libcuda.so", "/usr/lib/wsl/lib/libcuda.so.1", "/usr/local/nvidia/lib64/libcuda.so.1"];

    private static void LeadIlgpuTo(nint handle)
    {
        // On WSL, ILGPU sets a resolver of its own, and an assembly can have only one.
        if (OperatingSystem.IsWindows() || Directory.Exists("/usr/lib/wsl/lib")) return;
        try
        {
            NativeLibrary.SetDllImportResolver(typeof(CudaDevice).Assembly, (name, _, _) => name == "cuda" ? handle : 0);
        }
        catch (InvalidOperationException)
        {
            // The host program has set one; it knows where its driver is.
        }
    }
}
