using System.Text.Json;
using System.Text.Json.Nodes;
using IlgpuSae.Tokenizers;

namespace IlgpuSae.Tests.Tokenizers;

/// <summary>
/// A byte-level vocabulary small enough to encode by hand: byte b is token b, then the results of a few merges.
/// </summary>
internal static class TinyBpe
{
    public const int Th = 256, The = 257, SpaceThe = 258, SpaceA = 259, ApostropheS = 260, OneTwo = 261, EAcute = 262, SpaceSpace = 263, EndOfText = 264;

    /// <summary>Spelled as files do: Ġ is a space, Ã© are the two bytes of é.</summary>
    public static readonly (string Left, string Right)[] Merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ġ", "a"), ("'", "s"), ("1", "2"), ("Ã", "©"), ("Ġ", "Ġ")];

    public static JsonObject Vocabulary()
    {
        var v = new JsonObject();
        for (var b = 0; b < 256; b++) v[ByteLevel.Spell((byte)b).ToString()] = b;
        foreach (var (left, right) in Merges) v[left + right] = v.Count;
        return v;
    }

    /// <summary>vocab.json and merges.txt, as GPT-2's folder has them.</summary>
    public static void WriteFolder(TempFolder folder)
    {
        var v = Vocabulary();
        v["<|endoftext|>"] = EndOfText;
        folder.Write("vocab.json", v.ToJsonString());
        folder.Write("merges.txt", "#version: 0.2\n" + string.Join("\n", Merges.Select(m => $"{m.Left} {m.Right}")) + "\n");
    }

    /// <summary>tokenizer.json of GPT-2's kind, for tests to change.</summary>
    public static JsonObject Json(bool pairs = false) => new()
    {
        ["version"] = "1.0",
        ["added_tokens"] = new JsonArray(new JsonObject { ["id"] = EndOfText, ["content"] = "<|endoftext|>", ["special"] = true, ["normalized"] = false }),
        ["normalizer"] = null,
        ["pre_tokenizer"] = ByteLevelStage(true),
        ["post_processor"] = new JsonObject { ["type"] = "ByteLevel" },
        ["decoder"] = new JsonObject { ["type"] = "ByteLevel" },
        ["model"] = new JsonObject
        {
            ["type"] = "BPE",
            ["vocab"] = Vocabulary(),
            ["merges"] = new JsonArray([.. Merges.Select(m => pairs ? (JsonNode)new JsonArray(m.Left, m.Right) : $"{m.Left} {m.Right}")]),
        },
    };

    public static JsonObject ByteLevelStage(bool regex, bool prefix = false) => new() { ["type"] = "ByteLevel", ["add_prefix_space"] = prefix, ["use_regex"] = regex };

    public static JsonObject Split(string pattern) => new()
    {
        ["type"] = "Sequence",
        ["pretokenizers"] = new JsonArray(
            new JsonObject { ["type"] = "Split", ["pattern"] = new JsonObject { ["Regex"] = pattern }, ["behavior"] = "Isolated", ["invert"] = false },
            ByteLevelStage(false)),
    };

    /// <summary>Writes the JSON into the folder and loads it.</summary>
    public static Tokenizer Load(TempFolder folder, JsonObject json)
    {
        folder.Write("tokenizer.json", json.ToJsonString(new JsonSerializerOptions { WriteIndented = true }));
        return Tokenizer.Load(folder.Path);
    }
}
