using System.Text;
using Google.Protobuf;
using IlgpuSae.Files;

namespace IlgpuSae.Tokenizers;

/// <summary>What kind of piece an entry of a SentencePiece model is; numbers are the format's.</summary>
internal enum PieceKind
{
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// <summary>
/// A SentencePiece model file: its pieces, and the settings that decide whether it can be followed exactly.
/// </summary>
/// <remarks>Field numbers: sentencepiece_model.proto of github.com/google/sentencepiece.</remarks>
internal sealed class SentencePieceModel
{
    private const long MaxBytes = 256L << 20;

    private SentencePieceModel(string path, byte[] bytes) => (Path, Bytes) = (path, bytes);

    /// <summary>The file.</summary>
    public string Path { get; }

    /// <summary>The file's content.</summary>
    public byte[] Bytes { get; }

    /// <summary>Pieces by id.</summary>
    public List<(string Text, PieceKind Kind, float Score)> Pieces { get; } = [];

    /// <summary>1 Unigram, 2 BPE, 3 words, 4 characters.</summary>
    public int ModelType { get; private set; } = 1;

    /// <summary>Whether pieces for bytes stand in for unknown characters.</summary>
    public bool ByteFallback { get; private set; }

    /// <summary>Id of the unknown piece.</summary>
    public int UnkId { get; private set; }

    /// <summary>Id of the beginning of a text; -1 for none.</summary>
    public int BosId { get; private set; } = 1;

    /// <summary>Id of the end of a text; -1 for none.</summary>
    public int EosId { get; private set; } = 2;

    /// <summary>Id of padding; -1 for none.</summary>
    public int PadId { get; private set; } = -1;

    /// <summary>Whether ▁ stands behind words instead of before them.</summary>
    public bool WhitespaceAsSuffix { get; private set; }

    /// <summary>The normalization rule's name.</summary>
    public string Rule { get; private set; } = "";

    /// <summary>The rule, compiled; null: characters stay as they are.</summary>
    public CharacterMap? Rules { get; private set; }

    /// <summary>Whether a space is put before the text.</summary>
    public bool AddDummyPrefix { get; private set; } = true;

    /// <summary>Whether spaces at both ends vanish and runs of them shrink to one.</summary>
    public bool RemoveExtraWhitespaces { get; private set; } = true;

    /// <summary>Whether spaces become ▁.</summary>
    public bool EscapeWhitespaces { get; private set; } = true;

    /// <summary>Reads a model file.</summary>
    /// <exception cref="InvalidFileException">Missing, or no SentencePiece model.</exception>
    public static SentencePieceModel Read(string path)
    {
        var model = new SentencePieceModel(path, ReadFailure.ReadAll(path, MaxBytes));
        try
        {
            model.ReadModel(new CodedInputStream(model.Bytes));
        }
        catch (Exception e) when (e is InvalidProtocolBufferException or IOException or ArgumentException)
        {
            throw new InvalidFileException(path, $"is no SentencePiece model: {AtomicFile.OneLine(e.Message)}", e);
        }

        if (model.Pieces.Count == 0) throw new InvalidFileException(path, "is no SentencePiece model: it has no pieces");
        return model;
    }

    private void ReadModel(CodedInputStream input)
    {
        while (input.ReadTag() is var tag and not 0)
        {
            switch (tag)
            {
                case 1 << 3 | 2: ReadPiece(new CodedInputStream(input.ReadBytes().ToByteArray())); break;
                case 2 << 3 | 2: ReadTrainer(new CodedInputStream(input.ReadBytes().ToByteArray())); break;
                case 3 << 3 | 2: ReadNormalizer(new CodedInputStream(input.ReadBytes().ToByteArray())); break;
                default: input.SkipLastField(); break;
            }
        }
    }

    private void ReadPiece(CodedInputStream input)
    {
        var (text, kind, score) = ("", PieceKind.Normal, 0f);
        while (input.ReadTag() is var tag and not 0)
        {
            switch (tag)
            {
                case 1 << 3 | 2: text = Encoding.UTF8.GetString(input.ReadBytes().Span); break;
                case 2 << 3 | 5: score = input.ReadFloat(); break;
                case 3 << 3 | 0: kind = (PieceKind)input.ReadInt32(); break;
                default: input.SkipLastField(); break;
            }
        }

        Pieces.Add((text, kind, score));
    }

    private void ReadTrainer(CodedInputStream input)
    {
        while (input.ReadTag() is var tag and not 0)
        {
            switch (tag)
            {
                case 3 << 3 | 0: ModelType = input.ReadInt32(); break;
                case 24 << 3 | 0: WhitespaceAsSuffix = input.ReadBool(); break;
                case 35 << 3 | 0: ByteFallback = input.ReadBool(); break;
                case 40 << 3 | 0: UnkId = input.ReadInt32(); break;
                case 41 << 3 | 0: BosId = input.ReadInt32(); break;
                case 42 << 3 | 0: EosId = input.ReadInt32(); break;
                case 43 << 3 | 0: PadId = input.ReadInt32(); break;
                default: input.SkipLastField(); break;
            }
        }
    }

    private void ReadNormalizer(CodedInputStream input)
    {
        while (input.ReadTag() is var tag and not 0)
        {
            switch (tag)
            {
                case 1 << 3 | 2: Rule = input.ReadString(); break;
                case 2 << 3 | 2: if (input.ReadBytes() is { Length: > 0 } map) Rules = new CharacterMap(map.Span); break;
                case 3 << 3 | 0: AddDummyPrefix = input.ReadBool(); break;
                case 4 << 3 | 0: RemoveExtraWhitespaces = input.ReadBool(); break;
                case 5 << 3 | 0: EscapeWhitespaces = input.ReadBool(); break;
                default: input.SkipLastField(); break;
            }
        }
    }
}
