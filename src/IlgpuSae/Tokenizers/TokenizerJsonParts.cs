using System.Text.Json;
using IlgpuSae.Files;

namespace IlgpuSae.Tokenizers;

/// <summary>The small parts of tokenizer.json: normalizers, splitting stages, templates. What is not known is refused by name.</summary>
internal static class TokenizerJsonParts
{
    /// <summary>The members of a part: none for null, those of a Sequence (nested ones in place), or the part itself.</summary>
    /// <param name="owner">The object that has the part.</param>
    /// <param name="key">The part's key.</param>
    /// <param name="list">The key of a Sequence's members.</param>
    public static List<JsonConfig> Flatten(JsonConfig owner, string key, string list)
    {
        var parts = new List<JsonConfig>();
        if (owner.GetObjectOrNull(key) is { } part) Add(part);
        return parts;

        void Add(JsonConfig p)
        {
            if (p.GetString("type") != "Sequence")
            {
                parts.Add(p);
                return;
            }

            if (!p.TryGet(list, out var members) || members.ValueKind != JsonValueKind.Array) throw p.Wrong(list, "is no list");
            foreach (var m in members.EnumerateArray())
                Add(m.ValueKind == JsonValueKind.Object ? p.Entry(list, m) : throw p.Wrong(list, "holds something that is no object"));
        }
    }

    /// <summary>The normalizer's steps.</summary>
    public static ChangeSequence Normalizer(JsonConfig owner, string key)
    {
        return new ChangeSequence([.. Flatten(owner, key, "normalizers").SelectMany(Steps)]);

        static IEnumerable<TextChange> Steps(JsonConfig part) => part.GetString("type") switch
        {
            "NFC" => [new UnicodeForm(compatibility: false, compose: true)],
            "NFD" => [new UnicodeForm(compatibility: false, compose: false)],
            "NFKC" => [new UnicodeForm(compatibility: true, compose: true)],
            "NFKD" => [new UnicodeForm(compatibility: true, compose: false)],
            "Lowercase" => [new Lowercase()],
            "StripAccents" => [new StripAccents()],
            "Strip" => [new StripSpace(part.GetBool("strip_left", true), part.GetBool("strip_right", true))],
            "Prepend" => [new PrependText(part.GetString("prepend"))],
            "Replace" => [Replacement(part)],
            "Nmt" => [new NmtCharacters()],
            "Precompiled" => Precompiled(part),
            "BertNormalizer" => Bert(part),
            var type => throw part.Wrong("type", $"is the normalizer {Say.Quote(type)}; known are NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, Prepend, Replace, Nmt, Precompiled, BertNormalizer and Sequence"),
        };
    }

    /// <summary>What a Replace decoder puts in place of what.</summary>
    public static (string Pattern, string Content) ReplacePattern(JsonConfig part)
    {
        var pattern = part.GetObject("pattern").GetStringOrNull("String");
        if (string.IsNullOrEmpty(pattern)) throw part.Wrong("pattern", "is a regular expression or empty, only literal strings are known in a decoder");
        return (pattern, part.GetString("content"));
    }

    /// <summary>A stage of the pre-tokenizer.</summary>
    public static SplitStage Stage(JsonConfig stage) => stage.GetString("type") switch
    {
        "ByteLevel" => new(stage.GetBool("use_regex", true) ? new Gpt2Splitter() : new NoSplitter(), stage.GetBool("add_prefix_space", true) ? new SpaceBefore() : null),
        "Digits" => new(new DigitSplitter(stage.GetBool("individual_digits", false))),
        "Split" => new(SplitOf(stage)),
        "Metaspace" => Metaspace(stage),
        "Whitespace" => new(new MatchSplitter(Regex(stage, @"\w+|[^\w\s]+", "type"), MatchBehavior.Removed, invert: true)),
        "WhitespaceSplit" => new(new MatchSplitter(NamedPatterns.WhiteSpace, MatchBehavior.Removed)),
        "Punctuation" => new(new MatchSplitter(NamedPatterns.Punctuation, Behavior(stage, "Isolated"))),
        "BertPreTokenizer" => new(new BertSplitter()),
        var type => throw stage.Wrong("type", $"is the pre-tokenizer {Say.Quote(type)}; known are ByteLevel, Split, Digits, Metaspace, Whitespace, WhitespaceSplit, Punctuation, BertPreTokenizer and Sequence"),
    };

    private static Splitter SplitOf(JsonConfig stage)
    {
        var pattern = stage.GetObject("pattern");
        var behavior = Behavior(stage, null);
        var invert = stage.GetBool("invert", false);
        if (pattern.GetStringOrNull("String") is { Length: > 0 } literal) return new MatchSplitter(NamedPatterns.Literal(literal), behavior, invert);
        var regex = pattern.GetStringOrNull("Regex") ?? throw stage.Wrong("pattern", "is neither a String nor a Regex");
        // Patterns that match every character: what lies between matches is nothing, so Removed when inverted is Isolated.
        var isolated = (behavior, invert) is (MatchBehavior.Isolated, false) or (MatchBehavior.Removed, true);
        return regex switch
        {
            Gpt2Splitter.Pattern when isolated => new Gpt2Splitter(),
            Cl100kSplitter.Pattern3 when isolated => new Cl100kSplitter(3),
            Cl100kSplitter.Pattern1 when isolated => new Cl100kSplitter(1),
            _ => new MatchSplitter(Regex(stage, regex, "pattern"), behavior, invert),
        };
    }

