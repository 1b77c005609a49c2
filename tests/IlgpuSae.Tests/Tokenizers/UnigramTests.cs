using System.Text.Json.Nodes;
using IlgpuSae.Tokenizers;
using Xunit;
using static IlgpuSae.Tests.Tokenizers.TinyPieces;

namespace IlgpuSae.Tests.Tokenizers;

/// <summary>Unigram models, from tokenizer.json (T5) and from SentencePiece model files; WordPiece (BERT).</summary>
public sealed class UnigramTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>0 pad, 1 end, 2 unknown, then pieces whose best sums are easy to see.</summary>
    private static JsonObject T5() => new()
    {
        ["added_tokens"] = new JsonArray(new JsonObject { ["id"] = 0, ["content"] = "<pad>", ["special"] = true }, new JsonObject { ["id"] = 1, ["content"] = "</s>", ["special"] = true }, new JsonObject { ["id"] = 2, ["content"] = "<unk>", ["special"] = true }),
        ["normalizer"] = Sequence("normalizers", new JsonObject { ["type"] = "NFKC" }, new JsonObject { ["type"] = "Strip", ["strip_left"] = false, ["strip_right"] = true }),
        ["pre_tokenizer"] = Sequence("pretokenizers", Type("WhitespaceSplit"), new JsonObject { ["type"] = "Metaspace", ["replacement"] = "▁", ["add_prefix_space"] = true }),
        ["post_processor"] = new JsonObject
        {
            ["type"] = "TemplateProcessing",
            ["single"] = new JsonArray(new JsonObject { ["Sequence"] = new JsonObject { ["id"] = "A" } }, new JsonObject { ["SpecialToken"] = new JsonObject { ["id"] = "</s>" } }),
        },
        ["decoder"] = new JsonObject { ["type"] = "Metaspace", ["replacement"] = "▁", ["add_prefix_space"] = true },
        ["model"] = new JsonObject
        {
            ["type"] = "Unigram",
            ["unk_id"] = 2,
            ["vocab"] = new JsonArray([.. new (string, double)[] { ("<pad>", 0), ("</s>", 0), ("<unk>", 0), ("▁", -2), ("▁a", -3), ("ab", -4), ("a", -5), ("b", -5), ("▁ab", -8), ("c", -6), ("abc", -9), ("bc", -9.5) }.Select(p => (JsonNode)new JsonArray(p.Item1, p.Item2))]),
        },
    };

    [Fact]
    public void The_best_sum_of_scores_wins()
    {
        var t = TinyBpe.Load(_folder, T5());
        Assert.Equal([3, 5, 1], t.Encode("ab")); // ▁ ab = -6; ▁ab = -8; ▁a b = -8
        Assert.Equal([4, 1], t.Encode("a")); // ▁a = -3; ▁ a = -7
        Assert.Equal([3, 10, 1], t.Encode("abc")); // ▁ ab c = -12; ▁a bc = -12.5; ▁ abc = -11
        Assert.Equal("ab a", t.Decode([3, 5, 4, 1], skipSpecial: true));
        Assert.Equal((1, 0, 2), (t.EosToken, t.PadToken ?? 0, t.UnkToken ?? 2));
    }

    [Fact]
    public void Unknown_neighbours_are_one_and_words_stand_apart()
    {
        var t = TinyBpe.Load(_folder, T5());
        Assert.Equal([3, 2, 4, 1], t.Encode("éü a"));
        Assert.Equal([new(3, 0, 0, 0, 0), new(2, 0, 2, 0, 4), new(4, 3, 4, 5, 6), new(1, 5, 5, 7, 7)], t.EncodeWithOffsets("éü a "));
        Assert.Equal([4, 4, 1], t.Encode("a \n\t a"));
        Assert.Equal([1], t.Encode(""));
    }

    [Fact]
    public void A_model_file_of_type_unigram_is_followed()
    {
        // Scores fall by one a piece: ▁a 0, ▁t -1, he -2, ▁the -3, ▁ -4, a -5, t -6, h -7, e -8, b -9.
        _folder.Write("tokenizer.model", Model(type: 1, dummyPrefix: true));
        var t = Tokenizer.Load(_folder.Path);
        Assert.Equal([Bos, SpaceThe, SpaceA, B], t.Encode("the ab")); // ▁t he = -3 is found after ▁the = -3
        Assert.Equal([Bos, Space, B0 + 0xC3, B0 + 0xA9], t.Encode("é"));
        Assert.Equal("the ab", t.Decode([SpaceThe, SpaceA, B]));
    }

    [Fact]
    public void Words_of_bert_are_cut_into_their_longest_pieces()
    {
        string[] vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", ",", "hello", "##a", "中"];
        var json = new JsonObject
        {
            ["added_tokens"] = new JsonArray([.. Enumerable.Range(0, 4).Select(i => (JsonNode)new JsonObject { ["id"] = i, ["content"] = vocabulary[i], ["special"] = true })]),
            ["normalizer"] = new JsonObject { ["type"] = "BertNormalizer", ["clean_text"] = true, ["handle_chinese_chars"] = true, ["strip_accents"] = null, ["lowercase"] = true },
            ["pre_tokenizer"] = Type("BertPreTokenizer"),
            ["post_processor"] = new JsonObject { ["type"] = "BertProcessing", ["cls"] = new JsonArray("[CLS]", 2), ["sep"] = new JsonArray("[SEP]", 3) },
            ["decoder"] = new JsonObject { ["type"] = "WordPiece", ["prefix"] = "##", ["cleanup"] = true },
            ["model"] = new JsonObject { ["type"] = "WordPiece", ["unk_token"] = "[UNK]", ["vocab"] = new JsonObject([.. vocabulary.Select((v, i) => KeyValuePair.Create(v, (JsonNode?)i))]) },
        };
        var t = TinyBpe.Load(_folder, json);
        Assert.Equal([2, 8, 7, 4, 5, 6, 10, 10, 1, 3], t.Encode("HÉLLO, unaffable中中 unx"));
        Assert.Equal("hello, unaffable", t.Decode([2, 8, 7, 4, 5, 6, 3], skipSpecial: true));
        Assert.Equal([new(8, 1, 6, 1, 7), new(7, 6, 7, 7, 8)], t.EncodeWithOffsets(" HÉLLO,", addBos: false));
    }
}
