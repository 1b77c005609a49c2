using System.Globalization;
using System.Text.Json;
using IlgpuSae.Files;

namespace IlgpuSae.Tokenizers;

/// <summary>
/// What the configuration files of a folder say about its tokenizer: tokenizer_config.json first, then
/// special_tokens_map.json, then the ids in config.json.
/// </summary>
internal sealed class TokenizerFolder
{
    private readonly JsonConfig? _tokenizer;
    private readonly JsonConfig? _special;
    private readonly JsonConfig? _model;

    /// <param name="path">The folder.</param>
    /// <exception cref="InvalidFileException">No such folder, or a damaged file in it.</exception>
    public TokenizerFolder(string path)
    {
        if (!Directory.Exists(path)) throw new InvalidFileException(path, File.Exists(path) ? "is a file, a folder with a tokenizer was expected" : "no such folder");
        Path = path;
        _tokenizer = ReadIfThere("tokenizer_config.json");
        _special = ReadIfThere("special_tokens_map.json");
        _model = ReadIfThere("config.json");
    }

    /// <summary>The folder.</summary>
    public string Path { get; }

    /// <summary>The Python class, without "Fast": <c>GPT2Tokenizer</c>, ...; null when no file says so.</summary>
    public string? Class => _tokenizer?.GetStringOrNull("tokenizer_class") is { } c ? (c.EndsWith("Fast", StringComparison.Ordinal) ? c[..^4] : c) : null;

    /// <summary>The model's type in config.json: <c>gpt2</c>, <c>llama</c>, ...; null when no file says so.</summary>
    public string? ModelType => _model?.GetStringOrNull("model_type");

    /// <summary>A setting of tokenizer_config.json; null when it is missing.</summary>
    public bool? Flag(string key) => _tokenizer?.Has(key) == true ? _tokenizer.GetBool(key) : null;

    /// <summary>Path of a file of the folder.</summary>
    public string File_(string name) => System.IO.Path.Combine(Path, name);

    /// <summary>Whether the folder has a file.</summary>
    public bool Has(string name) => File.Exists(File_(name));

    /// <summary>
    /// The special tokens by role. A role that tokenizer_config.json or special_tokens_map.json mentions (null
    /// included) is what they say; otherwise it is <paramref name="defaults"/>' token if the vocabulary has that,
    /// otherwise the id in config.json.
    /// </summary>
    /// <param name="vocabulary">The tokens.</param>
    /// <param name="added">Added tokens, whose special ones are special.</param>
    /// <param name="defaults">Spellings of bos, eos and unk that the tokenizer's class stands for.</param>
    /// <param name="addBos">Whether texts begin with BOS when no setting says so.</param>
    /// <param name="addEos">Whether texts end with EOS when no setting says so.</param>
    /// <exception cref="InvalidFileException">A named token is not in the vocabulary.</exception>
    public TokenizerSpecials Specials(Vocabulary vocabulary, IEnumerable<AddedToken> added, (string? Bos, string? Eos, string? Unk) defaults, bool addBos, bool addEos)
    {
        var bos = Role("bos_token", vocabulary, defaults.Bos);
        var eos = Role("eos_token", vocabulary, defaults.Eos);
        var unk = Role("unk_token", vocabulary, defaults.Unk);
        var pad = Role("pad_token", vocabulary, null);
        var sep = Role("sep_token", vocabulary, null);
        var all = added.Where(t => t.Special).Select(t => t.Id).Concat(new[] { bos, eos, unk, pad, sep }.OfType<int>()).ToHashSet();
        return new TokenizerSpecials
        {
            Bos = bos,
            Eos = eos,
            Unk = unk,
            Pad = pad,
            Sep = sep,
            AddBos = (Flag("add_bos_token") ?? addBos) && bos is not null,
            AddEos = (Flag("add_eos_token") ?? addEos) && eos is not null,
            All = all,
        };
    }

    /// <summary>
    /// Added tokens that the configuration files name: added_tokens.json, added_tokens_decoder, and the special tokens
    /// that are in the vocabulary already. Their ids enter the vocabulary.
    /// </summary>
    /// <param name="vocabulary">The tokens; receives new ones.</param>
    /// <param name="defaults">Spellings that are special by the tokenizer's class.</param>
    /// <exception cref="InvalidFileException">Damaged entries, or ids that contradict the vocabulary.</exception>
    public List<AddedToken> AddedTokens(Vocabulary vocabulary, params string?[] defaults)
    {
        var added = new Dictionary<string, AddedToken>(StringComparer.Ordinal);
        if (_tokenizer?.GetObjectOrNull("added_tokens_decoder") is { } decoder)
        {
            foreach (var key in decoder.Keys)
            {
                if (!int.TryParse(key, NumberStyles.None, CultureInfo.InvariantCulture, out var id)) throw decoder.Wrong(key, "is no token id");
                var token = Added(decoder.GetObject(key), id);
                added[token.Content] = token;
            }
        }

        if (ReadIfThere("added_tokens.json") is { } map)
            foreach (var key in map.Keys)
                if (!added.ContainsKey(key)) added[key] = new AddedToken(key, map.GetInt(key), Special: false);
        foreach (var t in added.Values) vocabulary.Add(t.Content, t.Id);

        var special = new[] { "bos_token", "eos_token", "unk_token", "pad_token", "sep_token" }.Select(r => Named(r, out _)).Concat(defaults).Concat(Additional());
        foreach (var content in special)
            if (content is not null && vocabulary.Id(content) is { } id && !added.ContainsKey(content)) added[content] = new AddedToken(content, id, Special: true);
        return [.. added.Values];
    }

