using System.Numerics;

namespace IlgpuSae.Tensors;

/// <summary>
/// A place where tensors live and kernels run: memory with a pool, and properties. It has no operations of its own.
/// Names: <c>cpu</c>, <c>cuda</c> or <c>cuda:N</c>, <c>opencl:N</c>, and <c>ilgpu-cpu</c> (ILGPU's CPU accelerator:
/// for tests, thousands of times slower than <c>cpu</c>).
/// </summary>
public abstract class Device : IDisposable
{
    private readonly Dictionary<long, Stack<DeviceBuffer>> _pool = [];
    private readonly Lock _lock = new();
    private bool _disposed;

    /// <summary>As the user spells it: <c>cpu</c>, <c>cuda:0</c>, ...</summary>
    public abstract string Name { get; }

    /// <summary>One line about the hardware for reports.</summary>
    public abstract string Description { get; }

    /// <summary>Least precision of matrix products; only CUDA devices use less than F32.</summary>
    public MatmulPrecision Precision { get; init; }

    /// <summary>Bytes handed out by the system and not yet given back to it: in use or pooled.</summary>
    public long AllocatedBytes { get; private set; }

    /// <summary>Bytes now held by live tensors.</summary>
    public long UsedBytes { get; private set; }

    /// <summary>Largest <see cref="UsedBytes"/> so far.</summary>
    public long PeakUsedBytes { get; private set; }

    /// <summary>Number of blocks the system was asked for: constant once training is under way.</summary>
    public long SystemAllocations { get; private set; }

    /// <summary>Most bytes that tensors are to take together; null: what the device has. Asked before models are loaded.</summary>
    public long? MemoryLimit { get; init; }

    /// <summary>Bytes that further tensors could take now, as far as the system says; null: it does not.</summary>
    public long? AvailableBytes
    {
        get
        {
            // What the pool holds is free for tensors, though not for the system.
            var free = FreeBytes() + (AllocatedBytes - UsedBytes);
            return MemoryLimit is { } limit ? Math.Min(free ?? long.MaxValue, Math.Max(0, limit - UsedBytes)) : free;
        }
    }

    /// <summary>Opens a device.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="threads">Worker threads of <c>cpu</c>; 0: one a core. Never changes a result.</param>
    /// <param name="precision">Least precision of matrix products.</param>
    /// <exception cref="InvalidInputException">No such device; the message lists those present.</exception>
    public static Device Open(string name = "cpu", int threads = 0, MatmulPrecision precision = MatmulPrecision.F32) =>
        name == "cpu" ? new CpuDevice(threads) { Precision = precision } : GpuDevice.OpenNamed(name, precision);

    /// <summary>Waits until all work submitted so far is done.</summary>
    public abstract void Synchronize();

    /// <summary>Gives the device and its memory back.</summary>
    public void Dispose()
    {
        if (_disposed) return;
        _disposed = true;
        Trim();
        Close();
        GC.SuppressFinalize(this);
    }

    /// <summary>Gives pooled memory back to the system.</summary>
    public void Trim()
    {
        lock (_lock)
        {
            foreach (var stack in _pool.Values)
            {
                while (stack.TryPop(out var b))
                {
                    AllocatedBytes -= b.Bytes;
                    Free(b);
                }
            }
        }
    }

    internal DeviceBuffer Rent(long bytes)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        var size = SizeClass(bytes);
        lock (_lock)
        {
            UsedBytes += size;
            PeakUsedBytes = Math.Max(PeakUsedBytes, UsedBytes);
            if (!_pool.TryGetValue(size, out var stack) || !stack.TryPop(out var buffer))
            {
                try
                {
                    buffer = Allocate(size);
                }
                catch (DeviceMemoryException)
                {
                    // What the pool holds in other sizes may be enough.
                    Trim();
                    buffer = Allocate(size);
                }

                AllocatedBytes += size;
                SystemAllocations++;
            }

            buffer.AddReference();
            return buffer;
        }
    }

    internal void Return(DeviceBuffer buffer)
    {
        lock (_lock)
        {
            UsedBytes -= buffer.Bytes;
            if (_disposed)
            {
                Free(buffer);
                return;
            }

            if (!_pool.TryGetValue(buffer.Bytes, out var stack)) _pool[buffer.Bytes] = stack = new Stack<DeviceBuffer>();
            stack.Push(buffer);
        }
    }

    internal abstract void Clear(DeviceBuffer buffer, long offset, long bytes);

    internal abstract void Upload(ReadOnlySpan<byte> source, DeviceBuffer target, long offset);

    internal abstract void Download(DeviceBuffer source, long offset, Span<byte> target);

    internal abstract void CopyOnDevice(DeviceBuffer source, long sourceOffset, DeviceBuffer target, long targetOffset, long bytes);

    /// <summary>Bytes the system has free; null: unknown.</summary>
    private protected virtual long? FreeBytes() => null;

    /// <summary>Asks the system for memory.</summary>
    private protected abstract DeviceBuffer Allocate(long bytes);

    /// <summary>Gives memory back to the system.</summary>
    private protected abstract void Free(DeviceBuffer buffer);

    /// <summary>Closes what the device holds besides memory.</summary>
    private protected abstract void Close();

    /// <summary>
    /// Rounds up to eight classes a power of two: at most an eighth is wasted and a step whose sizes vary a little
    /// (the number of active features) still finds its blocks in the pool.
    /// </summary>
    private static long SizeClass(long bytes)
    {
        if (bytes <= 256) return 256;
        var step = 1L << Math.Max(8, BitOperations.Log2((ulong)(bytes - 1)) - 3);
        return checked((bytes + step - 1) / step * step);
    }
}

/// <summary>A device has no room for a tensor. The message says how much was asked for and how much is in use.</summary>
public sealed class DeviceMemoryException : IlgpuSaeException
{
    internal DeviceMemoryException(Device device, long bytes, Exception inner)
        : base($"{device.Name}: no room for a block of {bytes / 1048576.0:F1} MiB beside the {device.UsedBytes / 1048576.0:F1} MiB "
            + "that tensors use; lower the batch size, the context size or d_sae", inner)
    {
    }
}
