using ILGPU;
using ILGPU.Runtime;

namespace IlgpuSae.Tensors;

/// <summary>One block of a device's memory, counted by the tensors that share it.</summary>
internal sealed class DeviceBuffer
{
    private readonly nint _host;
    private int _references;

    internal DeviceBuffer(Device device, long bytes, nint host, MemoryBuffer1D<byte, Stride1D.Dense>? memory)
    {
        Device = device;
        Bytes = bytes;
        _host = host;
        Memory = memory;
    }

    internal Device Device { get; }

    /// <summary>Usable bytes: the pool's size class, at least what was asked for.</summary>
    internal long Bytes { get; }

    /// <summary>ILGPU's buffer; null on the CPU device.</summary>
    internal MemoryBuffer1D<byte, Stride1D.Dense>? Memory { get; }

    internal ArrayView<byte> View => Memory is null
        ? throw new InvalidOperationException($"{Device.Name} is not an ILGPU device")
        : Memory.View.BaseView;

    internal nint HostAddress => Memory is null
        ? _host
        : throw new InvalidOperationException($"memory of {Device.Name} has no host address");

    internal void AddReference() => Interlocked.Increment(ref _references);

    internal void Release()
    {
        if (Interlocked.Decrement(ref _references) == 0) Device.Return(this);
    }
}
