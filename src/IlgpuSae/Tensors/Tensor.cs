using System.Runtime.InteropServices;
using ILGPU;

namespace IlgpuSae.Tensors;

/// <summary>
/// An array of numbers on one device: shape, element type, contiguous row-major memory. Usually born in a
/// <see cref="TensorScope"/>; disposing gives the memory back to the device's pool.
/// </summary>
public sealed class Tensor : IDisposable
{
    private readonly DeviceBuffer _buffer;
    private readonly long _offsetBytes;
    private bool _disposed;

    /// <summary>A new tensor with undefined content that the caller disposes of.</summary>
    /// <param name="device">Where it lives.</param>
    /// <param name="shape">Its shape.</param>
    /// <param name="type">Its element type.</param>
    public Tensor(Device device, Shape shape, DType type = DType.F32)
        : this(device.Rent(checked(shape.Count * type.Size())), 0, shape, type)
    {
    }

    private Tensor(DeviceBuffer buffer, long offsetBytes, Shape shape, DType type)
    {
        _buffer = buffer;
        _offsetBytes = offsetBytes;
        Shape = shape;
        Type = type;
    }

    /// <summary>Sizes of the axes.</summary>
    public Shape Shape { get; }

    /// <summary>Element type.</summary>
    public DType Type { get; }

    /// <summary>Where it lives.</summary>
    public Device Device => _buffer.Device;

    /// <summary>Number of elements.</summary>
    public long Count => Shape.Count;

    /// <summary>Size in bytes.</summary>
    public long Bytes => Count * Type.Size();

    /// <summary>Address of the first element; CPU devices only.</summary>
    internal unsafe float* F32 => (float*)Address(DType.F32);

    /// <summary>Address of the first element; CPU devices only.</summary>
    internal unsafe int* I32 => (int*)Address(DType.I32);

