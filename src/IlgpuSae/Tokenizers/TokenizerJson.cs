using System.Text.Json;
using IlgpuSae.Files;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// Reads tokenizer.json: byte-pair models, byte-level (GPT-2, GPT-NeoX, Llama 3, Qwen2) or over pieces with byte
/// fallback (LLaMA, Mistral, Gemma), Unigram (T5) and WordPiece (BERT). Each part is either followed exactly or
/// refused by name; nothing is skipped.
/// </summary>
internal sealed class TokenizerJson
{
    private readonly TokenizerFolder _folder;
    private readonly string _path;
    private readonly JsonConfig _json;

    /// <param name="folder">A folder that has the file.</param>
    /// <exception cref="InvalidFileException">The file is no JSON object.</exception>
    public TokenizerJson(TokenizerFolder folder)
    {
        _folder = folder;
        _path = folder.File_("tokenizer.json");
        _json = JsonConfig.Read(_path);
    }

    /// <summary>The tokenizer the file describes.</summary>
    /// <exception cref="InvalidFileException">A part is damaged or not known.</exception>
    public Tokenizer Read()
    {
        var model = _json.GetObject("model");
        var type = model.GetStringOrNull("type") ?? (model.Has("merges") ? "BPE" : "unnamed");
        var normalizer = TokenizerJsonParts.Normalizer(_json, "normalizer");
        var stages = TokenizerJsonParts.Flatten(_json, "pre_tokenizer", "pretokenizers");
        var byteLevel = stages.Count > 0 && stages[^1].GetString("type") == "ByteLevel";
        var vocabulary = new Vocabulary(_path);
        ITokenEngine engine = type switch
        {
            "BPE" => PairModel(model, vocabulary, normalizer, stages, byteLevel),
            "Unigram" => UnigramModel(model, vocabulary, stages),
            "WordPiece" => WordPieceModel(model, vocabulary, stages),
            _ => throw model.Wrong("type", $"is the tokenizer model {Say.Quote(type)}; known are BPE, Unigram and WordPiece"),
        };
        if (byteLevel && type != "BPE") throw stages[^1].Wrong("type", $"is ByteLevel with the model {type}, which is not known");

        var added = ReadAdded(vocabulary);
        var (prefix, suffix) = TokenizerJsonParts.Template(_json);
        var usual = (prefix, suffix, model.GetStringOrNull("unk_token"));
        var specials = _folder.Specials(vocabulary, added, usual, addBos: prefix is not null, addEos: suffix is not null);
        if (prefix is not null && specials.AddBos && vocabulary.Id(prefix) != specials.Bos) throw _json.Wrong("post_processor", $"puts {Say.Quote(prefix)} first, which is not the BOS token of tokenizer_config.json");
        if (suffix is not null && specials.AddEos && vocabulary.Id(suffix) != specials.Eos) throw _json.Wrong("post_processor", $"puts {Say.Quote(suffix)} last, which is not the EOS token of tokenizer_config.json");
        return new PipelineTokenizer(vocabulary, specials, added, normalizer, engine, TokenizerJsonDecoder.Read(_json, vocabulary, byteLevel));
    }

    private static WordEngine PairModel(JsonConfig model, Vocabulary vocabulary, ChangeSequence normalizer, List<JsonConfig> stages, bool byteLevel)
    {
        if (model.GetDouble("dropout", 0) != 0) throw model.Wrong("dropout", "makes the tokens random, which is not known");
        foreach (var affix in (string[])["continuing_subword_prefix", "end_of_word_suffix"])
            if (model.GetStringOrNull(affix) is { Length: > 0 }) throw model.Wrong(affix, "is set, which is not known");
        var own = ReadVocabulary(model, vocabulary);
        var merges = Merges.WithoutRepeats(ReadMerges(model));
        var ignoreMerges = model.GetBool("ignore_merges", false);
        var split = stages.ConvertAll(TokenizerJsonParts.Stage);
        if (byteLevel) return new ByteLevelEngine(model.Path, own, merges, ignoreMerges, [.. split]);

        var unknown = model.GetStringOrNull("unk_token") is { } u ? own.TryGetValue(u, out var id) ? id : throw model.Wrong("unk_token", $"is {Say.Quote(u)}, which the vocabulary lacks") : (int?)null;
        // Gemma splits at spaces after its normalizer has replaced them all: nothing is ever split.
        if (stages.Count == 1 && stages[0].GetString("type") == "Split" && stages[0].GetObject("pattern").GetStringOrNull("String") == " " && !normalizer.IsEmpty && !normalizer.Apply(" ").Contains(' ', StringComparison.Ordinal)) split.Clear();
        if (split.Count == 0)
        {
            // Where no merge can cross a space, words may be cut there at no loss. Unknowns could meet across it.
            var byWord = !ignoreMerges && model.GetBool("byte_fallback", false) && Enumerable.Range(0, 256).All(b => own.ContainsKey($"<0x{b:X2}>")) && merges.All(m => MetaspaceRunSplitter.NeverCuts(m.Left + m.Right));
            split.Add(new(byWord ? new MetaspaceRunSplitter() : new NoSplitter()));
        }

        return new PieceEngine(model.Path, own, merges, model.GetBool("byte_fallback", false), unknown, model.GetBool("fuse_unk", false), ignoreMerges, [.. split]);
    }

