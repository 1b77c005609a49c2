using System.Text;
using IlgpuSae.Files;

namespace IlgpuSae.Tokenizers;

/// <summary>Chooses the tokenizer of a folder by the files that are there, in the order Hugging Face's library prefers them.</summary>
internal static class TokenizerLoader
{
    private const string EndOfText = "<|endoftext|>";

    /// <summary>Reads the tokenizer of a folder.</summary>
    /// <exception cref="InvalidFileException">No tokenizer, a damaged one, or of an unknown kind.</exception>
    public static Tokenizer Load(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        var folder = new TokenizerFolder(path);
        if (folder.Has("tokenizer.json")) return new TokenizerJson(folder).Read().WithChat(folder);
        if (folder.Has("vocab.json") && folder.Has("merges.txt")) return VocabAndMerges(folder).WithChat(folder);
        if (folder.Has("tokenizer.model")) return SentencePiece(folder, "tokenizer.model").WithChat(folder);
        if (folder.Has("spiece.model")) return SentencePiece(folder, "spiece.model").WithChat(folder);
        throw new InvalidFileException(path, "has no tokenizer: neither tokenizer.json, nor vocab.json with merges.txt, nor tokenizer.model or spiece.model");
    }

    private static PipelineTokenizer VocabAndMerges(TokenizerFolder folder)
    {
        var path = folder.File_("vocab.json");
        var qwen = folder.Class == "Qwen2Tokenizer" || (folder.Class is null && folder.ModelType is "qwen2" or "qwen3");
        if (!qwen && folder.Class is not (null or "GPT2Tokenizer"))
            throw new InvalidFileException(folder.Path, $"vocab.json and merges.txt belong to the tokenizer class {Say.Quote(folder.Class!)}; known are GPT2Tokenizer and Qwen2Tokenizer, and any class with a tokenizer.json");

        var vocabulary = new Vocabulary(path);
        var json = JsonConfig.Read(path);
        foreach (var p in json.Element.EnumerateObject()) vocabulary.Add(p.Name, json.Id(p));
        var own = new Dictionary<string, int>(vocabulary.Ids, StringComparer.Ordinal);
        var merges = ReadMerges(folder.File_("merges.txt"));
        Splitter splitter = qwen ? new Cl100kSplitter(digits: 1) : new Gpt2Splitter();
        var prefix = folder.Flag("add_prefix_space") == true ? new SpaceBefore() : null;
        var engine = new ByteLevelEngine(path, own, merges, ignoreMerges: false, new SplitStage(splitter, prefix));
        var added = folder.AddedTokens(vocabulary, EndOfText);
        var usual = qwen ? ((string?)null, EndOfText, (string?)null) : (EndOfText, EndOfText, EndOfText);
        var specials = folder.Specials(vocabulary, added, usual, addBos: false, addEos: false);
        return new PipelineTokenizer(vocabulary, specials, added, new ChangeSequence(qwen ? [new UnicodeForm(compatibility: false, compose: true)] : []), engine, new ByteLevelDecoder(vocabulary));
    }

    /// <summary>Lines "a b", the most urgent first, after an optional line "#version: ...".</summary>
    private static List<(string Left, string Right)> ReadMerges(string path)
    {
        var bytes = ReadFailure.ReadAll(path, 1L << 30);
        if (!System.Text.Unicode.Utf8.IsValid(bytes)) throw new InvalidFileException(path, "is not valid UTF-8");
        var merges = new List<(string Left, string Right)>();
        var number = 0;
        // Not ReadLine: U+0085 and the like are line ends to nobody here.
        foreach (var raw in Encoding.UTF8.GetString(bytes).TrimStart('\uFEFF').Split('\n'))
        {
            number++;
            var line = raw.TrimEnd('\r');
            if (line.Length == 0 || (number == 1 && line.StartsWith("#version", StringComparison.Ordinal))) continue;
            var space = line.IndexOf(' ', StringComparison.Ordinal);
            if (space <= 0 || space == line.Length - 1 || line.IndexOf(' ', space + 1) >= 0)
                throw new InvalidFileException(path, $"line {number} is {Say.Quote(line)}, expected two tokens with a space between them");
            merges.Add((line[..space], line[(space + 1)..]));
        }

        return Merges.WithoutRepeats(merges);
    }

    private static PipelineTokenizer SentencePiece(TokenizerFolder folder, string name)
    {
        var model = SentencePieceModel.Read(folder.File_(name));
        if (folder.Class is not (null or "LlamaTokenizer" or "GemmaTokenizer" or "CodeLlamaTokenizer" or "T5Tokenizer"))
            throw new InvalidFileException(folder.Path, $"{name} belongs to the tokenizer class {Say.Quote(folder.Class)}; known are LlamaTokenizer, GemmaTokenizer and T5Tokenizer, and any class with a tokenizer.json");
        var vocabulary = new Vocabulary(model.Path);
        for (var id = 0; id < model.Pieces.Count; id++) vocabulary.Add(model.Pieces[id].Text, id);
        string? Named(int id) => id >= 0 && id < model.Pieces.Count ? model.Pieces[id].Text : null;
        var usual = (Bos: Named(model.BosId), Eos: Named(model.EosId), Unk: Named(model.UnkId));
        var prefixOnlyFirst = folder.Flag("legacy") == false;
        var added = folder.AddedTokens(vocabulary, usual.Bos, usual.Eos, usual.Unk, Named(model.PadId));
        // T5's class begins texts with nothing and ends them with </s>.
        var t5 = folder.Class == "T5Tokenizer" || (folder.Class is null && folder.ModelType == "t5");
        var specials = folder.Specials(vocabulary, added, usual, addBos: !t5, addEos: t5);
        var engine = SentencePieceEngines.Create(model, prefixOnlyFirst);
        var verbatim = added.Select(t => t.Id).ToHashSet();
        var decoder = new PieceDecoder(vocabulary, verbatim, stripLeadingSpace: model.AddDummyPrefix, wholeRuns: false);
        return new PipelineTokenizer(vocabulary, specials, added, new ChangeSequence([]), engine, decoder);
    }

    /// <summary>A token id as the value of an entry.</summary>
    internal static int Id(this JsonConfig vocabulary, System.Text.Json.JsonProperty entry) =>
        entry.Value.ValueKind == System.Text.Json.JsonValueKind.Number && entry.Value.TryGetInt32(out var id)
            ? id
            : throw vocabulary.Wrong(entry.Name, "is no token id, expected an integer");
}
