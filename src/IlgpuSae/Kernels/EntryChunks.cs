using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
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
    internal const int Entries = 126;

    private const int ChunksPerBlock = 1024;
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

/// <summary>Entries of one list: 1 KB.</summary>
[StructLayout(LayoutKind.Sequential, Size = 1024)]
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

    private static Vector512<uint> LaneBits => Vector512.Create(
        1u, 1u << 1, 1u << 2, 1u << 3, 1u << 4, 1u << 5, 1u << 6, 1u << 7, 1u << 8, 1u << 9, 1u << 10, 1u << 11, 1u << 12, 1u << 13, 1u << 14, 1u << 15);

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

    /// <summary>Adds the lanes of sixteen values whose bits are set.</summary>
    /// <param name="chunks">Gives memory.</param>
    /// <param name="index">Index of the first lane.</param>
    /// <param name="values">Sixteen values.</param>
    /// <param name="bits">Which of them; not 0.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Add(EntryChunks chunks, int index, float* values, uint bits)
    {
        var count = BitOperations.PopCount(bits);
        if (Avx512F.IsSupported && count > 3 && _inLast + 16 <= EntryChunks.Entries)
        {
            // Many at a time: early in L1 training half of all features fire. Whole vectors are stored; what lies beyond
            // the count is overwritten by what comes next.
            var lanes = Vector512.Equals(Vector512.Create(bits) & LaneBits, Vector512<uint>.Zero);
            var mask = ~lanes;
            Avx512F.Compress(Vector512<float>.Zero, mask.AsSingle(), Vector512.Load(values)).Store(_last->Values + _inLast);
            Avx512F.Compress(Vector512<int>.Zero, mask.AsInt32(), Vector512<int>.Indices + Vector512.Create(index)).Store(_last->Indices + _inLast);
            _inLast += count;
            Count += count;
            return;
        }

        for (; bits != 0; bits &= bits - 1)
        {
            var i = BitOperations.TrailingZeroCount(bits);
            Add(chunks, index + i, values[i]);
        }
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