    /// <summary>An added token as tokenizer.json and added_tokens_decoder write it.</summary>
    /// <param name="entry">The object.</param>
    /// <param name="id">Its id.</param>
    public static AddedToken Added(JsonConfig entry, int id) => new(
        entry.GetString("content"),
        id,
        Special: entry.GetBool("special", false),
        Normalized: entry.GetBool("normalized", false),
        LeftStrip: entry.GetBool("lstrip", false),
        RightStrip: entry.GetBool("rstrip", false),
        SingleWord: entry.GetBool("single_word", false));

    /// <summary>The chat template: a file of its own, else the setting, which is one template or a list of named ones, of which "default" counts.</summary>
    /// <exception cref="InvalidFileException">It cannot be followed.</exception>
    public ChatTemplate? ChatTemplate()
    {
        var tokens = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var role in (string[])["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"])
            if (Named(role, out _) is { } token) tokens[role] = token;
        var (path, source) = (File_("chat_template.jinja"), (string?)null);
        if (Has("chat_template.jinja"))
        {
            source = System.Text.Encoding.UTF8.GetString(ReadFailure.ReadAll(path, 16L << 20)).TrimStart('\uFEFF');
        }
        else if (_tokenizer?.TryGet("chat_template", out var value) == true)
        {
            path = File_("tokenizer_config.json");
            source = value.ValueKind switch
            {
                JsonValueKind.String => value.GetString(),
                JsonValueKind.Array => value.EnumerateArray().Where(t => t.ValueKind == JsonValueKind.Object && t.TryGetProperty("name", out var n) && n.ValueKind == JsonValueKind.String && n.GetString() == "default")
                    .Select(t => t.TryGetProperty("template", out var s) && s.ValueKind == JsonValueKind.String ? s.GetString() : null).FirstOrDefault(),
                _ => null,
            } ?? throw _tokenizer.Wrong("chat_template", "is neither a template nor a list of named ones with a \"default\"");
        }

        if (source is null) return null;
        try
        {
            return Tokenizers.ChatTemplate.Parse(source, tokens, $"{path}: chat template");
        }
        catch (InvalidInputException e) when (e is not InvalidFileException)
        {
            throw new InvalidFileException(path, e.Message[(path.Length + 2)..], e);
        }
    }

    private JsonConfig? ReadIfThere(string name) => Has(name) ? JsonConfig.Read(File_(name)) : null;

    private IEnumerable<string?> Additional()
    {
        var source = _tokenizer?.Has("additional_special_tokens") == true ? _tokenizer : _special;
        if (source is null || !source.TryGet("additional_special_tokens", out var list) || list.ValueKind != JsonValueKind.Array) return [];
        return list.EnumerateArray().Select(Content);
    }

    /// <summary>The spelling of a role's token: a string or an object with "content".</summary>
    private string? Named(string role, out JsonConfig? where)
    {
        where = new[] { _tokenizer, _special }.FirstOrDefault(f => f?.Element.TryGetProperty(role, out _) == true);
        if (where is null) return null;
        var value = where.Element.GetProperty(role);
        return value.ValueKind == JsonValueKind.Null ? null : Content(value) ?? throw where.Wrong(role, "is neither a string nor an object with the string \"content\"");
    }

    private static string? Content(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.String => value.GetString(),
        JsonValueKind.Object when value.TryGetProperty("content", out var c) && c.ValueKind == JsonValueKind.String => c.GetString(),
        _ => null,
    };

    private int? Role(string role, Vocabulary vocabulary, string? fallback)
    {
        var named = Named(role, out var where);
        if (where is not null)
        {
            if (named is null) return null;
            // Hugging Face would give a missing padding token a new id beyond the model's vocabulary; nothing here pads with it.
            return vocabulary.Id(named) ?? (role is "pad_token" or "sep_token" ? null : throw where.Wrong(role, $"is {Say.Quote(named)}, which the vocabulary lacks"));
        }

        if (fallback is not null && vocabulary.Id(fallback) is { } usual) return usual;
        if (_model is null || !_model.TryGet(role + "_id", out var id)) return null;
        if (id.ValueKind == JsonValueKind.Array) id = id.EnumerateArray().FirstOrDefault();
        if (id.ValueKind != JsonValueKind.Number || !id.TryGetInt32(out var n)) throw _model.Wrong(role + "_id", "is no token id");
        return vocabulary.Piece(n) is null ? null : n;
    }
}