    private static MatchBehavior Behavior(JsonConfig stage, string? missing)
    {
        var name = stage.GetStringOrNull("behavior") ?? missing ?? stage.GetString("behavior");
        return Enum.TryParse<MatchBehavior>(name, out var behavior) && behavior.ToString() == name
            ? behavior
            : throw stage.Wrong("behavior", $"is {Say.Quote(name)}; known are {string.Join(", ", Enum.GetNames<MatchBehavior>())}");
    }

    private static MatchFinder Regex(JsonConfig part, string pattern, string key) => Compile(part, pattern, key).Matches;

    private static CodePointRegex Compile(JsonConfig part, string pattern, string key)
    {
        try
        {
            return new CodePointRegex(pattern);
        }
        catch (ArgumentException e)
        {
            throw part.Wrong(key, $"is {Say.Quote(pattern)}, which cannot be followed: it {AtomicFile.OneLine(e.Message)}");
        }
    }

    private static ReplaceText Replacement(JsonConfig part)
    {
        var pattern = part.GetObject("pattern");
        var content = part.GetString("content");
        if (pattern.GetStringOrNull("String") is { Length: > 0 } literal) return new ReplaceText(literal, content);
        if (pattern.GetStringOrNull("Regex") is not { Length: > 0 } regex) throw part.Wrong("pattern", "is neither a String nor a Regex, or empty");
        return new ReplaceText(Compile(part, regex, "pattern"), content);
    }

    private static TextChange[] Precompiled(JsonConfig part)
    {
        // Without rules the part says nothing.
        if (part.GetStringOrNull("precompiled_charsmap") is not { Length: > 0 } rules) return [];
        try
        {
            return [new PrecompiledRules(new CharacterMap(Convert.FromBase64String(rules)))];
        }
        catch (Exception e) when (e is FormatException or ArgumentException)
        {
            throw part.Wrong("precompiled_charsmap", $"is no map of characters: {AtomicFile.OneLine(e.Message)}");
        }
    }

    private static List<TextChange> Bert(JsonConfig part)
    {
        var lowercase = part.GetBool("lowercase", true);
        var steps = new List<TextChange> { new BertCharacters(part.GetBool("clean_text", true), part.GetBool("handle_chinese_chars", true)) };
        if (part.GetBool("strip_accents", lowercase)) steps.AddRange([new UnicodeForm(compatibility: false, compose: false), new StripAccents()]);
        if (lowercase) steps.Add(new Lowercase());
        return steps;
    }

    /// <summary>Metaspace: spaces become ▁, one is put in front, and words begin at it.</summary>
    private static SplitStage Metaspace(JsonConfig stage)
    {
        if (stage.GetStringOrNull("replacement") is not (null or "▁")) throw stage.Wrong("replacement", "is not ▁, which is all that is known");
        var scheme = PrependScheme(stage);
        return new(stage.GetBool("split", true) ? new MetaspaceSplitter() : new NoSplitter(), new MetaspaceBefore(scheme == "always", scheme == "first"));
    }

    /// <summary>Where Metaspace puts a ▁ in front: always, first or never.</summary>
    public static string PrependScheme(JsonConfig stage)
    {
        var scheme = stage.GetStringOrNull("prepend_scheme") ?? "always";
        if (!stage.GetBool("add_prefix_space", true)) scheme = "never"; // the older spelling
        return scheme is "always" or "first" or "never" ? scheme : throw stage.Wrong("prepend_scheme", $"is {Say.Quote(scheme)}, known are always, first and never");
    }

    /// <summary>The tokens that the post-processor puts before and after a single text.</summary>
    public static (string? Prefix, string? Suffix) Template(JsonConfig owner)
    {
        string? prefix = null, suffix = null;
        foreach (var part in Flatten(owner, "post_processor", "processors"))
        {
            var type = part.GetString("type");
            if (type == "ByteLevel") continue; // moves offsets, not ids
            if (type is "BertProcessing" or "RobertaProcessing")
            {
                (prefix, suffix) = (First(part, "cls"), First(part, "sep"));
                continue;
            }

            if (type != "TemplateProcessing") throw part.Wrong("type", $"is the post-processor {Say.Quote(type)}; known are ByteLevel, TemplateProcessing, BertProcessing, RobertaProcessing and Sequence");
            if (!part.TryGet("single", out var single) || single.ValueKind != JsonValueKind.Array) throw part.Wrong("single", "is no list");
            var seenText = false;
            foreach (var item in single.EnumerateArray())
            {
                if (item.ValueKind == JsonValueKind.Object && item.TryGetProperty("Sequence", out _) && !seenText)
                {
                    seenText = true;
                    continue;
                }

                var entry = item.ValueKind == JsonValueKind.Object ? part.Entry("single", item).GetObjectOrNull("SpecialToken") : null;
                if (entry is null || (seenText ? suffix : prefix) is not null) throw part.Wrong("single", "is not of the form [one token] text [one token], which is all that is known");
                if (seenText) suffix = entry.GetString("id");
                else prefix = entry.GetString("id");
            }

            if (!seenText) throw part.Wrong("single", "has no text");
        }

        return (prefix, suffix);
    }

    private static string First(JsonConfig part, string key) =>
        part.TryGet(key, out var pair) && pair.ValueKind == JsonValueKind.Array && pair.GetArrayLength() == 2 && pair[0].ValueKind == JsonValueKind.String
            ? pair[0].GetString()!
            : throw part.Wrong(key, "is not of the form [\"token\", id]");
}