    /// <summary>Address of the first byte, whatever the element type; CPU devices only.</summary>
    internal nint HostAddress
    {
        get
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            return _buffer.HostAddress + (nint)_offsetBytes;
        }
    }

    /// <summary>The same memory under another shape of equal count. Shares lifetime: dispose of both.</summary>
    /// <param name="shape">The new shape.</param>
    /// <exception cref="ShapeException">The counts differ.</exception>
    public Tensor Reshape(Shape shape)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (shape.Count != Count)
            throw new ShapeException($"reshape: {Shape} has {Count} elements, {shape} has {shape.Count}");
        _buffer.AddReference();
        return new Tensor(_buffer, _offsetBytes, shape, Type);
    }

    /// <summary>
    /// Rows <paramref name="start"/> .. <paramref name="start"/>+<paramref name="count"/> along the first axis, as a
    /// view of the same memory. Shares lifetime: dispose of both.
    /// </summary>
    /// <param name="start">First row.</param>
    /// <param name="count">Number of rows.</param>
    /// <exception cref="ShapeException">The range does not lie in the first axis.</exception>
    public Tensor Slice(int start, int count)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (Shape.Rank == 0 || start < 0 || count < 0 || start > Shape[0] - count)
            throw new ShapeException($"slice: rows {start}..{(long)start + count} do not lie in {Shape}");
        var dims = Shape.Dims.ToArray();
        var rowBytes = Shape[0] == 0 ? 0 : Bytes / Shape[0];
        dims[0] = count;
        _buffer.AddReference();
        return new Tensor(_buffer, _offsetBytes + start * rowBytes, Shape.Create(dims), Type);
    }

    /// <summary>Sets every byte to zero.</summary>
    public void Clear()
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        Device.Clear(_buffer, _offsetBytes, Bytes);
    }

    /// <summary>Copies host values in.</summary>
    /// <param name="values">Exactly <see cref="Count"/> values of the element type.</param>
    /// <exception cref="ShapeException">Count or element type differ.</exception>
    public void CopyFrom<T>(ReadOnlySpan<T> values) where T : unmanaged
    {
        Check<T>(values.Length);
        Device.Upload(MemoryMarshal.AsBytes(values), _buffer, _offsetBytes);
    }

    /// <summary>Copies the content out, waiting for the device's work to finish.</summary>
    /// <param name="values">Room for exactly <see cref="Count"/> values.</param>
    /// <exception cref="ShapeException">Count or element type differ.</exception>
    public void CopyTo<T>(Span<T> values) where T : unmanaged
    {
        Check<T>(values.Length);
        Device.Download(_buffer, _offsetBytes, MemoryMarshal.AsBytes(values));
    }

    /// <summary>Copies another tensor's content in; same count and element type, any device.</summary>
    /// <param name="source">The source.</param>
    /// <exception cref="ShapeException">Count or element type differ.</exception>
    public unsafe void CopyFrom(Tensor source)
    {
        if (source.Count != Count || source.Type != Type)
            throw new ShapeException($"copy: source is {source.Type} {source.Shape}, target {Type} {Shape}");
        if (Count == 0) return;
        if (source.Device is CpuDevice)
        {
            // Both bounds are the tensor's own size, so the span covers exactly its memory; in pieces of 1 GiB.
            for (long at = 0; at < Bytes; at += 1 << 30)
            {
                var n = (int)Math.Min(1 << 30, Bytes - at);
                Device.Upload(new ReadOnlySpan<byte>((byte*)source.HostAddress + at, n), _buffer, _offsetBytes + at);
            }
        }
        else if (Device is CpuDevice)
        {
            for (long at = 0; at < Bytes; at += 1 << 30)
            {
                var n = (int)Math.Min(1 << 30, Bytes - at);
                source.Device.Download(source._buffer, source._offsetBytes + at, new Span<byte>((byte*)HostAddress + at, n));
            }
        }
        else
        {
            Device.CopyOnDevice(source._buffer, source._offsetBytes, _buffer, _offsetBytes, Bytes);
        }
    }

    /// <summary>The content as a new array.</summary>
    public T[] ToArray<T>() where T : unmanaged
    {
        var a = new T[Count];
        CopyTo<T>(a);
        return a;
    }

    /// <summary>The single value of a tensor of one element.</summary>
    public float Scalar()
    {
        Span<float> v = stackalloc float[1];
        CopyTo(v);
        return v[0];
    }

    /// <summary>Gives the memory back; the second call does nothing.</summary>
    public void Dispose()
    {
        if (_disposed) return;
        _disposed = true;
        _buffer.Release();
    }

    /// <inheritdoc/>
    public override string ToString() => $"{Type} {Shape} on {Device.Name}";

    /// <summary>The memory as ILGPU sees it; ILGPU devices only.</summary>
    internal ArrayView<T> View<T>() where T : unmanaged
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (DTypes.Of<T>() != Type) throw new ShapeException($"a {Type} tensor was viewed as {typeof(T).Name}");
        return _buffer.View.SubView(_offsetBytes, Bytes).Cast<T>();
    }

    /// <summary>The memory as bytes; ILGPU devices only (bf16 and packed layouts).</summary>
    internal ArrayView<byte> RawView()
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        return _buffer.View.SubView(_offsetBytes, Bytes);
    }

    /// <summary>Copies bytes in as they are, for element types the host has no type for (bf16).</summary>
    /// <param name="bytes">The bytes.</param>
    /// <param name="offset">Byte of the tensor at which they begin.</param>
    /// <exception cref="ShapeException">They reach beyond the tensor.</exception>
    internal void CopyFromBytes(ReadOnlySpan<byte> bytes, long offset = 0)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (offset < 0 || offset > Bytes - bytes.Length)
            throw new ShapeException($"copy: {bytes.Length} bytes at {offset} do not lie in {Type} {Shape}");
        Device.Upload(bytes, _buffer, _offsetBytes + offset);
    }

    /// <summary>Copies bytes out as they are, for element types the host has no type for (bf16).</summary>
    /// <param name="bytes">Room for exactly the tensor.</param>
    /// <exception cref="ShapeException">Another length.</exception>
    internal void CopyToBytes(Span<byte> bytes)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (bytes.Length != Bytes) throw new ShapeException($"copy: {bytes.Length} bytes for {Type} {Shape}");
        Device.Download(_buffer, _offsetBytes, bytes);
    }

    /// <summary>A tensor over host memory of another owner, who is told when nothing refers to it any more.</summary>
    /// <param name="device">The CPU.</param>
    /// <param name="address">First element, aligned to its size. 64 bytes behind the last one may be read.</param>
    /// <param name="shape">Its shape.</param>
    /// <param name="type">Its element type.</param>
    /// <param name="released">Gives the memory back.</param>
    internal static Tensor OverHostMemory(CpuDevice device, nint address, Shape shape, DType type, Action released)
    {
        var buffer = new DeviceBuffer(device, shape.Count * type.Size(), address, null, released);
        buffer.AddReference();
        return new Tensor(buffer, 0, shape, type);
    }

    private nint Address(DType type) => Type == type
        ? HostAddress
        : throw new ShapeException($"a {Type} tensor was used as {type}");

    private void Check<T>(int length) where T : unmanaged
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        var type = DTypes.Of<T>();
        if (type != Type || length != Count)
            throw new ShapeException($"copy: host side is {type} x {length}, tensor is {Type} {Shape}");
    }
}
