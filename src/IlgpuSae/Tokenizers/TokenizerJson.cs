using System.Text.Json;
using IlgpuSae.Files;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// Reads tokenizer.json: byte-pair models, byte-level (GPT-2, GPT-NeoX, Llama 3, Qwen2) or over pieces with byte
/// fallback (LLaMA, Mistral, Gemma). Each part is either followed exactly or refused by name; nothing is skipped.
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
        if (type != "BPE") throw model.Wrong("type", $"is the tokenizer model {Say.Quote(type)}, only BPE is known");
        if (model.GetDouble("dropout", 0) != 0) throw model.Wrong("dropout", "makes the tokens random, which is not known");
        foreach (var affix in (string[])["continuing_subword_prefix", "end_of_word_suffix"])
            if (model.GetStringOrNull(affix) is { Length: > 0 }) throw model.Wrong(affix, "is set, which is not known");

        var vocabulary = new Vocabulary(_path);
        var vocab = model.GetObject("vocab");
        foreach (var p in vocab.Element.EnumerateObject()) vocabulary.Add(p.Name, vocab.Id(p));
        var own = new Dictionary<string, int>(vocabulary.Ids, StringComparer.Ordinal);
        var merges = Merges.WithoutRepeats(ReadMerges(model));
        var normalize = TokenizerJsonParts.Normalizer(_json, "normalizer");
        var stages = TokenizerJsonParts.Flatten(_json, "pre_tokenizer", "pretokenizers");
        var byteLevel = stages.Count > 0 && stages[^1].GetString("type") == "ByteLevel";
        ITokenEngine engine = byteLevel
            ? ByteLevelModel(model, own, merges, stages)
            : PieceModel(model, own, merges, normalize, stages);

        var added = ReadAdded(vocabulary);
        var (prefix, suffix) = TokenizerJsonParts.Template(_json);
        var usual = (prefix, suffix, model.GetStringOrNull("unk_token"));
        var specials = _folder.Specials(vocabulary, added, usual, addBos: prefix is not null, addEos: suffix is not null);
        if (prefix is not null && specials.AddBos && vocabulary.Id(prefix) != specials.Bos) throw _json.Wrong("post_processor", $"puts {Say.Quote(prefix)} first, which is not the BOS token of tokenizer_config.json");
        if (suffix is not null && specials.AddEos && vocabulary.Id(suffix) != specials.Eos) throw _json.Wrong("post_processor", $"puts {Say.Quote(suffix)} last, which is not the EOS token of tokenizer_config.json");
        return new PipelineTokenizer(vocabulary, specials, added, normalize, engine, Decoder(vocabulary, byteLevel));
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

    private static ByteLevelEngine ByteLevelModel(JsonConfig model, Dictionary<string, int> own, List<(string Left, string Right)> merges, List<JsonConfig> stages)
    {
        var last = stages[^1];
        Splitter? outer = null, inner = last.GetBool("use_regex", true) ? new Gpt2Splitter() : null;
        foreach (var stage in stages.Take(stages.Count - 1))
        {
            var splitter = TokenizerJsonParts.Splitter(stage);
            if (stage.GetString("type") == "Digits" && outer is null) outer = splitter;
            else if (inner is null) inner = splitter;
            else throw stage.Wrong("type", "is one stage more than is known before a ByteLevel pre-tokenizer");
        }

        var prefixSpace = last.GetBool("add_prefix_space", true);
        if (prefixSpace && stages.Count > 1) throw last.Wrong("add_prefix_space", "is set after other stages, which is not known");
        return new ByteLevelEngine(model.Path, own, merges, inner ?? new NoSplitter(), outer, prefixSpace, model.GetBool("ignore_merges", false));
    }

    private static PieceEngine PieceModel(JsonConfig model, Dictionary<string, int> own, List<(string Left, string Right)> merges, Func<string, string>? normalize, List<JsonConfig> stages)
    {
        if (model.GetBool("ignore_merges", false)) throw model.Wrong("ignore_merges", "is set without a ByteLevel pre-tokenizer, which is not known");
        if (stages.Count > 1) throw stages[1].Wrong("type", $"is the second stage {Say.Quote(stages[1].GetString("type"))} of a pre-tokenizer without ByteLevel, which is not known");
        var unknown = model.GetStringOrNull("unk_token") is { } u ? own.TryGetValue(u, out var id) ? id : throw model.Wrong("unk_token", $"is {Say.Quote(u)}, which the vocabulary lacks") : (int?)null;
        // Where no merge can cross a space, words may be cut there at no loss. Unknowns could meet across it.
        var byWord = model.GetBool("byte_fallback", false) && Enumerable.Range(0, 256).All(b => own.ContainsKey($"<0x{b:X2}>")) && merges.All(m => MetaspaceRunSplitter.NeverCuts(m.Left + m.Right));
        Splitter splitter = byWord ? new MetaspaceRunSplitter() : new NoSplitter();
        Func<string, bool, string> prepare = static (s, _) => s;
        if (stages.Count == 1 && stages[0].GetString("type") == "Metaspace")
        {
            (splitter, prepare) = TokenizerJsonParts.Metaspace(stages[0]);
        }
        else if (stages.Count == 1)
        {
            // Gemma splits at spaces after its normalizer has replaced them all: nothing is ever split.
            var pattern = TokenizerJsonParts.SplitPattern(stages[0], "String");
            if (pattern != " " || normalize is null || normalize(" ").Contains(' ', StringComparison.Ordinal)) throw stages[0].Wrong("pattern", "splits in a way that is not known");
        }

        return new PieceEngine(model.Path, own, merges, model.GetBool("byte_fallback", false), unknown, model.GetBool("fuse_unk", false), splitter, prepare);
    }

    private ITokenDecoder Decoder(Vocabulary vocabulary, bool byteLevel)
    {
        var parts = TokenizerJsonParts.Flatten(_json, "decoder", "decoders");
        var types = string.Join(", ", parts.Select(p => p.GetString("type")));
        if (byteLevel)
            return types == "ByteLevel" ? new ByteLevelDecoder(vocabulary) : throw _json.Wrong("decoder", $"is {Say.Quote(types)}, expected ByteLevel to go with the ByteLevel pre-tokenizer");
        if (types is not ("Replace, ByteFallback, Fuse" or "Replace, ByteFallback, Fuse, Strip")) throw _json.Wrong("decoder", $"is {Say.Quote(types)}, known are Replace, ByteFallback, Fuse and Replace, ByteFallback, Fuse, Strip");
        if (TokenizerJsonParts.ReplacePattern(parts[0]) != ("▁", " ")) throw parts[0].Wrong("content", "does not turn ▁ into a space, which is all that is known");
        var strips = parts.Count == 4;
        if (strips && (parts[3].GetString("content"), parts[3].GetInt("start"), parts[3].GetInt("stop")) != (" ", 1, 0)) throw parts[3].Wrong("content", "strips something other than one leading space, which is not known");
        return new PieceDecoder(vocabulary, verbatim: null, stripLeadingSpace: strips, wholeRuns: true);
    }
}
