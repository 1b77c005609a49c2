using System.Globalization;
using System.Text;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// SentencePiece-style tokens to text: ▁ is a space, &lt;0xXX&gt; is a byte, runs of bytes are read as UTF-8.
/// </summary>
internal sealed class PieceDecoder : ITokenDecoder
{
    private readonly string?[] _text;
    private readonly short[] _byte;
    private readonly bool _stripLeadingSpace;
    private readonly bool _wholeRuns;

    /// <param name="vocabulary">The tokens.</param>
    /// <param name="verbatim">Tokens that are text as they stand (added ones); null: all others than bytes have ▁ for space.</param>
    /// <param name="stripLeadingSpace">Whether one leading space, which the encoder put there, is taken away.</param>
    /// <param name="wholeRuns">Whether one bad byte spoils its whole run of byte tokens, each then showing as U+FFFD
    /// (Hugging Face's ByteFallback), or only itself (SentencePiece).</param>
    public PieceDecoder(Vocabulary vocabulary, IReadOnlySet<int>? verbatim, bool stripLeadingSpace, bool wholeRuns)
    {
        _stripLeadingSpace = stripLeadingSpace;
        _wholeRuns = wholeRuns;
        _text = new string?[vocabulary.Size];
        _byte = new short[vocabulary.Size];
        for (var id = 0; id < _text.Length; id++)
        {
            var piece = vocabulary.Piece(id);
            _byte[id] = piece is null ? (short)-1 : ByteOf(piece);
            _text[id] = piece is null || verbatim?.Contains(id) == true ? piece : piece.Replace('▁', ' ');
        }
    }

    /// <summary>The byte that a token of the form &lt;0xXX&gt; stands for; -1 for other tokens.</summary>
    public static short ByteOf(string piece) =>
        piece is ['<', '0', 'x', _, _, '>'] && byte.TryParse(piece.AsSpan(3, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var b) ? b : (short)-1;

    /// <inheritdoc/>
    public string Decode(ReadOnlySpan<int> ids)
    {
        var text = new StringBuilder();
        var run = new List<byte>();
        foreach (var id in ids)
        {
            if (id >= _text.Length || _text[id] is not { } piece) continue;
            if (_byte[id] >= 0)
            {
                run.Add((byte)_byte[id]);
                continue;
            }

            Flush(run, text);
            text.Append(piece);
        }

        Flush(run, text);
        var start = _stripLeadingSpace && text.Length > 0 && text[0] == ' ' ? 1 : 0;
        return text.ToString(start, text.Length - start);
    }

    private void Flush(List<byte> run, StringBuilder text)
    {
        if (run.Count == 0) return;
        ReadOnlySpan<byte> bytes = run.ToArray();
        if (_wholeRuns && !System.Text.Unicode.Utf8.IsValid(bytes))
        {
            text.Append('\uFFFD', bytes.Length);
        }
        else
        {
            while (bytes.Length > 0)
            {
                // One U+FFFD for each bad byte, not for each bad sequence.
                if (Rune.DecodeFromUtf8(bytes, out var rune, out var used) != System.Buffers.OperationStatus.Done) (rune, used) = (Rune.ReplacementChar, 1);
                text.Append(rune.ToString());
                bytes = bytes[used..];
            }
        }

        run.Clear();
    }
}
