using ILGPU;
using ILGPU.Runtime;

namespace IlgpuSae.Tensors;

/// <summary>One block of a device's memory, counted by the tensors that share it.</summary>
internal sealed class DeviceBuffer
{
    private readonly nint _host;
    private readonly Action? _released;
    private int _references;

    internal DeviceBuffer(Device device, long bytes, nint host, MemoryBuffer1D<byte, Stride1D.Dense>? memory, Action? released = null)
    {
        Device = device;
        Bytes = bytes;
        _host = host;
        Memory = memory;
        _released = released;
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
        if (Interlocked.Decrement(ref _references) > 0) return;
        // Memory of another owner goes back to it, not to the pool.
        if (_released is not null) _released();
        else Device.Return(this);
    }
}
