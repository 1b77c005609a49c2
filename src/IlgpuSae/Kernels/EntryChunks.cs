using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Memory for lists of (index, value) whose lengths are not known beforehand: chunks of <see cref="Entries"/> entries out
/// of blocks from the device's pool, given out to any thread. How many blocks are taken depends on the lists alone.
/// </summary>
/// <param name="device">Whose pool the memory comes from.</param>
internal sealed unsafe class EntryChunks(CpuDevice device) : IDisposable
{
    /// <summary>Entries of a chunk.</summary>
    internal const int Entries = 62;

    private const int ChunksPerBlock = 2048;
    private readonly Lock _lock = new();
    private DeviceBuffer[] _blocks = [];
    private int _next;

    /// <summary>An unused chunk.</summary>
    internal EntryChunk* Take()
    {
        var id = Interlocked.Increment(ref _next) - 1;
        var blocks = Volatile.Read(ref _blocks);
        var block = id / ChunksPerBlock;
        while (block >= blocks.Length) blocks = Grow(block);
        return (EntryChunk*)blocks[block].HostAddress + (id % ChunksPerBlock);
    }

    /// <summary>Gives all memory back: every list is gone.</summary>
    public void Dispose()
    {
        foreach (var b in _blocks) b.Release();
        _blocks = [];
        _next = 0;
    }

    private DeviceBuffer[] Grow(int block)
    {
        lock (_lock)
        {
            if (block >= _blocks.Length)
                Volatile.Write(ref _blocks, [.. _blocks, device.Rent((long)ChunksPerBlock * sizeof(EntryChunk))]);
            return _blocks;
        }
    }
}

/// <summary>Entries of one list: 512 bytes.</summary>
[StructLayout(LayoutKind.Sequential, Size = 512)]
internal unsafe struct EntryChunk
{
    internal EntryChunk* Next;
    internal fixed int Indices[EntryChunks.Entries];
    internal fixed float Values[EntryChunks.Entries];
}

/// <summary>A growing list of (index, value), filled by one thread at a time.</summary>
internal unsafe struct EntryList
{
    /// <summary>Size in 32-bit words.</summary>
    internal const int Words = 6;

    /// <summary>Number of entries.</summary>
    internal int Count;

    private int _inLast;
    private EntryChunk* _first;
    private EntryChunk* _last;

    /// <summary>Makes the list empty; memory of a former list is not given back.</summary>
    internal void Clear()
    {
        Count = 0;
        _inLast = EntryChunks.Entries;
        _first = null;
        _last = null;
    }

    /// <summary>Adds an entry at the end.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Add(EntryChunks chunks, int index, float value)
    {
        if (_inLast == EntryChunks.Entries) NextChunk(chunks);
        _last->Indices[_inLast] = index;
        _last->Values[_inLast++] = value;
        Count++;
    }

    /// <summary>Copies all entries in order.</summary>
    /// <param name="indices">Room for <see cref="Count"/> indices.</param>
    /// <param name="values">Room for <see cref="Count"/> values.</param>
    internal readonly void CopyTo(int* indices, float* values)
    {
        var left = Count;
        for (var chunk = _first; left > 0; chunk = chunk->Next)
        {
            var n = Math.Min(left, EntryChunks.Entries);
            Buffer.MemoryCopy(chunk->Indices, indices, n * 4L, n * 4L);
            Buffer.MemoryCopy(chunk->Values, values, n * 4L, n * 4L);
            indices += n;
            values += n;
            left -= n;
        }
    }

    private void NextChunk(EntryChunks chunks)
    {
        var chunk = chunks.Take();
        if (_last == null) _first = chunk;
        else _last->Next = chunk;
        _last = chunk;
        _inLast = 0;
    }
}
