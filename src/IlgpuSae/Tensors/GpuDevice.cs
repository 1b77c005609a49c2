using System.Globalization;
using ILGPU;
using ILGPU.Runtime;
using ILGPU.Runtime.CPU;
using ILGPU.Runtime.Cuda;

namespace IlgpuSae.Tensors;

/// <summary>
/// A device that ILGPU drives: <c>cuda:N</c>, or <c>ilgpu-cpu</c> for tests. One default stream, work is queued;
/// copies to the host wait for it.
/// </summary>
public sealed partial class GpuDevice : Device
{
    private readonly Context _context;
    private readonly Dictionary<Type, IDisposable> _services = [];

    private GpuDevice(Context context, Accelerator accelerator, string name)
    {
        _context = context;
        Accelerator = accelerator;
        Name = name;
    }

    /// <inheritdoc/>
    public override string Name { get; }

    /// <inheritdoc/>
    public override string Description => string.Create(CultureInfo.InvariantCulture,
        $"{Accelerator.Name}, {CudaFacts}{Accelerator.NumMultiprocessors} multiprocessors, {Accelerator.MemorySize / (1L << 20)} MiB");

    internal Accelerator Accelerator { get; }

    /// <summary>Whether this is a real CUDA device, where tiles and groups have their full size.</summary>
    internal bool IsCuda => Accelerator.AcceleratorType == AcceleratorType.Cuda;

    /// <summary>
    /// Threads a group for kernels that reduce within a group: 256 on CUDA, 16 on ILGPU's CPU accelerator, where
    /// every thread of a group is a thread of the operating system. A power of two on every device. Part of what
    /// decides a result's bits.
    /// </summary>
    internal int GroupSize => Math.Min(256, Accelerator.MaxNumThreadsPerGroup);

    /// <summary>Groups for a grid-stride loop over <paramref name="count"/> items.</summary>
    internal int GridFor(long count) =>
        (int)Math.Max(1, Math.Min((count + GroupSize - 1) / GroupSize, IsCuda ? Accelerator.NumMultiprocessors * 16L : 4));

    /// <summary>
    /// Something that lives as long as the device and exists once: a library's handle. Made on first use.
    /// </summary>
    internal T Service<T>(Func<GpuDevice, T> make) where T : class, IDisposable
    {
        if (_services.TryGetValue(typeof(T), out var known)) return (T)known;
        var made = make(this);
        _services.Add(typeof(T), made);
        return made;
    }

    /// <summary>Opens ILGPU's CPU accelerator.</summary>
    /// <param name="groupSize">Largest group; 16 for ordinary kernels, 256 to run full tiles.</param>
    internal static GpuDevice OpenCpuAccelerator(int groupSize = 16)
    {
        var warp = groupSize >= 256 ? 32 : 4;
        var description = new CPUDevice(warp, groupSize / warp, 1);
        var context = NewContext(b => b.CPU(description));
        return new GpuDevice(context, context.GetCPUDevice(0).CreateCPUAccelerator(context, CPUAcceleratorMode.Parallel), "ilgpu-cpu");
    }

    /// <summary>
    /// A context as every device's is made, the tests' included. O2: O1, ILGPU's default, addresses global memory with
    /// generic loads and stores.
    /// </summary>
    internal static Context NewContext(Action<Context.Builder> addDevices)
    {
        var context = Context.Create(b =>
        {
            addDevices(b);
            b.Optimize(OptimizationLevel.O2);
        });
        TensorCore.Register(context);
        return context;
    }

    internal static GpuDevice OpenNamed(string name, MatmulPrecision precision = MatmulPrecision.F32)
    {
        if (name == "ilgpu-cpu") return OpenCpuAccelerator();
        var parts = name.Split(':');
        var index = 0;
        if (parts[0] != "cuda" || parts.Length > 2
            || (parts.Length == 2 && !int.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out index)))
        {
            throw new InvalidInputException(
                $"device \"{name}\" is not known; known: cpu, cuda, cuda:N, ilgpu-cpu (for tests)");
        }

        return OpenCuda(index, precision);
    }

    /// <inheritdoc/>
    public override void Synchronize() => Accelerator.Synchronize();

    internal override void Clear(DeviceBuffer buffer, long offset, long bytes)
    {
        if (bytes > 0) buffer.View.SubView(offset, bytes).MemSetToZero(Accelerator.DefaultStream);
    }

    internal override void Upload(ReadOnlySpan<byte> source, DeviceBuffer target, long offset)
    {
        if (source.Length == 0) return;
        target.View.SubView(offset, source.Length).CopyFromCPU(Accelerator.DefaultStream, source);
        Accelerator.DefaultStream.Synchronize();
    }

    internal override void Download(DeviceBuffer source, long offset, Span<byte> target)
    {
        Accelerator.DefaultStream.Synchronize();
        if (target.Length == 0) return;
        source.View.SubView(offset, target.Length).CopyToCPU(Accelerator.DefaultStream, target);
        Accelerator.DefaultStream.Synchronize();
    }

    internal override void CopyOnDevice(DeviceBuffer source, long sourceOffset, DeviceBuffer target, long targetOffset, long bytes)
    {
        if (bytes > 0)
        {
            source.View.SubView(sourceOffset, bytes).CopyTo(
                Accelerator.DefaultStream, target.View.SubView(targetOffset, bytes));
        }
    }

    private protected override long? FreeBytes() => Accelerator is CudaAccelerator cuda ? cuda.GetFreeMemory() : null;

    private protected override DeviceBuffer Allocate(long bytes)
    {
        try
        {
            return new DeviceBuffer(this, bytes, 0, Accelerator.Allocate1D<byte>(bytes));
        }
        catch (CudaException e) when (e.Error == "CUDA_ERROR_OUT_OF_MEMORY")
        {
            throw new DeviceMemoryException(this, bytes, e);
        }
    }

    private protected override void Free(DeviceBuffer buffer) => buffer.Memory!.Dispose();

    private protected override void Close()
    {
        foreach (var service in _services.Values) service.Dispose();
        _launchers.Clear();
        foreach (var kernel in _kernels) kernel.Dispose();
        Accelerator.Dispose();
        _context.Dispose();
    }
}
