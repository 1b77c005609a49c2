using System.Buffers.Binary;
using System.Globalization;
using System.Text;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// SentencePiece's compiled normalization rules (precompiled_charsmap): a double-array trie of UTF-8 sequences and,
/// behind it, the texts that replace them.
/// </summary>
/// <remarks>Layout: sentencepiece's normalizer.cc (size of the trie, trie, zero-terminated texts) and Darts-clone's darts.h.</remarks>
internal sealed class CharacterMap
{
    private readonly uint[] _trie;
    private readonly byte[] _texts;

    /// <param name="blob">The compiled rules.</param>
    /// <exception cref="ArgumentException">Not such a thing.</exception>
    public CharacterMap(ReadOnlySpan<byte> blob)
    {
        if (blob.Length < 8) throw new ArgumentException("is too short");
        var size = BinaryPrimitives.ReadUInt32LittleEndian(blob);
        if (size == 0 || size % 4 != 0 || size > blob.Length - 4) throw new ArgumentException($"has a trie of {size} bytes in {blob.Length}");
        _trie = new uint[size / 4];
        for (var i = 0; i < _trie.Length; i++) _trie[i] = BinaryPrimitives.ReadUInt32LittleEndian(blob[(4 + 4 * i)..]);
        _texts = blob[(4 + (int)size)..].ToArray();
    }

    /// <summary>What the shortest or longest sequence that begins the text becomes.</summary>
    /// <param name="text">The text, not empty.</param>
    /// <param name="longest">Whether the longest of several sequences counts or the shortest.</param>
    /// <param name="units">Length of the sequence in UTF-16 units; 0 when there is none.</param>
    public string? Find(ReadOnlySpan<char> text, bool longest, out int units)
    {
        Span<byte> utf8 = stackalloc byte[4];
        var at = Offset(_trie[0]);
        string? found = null;
        var here = 0;
        units = 0;
        while (here < text.Length)
        {
            Rune.DecodeFromUtf16(text[here..], out var rune, out var used);
            var n = rune.EncodeToUtf8(utf8);
            here += used;
            for (var i = 0; i < n; i++)
            {
                at ^= utf8[i];
                // A damaged trie leads nowhere.
                if (at >= _trie.Length || utf8[i] == 0 || (_trie[at] & 0x800000FF) != utf8[i]) return found;
                var unit = _trie[at];
                at ^= Offset(unit);
                if ((unit >> 8 & 1) == 0 || i < n - 1 || at >= _trie.Length) continue;
                found = Text((int)(_trie[at] & 0x7FFFFFFF));
                units = here;
                if (!longest) return found;
            }
        }

        return found;
    }

    private static uint Offset(uint unit) => unit >> 10 << (int)((unit & 1 << 9) >> 6);

    private string Text(int at)
    {
        if (at >= _texts.Length) return "";
        var rest = _texts.AsSpan(at);
        var end = rest.IndexOf((byte)0);
        return Encoding.UTF8.GetString(end < 0 ? rest : rest[..end]);
    }
}

/// <summary>
/// The compiled rules as Hugging Face's Precompiled normalizer applies them: to what a reader sees as one character
/// when that is shorter than six bytes, else to each code point; the shortest rule counts.
/// </summary>
/// <param name="rules">The rules.</param>
internal sealed class PrecompiledRules(CharacterMap rules) : TextChange
{
    private protected override string Change(string text, bool first, TextMap? map)
    {
        var changed = new StringBuilder(text.Length);
        for (var at = 0; at < text.Length;)
        {
            var cluster = text.AsSpan(at, StringInfo.GetNextTextElementLength(text.AsSpan(at)));
            if (Encoding.UTF8.GetByteCount(cluster) < 6 && rules.Find(cluster, longest: false, out _) is { } whole)
            {
                changed.Append(whole);
                map?.Replace(cluster.Length, whole.Length);
                at += cluster.Length;
                continue;
            }

            for (var end = at + cluster.Length; at < end;)
            {
                Rune.DecodeFromUtf16(text.AsSpan(at), out _, out var used);
                if (rules.Find(text.AsSpan(at, used), longest: false, out _) is { } part)
                {
                    changed.Append(part);
                    map?.Replace(used, part.Length);
                }
                else
                {
                    changed.Append(text, at, used);
                    map?.Keep(used);
                }

                at += used;
            }
        }

        return changed.ToString();
    }
}
