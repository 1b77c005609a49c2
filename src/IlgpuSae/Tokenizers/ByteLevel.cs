using System.Buffers;
using System.Text;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// GPT-2's spelling of bytes as printable characters: a byte that is a printable Latin-1 character is itself, the
/// others are U+0100 and up in order (Radford et al. 2019, encoder.py, bytes_to_unicode).
/// </summary>
internal static class ByteLevel
{
    private static readonly char[] CharOf = Table();
    private static readonly Dictionary<char, byte> ByteOf = CharOf.Select((c, b) => (c, b)).ToDictionary(p => p.c, p => (byte)p.b);

    /// <summary>The character that spells a byte.</summary>
    public static char Spell(byte b) => CharOf[b];

    /// <summary>The spelling of a text's UTF-8 bytes.</summary>
    public static string Spell(ReadOnlySpan<char> text)
    {
        var bytes = ArrayPool<byte>.Shared.Rent(Encoding.UTF8.GetMaxByteCount(text.Length));
        var n = Encoding.UTF8.GetBytes(text, bytes);
        var spelled = string.Create(n, bytes, static (chars, from) =>
        {
            for (var i = 0; i < chars.Length; i++) chars[i] = CharOf[from[i]];
        });
        ArrayPool<byte>.Shared.Return(bytes);
        return spelled;
    }

    /// <summary>The bytes a token stands for; a token with characters outside the spelling (an added one) stands for its own UTF-8.</summary>
    public static byte[] Bytes(string piece)
    {
        var bytes = new byte[piece.Length];
        for (var i = 0; i < piece.Length; i++)
            if (!ByteOf.TryGetValue(piece[i], out bytes[i])) return Encoding.UTF8.GetBytes(piece);
        return bytes;
    }

    private static char[] Table()
    {
        var table = new char[256];
        var next = 256;
        for (var b = 0; b < 256; b++)
            table[b] = b is (>= '!' and <= '~') or (>= 0xA1 and <= 0xAC) or (>= 0xAE and <= 0xFF) ? (char)b : (char)next++;
        return table;
    }
}

/// <summary>Byte-level tokens to text: all bytes in a row, read as UTF-8.</summary>
/// <param name="vocabulary">The tokens.</param>
internal sealed class ByteLevelDecoder(Vocabulary vocabulary) : ITokenDecoder
{
    private readonly byte[]?[] _bytes = [.. Enumerable.Range(0, vocabulary.Size).Select(i => vocabulary.Piece(i) is { } p ? ByteLevel.Bytes(p) : null)];

    /// <inheritdoc/>
    public string Decode(ReadOnlySpan<int> ids)
    {
        var all = new ArrayBufferWriter<byte>(Math.Max(16, ids.Length * 5));
        foreach (var id in ids)
            if ((uint)id < (uint)_bytes.Length && _bytes[id] is { } bytes) all.Write(bytes);
        return Encoding.UTF8.GetString(all.WrittenSpan);
    }
}
