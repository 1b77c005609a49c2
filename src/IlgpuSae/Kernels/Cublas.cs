using System.Globalization;
using System.Runtime.InteropServices;
using ILGPU.Runtime;
using ILGPU.Runtime.Cuda;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>NVIDIA's matrix library on one CUDA device, where the machine has it; bound by name, versions 11 to 13.</summary>
internal sealed unsafe class Cublas : IDisposable
{
    // From cublas_api.h and library_types.h.
    private const int TypeF32 = 0;
    private const int TypeBf16 = 14;
    private const int ComputeF32 = 68;
    private const int ComputeF32Pedantic = 69;
    private const int ComputeTf32 = 77;
    private const int DefaultAlgorithm = -1;

    /// <summary>32 MiB, NVIDIA's advice for Hopper. A workspace of one's own is also what makes results repeatable.</summary>
    private const long WorkspaceBytes = 32 << 20;

    private readonly GpuDevice _device;
    private readonly nint _library;
    private readonly nint _handle;
    private readonly MemoryBuffer1D<byte, ILGPU.Stride1D.Dense>? _workspace;
    private readonly delegate* unmanaged<nint, int, int, int, int, int, float*, nint, int, int, nint, int, int, float*, nint, int, int, int, int, int> _gemm;

    private Cublas(GpuDevice device)
    {
        _device = device;
        _library = Find();
        if (_library == 0) return;
        if (!TryExport("cublasCreate_v2", out var create) || !TryExport("cublasSetStream_v2", out var setStream)
            || !TryExport("cublasSetWorkspace_v2", out var setWorkspace) || !TryExport("cublasGemmEx", out var gemm))
        {
            return;
        }

        device.Accelerator.Bind();
        nint handle;
        if (((delegate* unmanaged<nint*, int>)create)(&handle) != 0) return;
        _workspace = device.Accelerator.Allocate1D<byte>(WorkspaceBytes);
        var stream = ((CudaStream)device.Accelerator.DefaultStream).StreamPtr;
        Check("cublasSetStream", ((delegate* unmanaged<nint, nint, int>)setStream)(handle, stream));
        Check("cublasSetWorkspace", ((delegate* unmanaged<nint, nint, nuint, int>)setWorkspace)(handle, _workspace.NativePtr, (nuint)WorkspaceBytes));
        _handle = handle;
        _gemm = (delegate* unmanaged<nint, int, int, int, int, int, float*, nint, int, int, nint, int, int, float*, nint, int, int, int, int, int>)gemm;
    }

    /// <summary>The device's handle; null where the library is missing or unusable.</summary>
    internal static Cublas? Of(GpuDevice device)
    {
        var cublas = device.Service(d => new Cublas(d));
        return cublas._handle == 0 ? null : cublas;
    }

    /// <summary>y = op(a) op(b) + beta y, all row-major; both factors F32, or both BF16.</summary>
    /// <param name="sizes">op(a) is [m, k], op(b) [k, n], y [m, n].</param>
    /// <param name="a">The first factor.</param>
    /// <param name="b">The second factor, of the same type.</param>
    /// <param name="transposeA">Whether a is stored as [k, m].</param>
    /// <param name="transposeB">Whether b is stored as [n, k].</param>
    /// <param name="beta">1 to add to what y holds, 0 to overwrite it.</param>
    /// <param name="y">F32.</param>
    internal void Multiply((int M, int N, int K) sizes, Tensor a, Tensor b, bool transposeA, bool transposeB, float beta, Tensor y)
    {
        var (m, n, k) = sizes;
        var type = a.Type == DType.BF16 ? TypeBf16 : TypeF32;
        var compute = type == TypeBf16 ? ComputeF32 : _device.Precision == MatmulPrecision.F32 ? ComputeF32Pedantic : ComputeTf32;
        var alpha = 1f;
        _device.Accelerator.Bind();

        // The library is column-major: y's memory is its transpose, op(b)^T op(a)^T.
        Check("cublasGemmEx", _gemm(_handle, transposeB ? 1 : 0, transposeA ? 1 : 0, n, m, k, &alpha,
            Address(b), type, b.Shape.Last, Address(a), type, a.Shape.Last, &beta, Address(y), TypeF32, n, compute, DefaultAlgorithm));
    }

    public void Dispose()
    {
        if (_handle != 0 && TryExport("cublasDestroy_v2", out var destroy))
        {
            _device.Accelerator.Bind();
            _ = ((delegate* unmanaged<nint, int>)destroy)(_handle);
        }

        _workspace?.Dispose();
    }

    private static nint Address(Tensor t) => t.RawView().LoadEffectiveAddressAsPtr();

    private static void Check(string call, int status)
    {
        if (status != 0)
            throw new IlgpuSaeException(string.Create(CultureInfo.InvariantCulture, $"cuBLAS: {call} failed with status {status} (cublasStatus_t)"));
    }

    private static nint Find()
    {
        foreach (var folder in Folders())
        {
            foreach (var name in Names())
                if (NativeLibrary.TryLoad(folder.Length == 0 ? name : Path.Combine(folder, name), out var handle)) return handle;
        }

        return 0;
    }

    private static string[] Names() => OperatingSystem.IsWindows()
        ? ["cublas64_13.dll", "cublas64_12.dll", "cublas64_11.dll"]
        : ["libcublas.so.13", "libcublas.so.12", "libcublas.so.11", "libcublas.so"];

    /// <summary>The loader's own path first, then where toolkits are installed.</summary>
    private static IEnumerable<string> Folders()
    {
        yield return "";
        foreach (var variable in (string[])["CUDA_HOME", "CUDA_PATH"])
        {
            if (Environment.GetEnvironmentVariable(variable) is not { Length: > 0 } home) continue;
            yield return Path.Combine(home, "lib64");
            yield return Path.Combine(home, "bin");
        }

        yield return "/usr/local/cuda/lib64";
    }

    private bool TryExport(string name, out nint address) => NativeLibrary.TryGetExport(_library, name, out address);
}
