using System.Globalization;
using System.Text;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// Unicode's normalization forms from tables of our own. string.Normalize cannot be used: where globalization is
/// invariant, as in this program, it returns its input unchanged for every form, without an error.
/// </summary>
/// <remarks>Unicode Standard Annex #15; Unicode 14 data. Text without characters from U+0300 up is its own NFC.</remarks>
internal static class UnicodeNormalizer
{
    private static readonly Lazy<Tables> Data = new(Tables.Read);

    /// <summary>Canonical composition.</summary>
    public static string Nfc(string text) => Form(text, compatibility: false, compose: true);

    /// <summary>Canonical decomposition.</summary>
    public static string Nfd(string text) => Form(text, compatibility: false, compose: false);

    /// <summary>Compatibility composition.</summary>
    public static string Nfkc(string text) => Form(text, compatibility: true, compose: true);

    /// <summary>Compatibility decomposition.</summary>
    public static string Nfkd(string text) => Form(text, compatibility: true, compose: false);

    /// <summary>Whether the text is sure to be its own normal form; false where that takes a closer look.</summary>
    public static bool IsPlain(string text, bool compatibility, bool compose)
    {
        if (!compose || compatibility) return Ascii.IsValid(text);
        var from = text.AsSpan().IndexOfAnyExceptInRange('\0', '\u02FF');
        return from < 0 || Data.Value.KeepsUnderNfc(text.AsSpan(from));
    }

    /// <summary>The smallest stretches that normalize by themselves: nothing is put in order or composed across their ends.</summary>
    public static IEnumerable<Range> Stretches(string text, bool compatibility)
    {
        var tables = Data.Value;
        int start = 0, at = 0;
        foreach (var rune in text.EnumerateRunes())
        {
            if (at > start && tables.Begins(rune.Value, compatibility))
            {
                yield return start..at;
                start = at;
            }

            at += rune.Utf16SequenceLength;
        }

        if (at > start) yield return start..at;
    }

    /// <summary>Any of the four forms.</summary>
    /// <param name="text">Without lone surrogates.</param>
    /// <param name="compatibility">NFKC and NFKD.</param>
    /// <param name="compose">NFC and NFKC.</param>
    public static string Form(string text, bool compatibility, bool compose)
    {
        if (IsPlain(text, compatibility, compose)) return text;
        var tables = Data.Value;
        var runes = new List<int>(text.Length);
        foreach (var rune in text.EnumerateRunes()) tables.Decompose(rune.Value, compatibility, runes);
        tables.Order(runes);
        if (compose) tables.Compose(runes);
        var result = new StringBuilder(text.Length);
        Span<char> units = stackalloc char[2];
        foreach (var rune in runes) result.Append(units[..new Rune(rune).EncodeToUtf16(units)]);
        return result.ToString();
    }

    private sealed class Tables
    {
        // Hangul syllables are composed by arithmetic (the Unicode Standard, section 3.12).
        private const int SBase = 0xAC00, LBase = 0x1100, VBase = 0x1161, TBase = 0x11A7, LCount = 19, VCount = 21, TCount = 28, SCount = LCount * VCount * TCount;
        private readonly Dictionary<int, byte> _class = [];
        private readonly Dictionary<int, int[]> _canonical = [];
        private readonly Dictionary<int, int[]> _compatible = [];
        private readonly Dictionary<(int First, int Second), int> _composed = [];
        private readonly HashSet<int> _seconds = [];
        private bool[]? _plain; // filled twice at worst, with the same

        public static Tables Read()
        {
            var tables = new Tables();
            var excluded = new HashSet<int>();
            using var reader = new StreamReader(typeof(UnicodeNormalizer).Assembly.GetManifestResourceStream("UnicodeNormalizer.txt")!, Encoding.ASCII);
            while (reader.ReadLine() is { } line)
            {
                if (line[0] == '#') continue;
                var f = line.Split(' ');
                if (f[0] == "c")
                {
                    for (var c = Hex(f[1]); c <= Hex(f[2]); c++) tables._class[c] = byte.Parse(f[3], CultureInfo.InvariantCulture);
                    continue;
                }

                int[] mapping = [.. f.Skip(2).Select(Hex)];
                if (f[0] == "x") excluded.Add(Hex(f[1]));
                else (f[0] == "d" ? tables._canonical : tables._compatible)[Hex(f[1])] = mapping;
            }

            foreach (var (code, mapping) in tables._canonical)
                if (mapping.Length == 2 && !excluded.Contains(code)) tables._composed[(mapping[0], mapping[1])] = code;
            foreach (var (_, second) in tables._composed.Keys) tables._seconds.Add(second);
            return tables;
        }