    private static UnigramEngine UnigramModel(JsonConfig model, Vocabulary vocabulary, List<JsonConfig> stages)
    {
        if (!model.TryGet("vocab", out var list) || list.ValueKind != JsonValueKind.Array || list.GetArrayLength() == 0) throw model.Wrong("vocab", "is no list of pieces and scores");
        var pieces = new List<(string Text, double Score, int Id)>(list.GetArrayLength());
        foreach (var entry in list.EnumerateArray())
        {
            if (entry.ValueKind != JsonValueKind.Array || entry.GetArrayLength() != 2 || entry[0].ValueKind != JsonValueKind.String || entry[1].ValueKind != JsonValueKind.Number || !double.IsFinite(entry[1].GetDouble()))
                throw model.Wrong("vocab", $"has {Say.Quote(entry.GetRawText())} at place {pieces.Count}, expected [\"piece\", score]");
            vocabulary.Add(entry[0].GetString()!, pieces.Count);
            pieces.Add((entry[0].GetString()!, entry[1].GetDouble(), pieces.Count));
        }

        int? unknown = model.Has("unk_id") ? model.GetInt("unk_id") : null;
        if (unknown is { } u && (u < 0 || u >= pieces.Count)) throw model.Wrong("unk_id", $"is {u}, the vocabulary has 0..{pieces.Count - 1}");
        var split = stages.ConvertAll(TokenizerJsonParts.Stage);
        if (split.Count == 0) split.Add(new(new NoSplitter()));
        return new UnigramEngine(pieces, pieces.Min(p => p.Score), model.GetBool("byte_fallback", false) ? new ByteTokens(vocabulary.Ids) : null, unknown, single: false, [.. split]);
    }

    private static WordPieceEngine WordPieceModel(JsonConfig model, Vocabulary vocabulary, List<JsonConfig> stages)
    {
        var own = ReadVocabulary(model, vocabulary);
        var unknown = model.GetStringOrNull("unk_token") ?? "[UNK]";
        var split = stages.ConvertAll(TokenizerJsonParts.Stage);
        if (split.Count == 0) split.Add(new(new NoSplitter()));
        return new WordPieceEngine(
            own,
            own.TryGetValue(unknown, out var id) ? id : throw model.Wrong("unk_token", $"is {Say.Quote(unknown)}, which the vocabulary lacks"),
            model.GetStringOrNull("continuing_subword_prefix") ?? "##",
            model.GetInt("max_input_chars_per_word", 100),
            [.. split]);
    }

    private static Dictionary<string, int> ReadVocabulary(JsonConfig model, Vocabulary vocabulary)
    {
        var vocab = model.GetObject("vocab");
        foreach (var p in vocab.Element.EnumerateObject()) vocabulary.Add(p.Name, vocab.Id(p));
        return new Dictionary<string, int>(vocabulary.Ids, StringComparer.Ordinal);
    }

    private static List<(string Left, string Right)> ReadMerges(JsonConfig model)
    {
        if (!model.TryGet("merges", out var list) || list.ValueKind != JsonValueKind.Array) throw model.Wrong("merges", "is no list of merges");
        var merges = new List<(string Left, string Right)>(list.GetArrayLength());
        foreach (var m in list.EnumerateArray())
        {
            // Before version 0.20 of Hugging Face's tokenizers a merge was "a b", since then it is ["a", "b"].
            string[] pair = m.ValueKind switch
            {
                JsonValueKind.String => m.GetString()!.Split(' '),
                JsonValueKind.Array when m.EnumerateArray().All(p => p.ValueKind == JsonValueKind.String) => [.. m.EnumerateArray().Select(p => p.GetString()!)],
                _ => [],
            };
            if (pair.Length != 2) throw model.Wrong("merges", $"has {Say.Quote(m.GetRawText())} at place {merges.Count}, expected \"a b\" or [\"a\", \"b\"]");
            merges.Add((pair[0], pair[1]));
        }

        return merges;
    }

    private List<AddedToken> ReadAdded(Vocabulary vocabulary)
    {
        var added = new List<AddedToken>();
        if (!_json.TryGet("added_tokens", out var list)) return added;
        if (list.ValueKind != JsonValueKind.Array) throw _json.Wrong("added_tokens", "is no list");
        foreach (var e in list.EnumerateArray())
        {
            if (e.ValueKind != JsonValueKind.Object) throw _json.Wrong("added_tokens", "holds something that is no object");
            var entry = _json.Entry("added_tokens", e);
            var token = TokenizerFolder.Added(entry, entry.GetInt("id"));
            vocabulary.Add(token.Content, token.Id);
            added.Add(token);
        }

        return added;
    }
}
