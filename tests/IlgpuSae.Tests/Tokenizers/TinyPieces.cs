using System.Text.Json.Nodes;
using Google.Protobuf;

namespace IlgpuSae.Tests.Tokenizers;

/// <summary>
/// A SentencePiece-style vocabulary small enough to encode by hand: unknown, BOS, EOS, 256 bytes (byte b is B0 + b), then
/// pieces. Earlier pieces of several characters merge first.
/// </summary>
internal static class TinyPieces
{
    public const int Unk = 0, Bos = 1, Eos = 2, B0 = 3;
    public const int SpaceA = 259, SpaceT = 260, He = 261, SpaceThe = 262, Space = 263, A = 264, T = 265, H = 266, E = 267, B = 268, SpaceSpace = 269;

    public static readonly string[] Merged = ["▁a", "▁t", "he", "▁the"];
    public static readonly string[] Single = ["▁", "a", "t", "h", "e", "b"];

    /// <summary>All pieces by id, with the kinds of the format.</summary>
    public static List<(string Text, int Kind)> Pieces()
    {
        List<(string, int)> all = [("<unk>", 2), ("<s>", 3), ("</s>", 3)];
        for (var b = 0; b < 256; b++) all.Add(($"<0x{b:X2}>", 6));
        all.AddRange(Merged.Concat(Single).Select(p => (p, 1)));
        return all;
    }

    /// <summary>tokenizer.model as SentencePiece writes it.</summary>
    public static byte[] Model(
        IEnumerable<(string Text, int Kind)>? pieces = null, int type = 2, bool byteFallback = true, bool dummyPrefix = true,
        bool removeExtra = false, byte[]? characterMap = null, bool suffix = false)
    {
        using var bytes = new MemoryStream();
        var o = new CodedOutputStream(bytes);
        var score = 0f;
        foreach (var (text, kind) in pieces ?? Pieces())
        {
            Message(o, 1, m =>
            {
                m.WriteRawTag(1 << 3 | 2);
                m.WriteString(text);
                m.WriteRawTag(2 << 3 | 5);
                m.WriteFloat(kind == 1 ? score-- : 0);
                m.WriteRawTag(3 << 3 | 0);
                m.WriteInt32(kind);
            });
        }

        Message(o, 2, m =>
        {
            foreach (var (field, value) in new[] { (3, type), (24, suffix ? 1 : 0), (35, byteFallback ? 1 : 0), (40, 0), (41, 1), (42, 2), (43, -1) })
            {
                m.WriteTag(field, WireFormat.WireType.Varint);
                m.WriteInt32(value);
            }
        });
        Message(o, 3, m =>
        {
            m.WriteTag(1, WireFormat.WireType.LengthDelimited);
            m.WriteString(characterMap is null ? "identity" : "nmt_nfkc");
            m.WriteTag(2, WireFormat.WireType.LengthDelimited);
            m.WriteBytes(ByteString.CopyFrom(characterMap ?? []));
            m.WriteTag(3, WireFormat.WireType.Varint);
            m.WriteBool(dummyPrefix);
            m.WriteTag(4, WireFormat.WireType.Varint);
            m.WriteBool(removeExtra);
        });
        o.Flush();
        return bytes.ToArray();
    }

    /// <summary>tokenizer.json of LLaMA's kind, for tests to change.</summary>
    public static JsonObject Json()
    {
        var vocab = new JsonObject();
        foreach (var (text, _) in Pieces()) vocab[text] = vocab.Count;
        return new JsonObject
        {
            ["added_tokens"] = new JsonArray([.. new[] { "<unk>", "<s>", "</s>" }.Select((c, i) => (JsonNode)new JsonObject { ["id"] = i, ["content"] = c, ["special"] = true })]),
            ["normalizer"] = Sequence("normalizers", new JsonObject { ["type"] = "Prepend", ["prepend"] = "▁" }, Replace(" ", "▁")),
            ["pre_tokenizer"] = null,
            ["post_processor"] = null,
            ["decoder"] = Sequence("decoders", Replace("▁", " "), Type("ByteFallback"), Type("Fuse"), new JsonObject { ["type"] = "Strip", ["content"] = " ", ["start"] = 1, ["stop"] = 0 }),
            ["model"] = new JsonObject
            {
                ["type"] = "BPE",
                ["unk_token"] = "<unk>",
                ["fuse_unk"] = true,
                ["byte_fallback"] = true,
                ["vocab"] = vocab,
                ["merges"] = new JsonArray("▁ a", "▁ t", "h e", "▁t he"),
            },
        };
    }

    public static JsonObject Replace(string pattern, string content) => new() { ["type"] = "Replace", ["pattern"] = new JsonObject { ["String"] = pattern }, ["content"] = content };

    public static JsonObject Type(string type) => new() { ["type"] = type };

    public static JsonObject Sequence(string key, params JsonNode[] parts) => new() { ["type"] = "Sequence", [key] = new JsonArray(parts) };

    private static void Message(CodedOutputStream o, int field, Action<CodedOutputStream> write)
    {
        using var inner = new MemoryStream();
        var m = new CodedOutputStream(inner);
        write(m);
        m.Flush();
        o.WriteTag(field, WireFormat.WireType.LengthDelimited);
        o.WriteBytes(ByteString.CopyFrom(inner.ToArray()));
    }
}