        /// <summary>Whether every unit is, wherever it stands, its own composition and composes with nothing before it.</summary>
        public bool KeepsUnderNfc(ReadOnlySpan<char> text)
        {
            var plain = _plain ??= Plain();
            foreach (var c in text)
                if (!plain[c]) return false;
            return true;
        }

        /// <summary>Whether nothing of a code point's decomposition moves or composes across its front.</summary>
        public bool Begins(int c, bool compatibility)
        {
            var parts = new List<int>(4);
            Decompose(c, compatibility, parts);
            return Class(parts[0]) == 0 && !IsSecond(parts[0]);
        }

        private bool[] Plain()
        {
            var plain = new bool[0x10000];
            var parts = new List<int>(4);
            for (var c = 0; c < plain.Length; c++)
            {
                if (char.IsSurrogate((char)c)) continue;
                parts.Clear();
                Decompose(c, compatibility: false, parts);
                Order(parts);
                Compose(parts);
                plain[c] = parts.Count == 1 && parts[0] == c && Begins(c, compatibility: false);
            }

            return plain;
        }

        private bool IsSecond(int c) => c is >= VBase and < VBase + VCount or > TBase and < TBase + TCount || _seconds.Contains(c);

        public void Decompose(int c, bool compatibility, List<int> into)
        {
            if ((uint)(c - SBase) < SCount)
            {
                var s = c - SBase;
                into.Add(LBase + s / (VCount * TCount));
                into.Add(VBase + s % (VCount * TCount) / TCount);
                if (s % TCount != 0) into.Add(TBase + s % TCount);
            }
            else if (_canonical.TryGetValue(c, out var mapping) || (compatibility && _compatible.TryGetValue(c, out mapping)))
            {
                foreach (var m in mapping) Decompose(m, compatibility, into);
            }
            else
            {
                into.Add(c);
            }
        }

        /// <summary>Marks after a base character go in the order of their classes; equal classes keep theirs.</summary>
        public void Order(List<int> runes)
        {
            for (var i = 0; i < runes.Count; i++)
            {
                if (Class(runes[i]) == 0) continue;
                var end = i;
                while (end < runes.Count && Class(runes[end]) != 0) end++;
                var sorted = runes[i..end].OrderBy(Class).ToList();
                for (var j = i; j < end; j++) runes[j] = sorted[j - i];
                i = end;
            }
        }

        public void Compose(List<int> runes)
        {
            var starter = -1;
            var last = -1; // class of the last character kept since the starter; -1: none
            var kept = 0;
            for (var i = 0; i < runes.Count; i++)
            {
                var c = runes[i];
                var combining = Class(c);
                // Blocked when a character of the same or a higher class, or a starter, stands between.
                if (starter >= 0 && (last == -1 || last < combining) && Pair(runes[starter], c) is { } whole)
                {
                    runes[starter] = whole;
                    continue;
                }

                if (combining == 0) (starter, last) = (kept, -1);
                else last = combining;
                runes[kept++] = c;
            }

            runes.RemoveRange(kept, runes.Count - kept);
        }

        private int? Pair(int first, int second)
        {
            if ((uint)(first - LBase) < LCount && (uint)(second - VBase) < VCount) return SBase + ((first - LBase) * VCount + second - VBase) * TCount;
            if ((uint)(first - SBase) < SCount && (first - SBase) % TCount == 0 && second > TBase && second < TBase + TCount) return first + second - TBase;
            return _composed.TryGetValue((first, second), out var whole) ? whole : null;
        }

        private byte Class(int c) => c < 0x300 ? (byte)0 : _class.GetValueOrDefault(c);

        private static int Hex(string s) => int.Parse(s, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);
    }
}
