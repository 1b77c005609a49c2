using System.Runtime.InteropServices;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// Words seen before and their ids, for one thread at a time: an open table over two pools, so that a word that is
/// known costs one hash and one comparison, and a new one no object.
/// </summary>
internal sealed class WordCache
{
    private const int LongestWord = 64;
    private const int MostWords = 1 << 17;
    private Slot[] _slots = new Slot[1 << 12];
    private char[] _chars = new char[1 << 15];
    private int[] _ids = new int[1 << 14];
    private int _charCount;
    private int _idCount;
    private int _count;

    /// <summary>Whether a word is one to be kept.</summary>
    public static bool Takes(ReadOnlySpan<char> word) => word.Length <= LongestWord;

    /// <summary>The ids of a word that was added.</summary>
    /// <param name="word">The word.</param>
    /// <param name="hash">Its hash, for <see cref="Add"/>.</param>
    /// <param name="ids">Its ids; valid until the next <see cref="Add"/>.</param>
    public bool TryGet(ReadOnlySpan<char> word, out uint hash, out ReadOnlySpan<int> ids)
    {
        hash = Hash(word);
        var mask = _slots.Length - 1;
        for (var i = (int)(hash & mask); ; i = (i + 1) & mask)
        {
            ref readonly var slot = ref _slots[i];
            if (slot.Length == 0) break;
            if (slot.Hash != hash || slot.Length != word.Length || !word.SequenceEqual(_chars.AsSpan(slot.Chars, slot.Length))) continue;
            ids = _ids.AsSpan(slot.Ids, slot.IdCount);
            return true;
        }

        ids = default;
        return false;
    }

    /// <summary>Keeps a word that was not found, while there is room.</summary>
    public void Add(ReadOnlySpan<char> word, uint hash, ReadOnlySpan<int> ids)
    {
        if (_count == MostWords) return;
        if (2 * ++_count > _slots.Length) Grow();
        if (_charCount + word.Length > _chars.Length) Array.Resize(ref _chars, 2 * _chars.Length);
        if (_idCount + ids.Length > _ids.Length) Array.Resize(ref _ids, 2 * _ids.Length);
        word.CopyTo(_chars.AsSpan(_charCount));
        ids.CopyTo(_ids.AsSpan(_idCount));
        Insert(new Slot { Hash = hash, Length = (byte)word.Length, IdCount = (byte)ids.Length, Chars = _charCount, Ids = _idCount });
        _charCount += word.Length;
        _idCount += ids.Length;
    }

    private static uint Hash(ReadOnlySpan<char> word)
    {
        const ulong Factor = 0x9E3779B97F4A7C15;
        var bytes = MemoryMarshal.AsBytes(word);
        var h = (ulong)bytes.Length;
        for (; bytes.Length >= 8; bytes = bytes[8..]) h = (h ^ MemoryMarshal.Read<ulong>(bytes)) * Factor ^ h >> 32;
        foreach (var c in MemoryMarshal.Cast<byte, char>(bytes)) h = (h ^ c) * Factor ^ h >> 32;
        return (uint)(h * Factor >> 32);
    }

    private void Grow()
    {
        var old = _slots;
        _slots = new Slot[2 * old.Length];
        foreach (var slot in old)
            if (slot.Length > 0) Insert(slot);
    }

    private void Insert(Slot slot)
    {
        var mask = _slots.Length - 1;
        var i = (int)(slot.Hash & mask);
        while (_slots[i].Length > 0) i = (i + 1) & mask;
        _slots[i] = slot;
    }

    private struct Slot
    {
        public uint Hash;
        public int Chars;
        public int Ids;
        public byte Length; // 0: free
        public byte IdCount; // at most three a character: 192
    }
}
