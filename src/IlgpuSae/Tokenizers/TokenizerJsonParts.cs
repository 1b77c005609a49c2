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

    /// <summary>The normalizer as a function; null when there is none.</summary>
    public static Func<string, string>? Normalizer(JsonConfig owner, string key)
    {
        var steps = Flatten(owner, key, "normalizers").Select(Step).ToArray();
        return steps.Length == 0 ? null : text => steps.Aggregate(text, (t, step) => step(t));

        static Func<string, string> Step(JsonConfig part)
        {
            switch (part.GetString("type"))
            {
                case "NFC": return UnicodeNormalizer.Nfc;
                case "NFD": return UnicodeNormalizer.Nfd;
                case "NFKC": return UnicodeNormalizer.Nfkc;
                case "NFKD": return UnicodeNormalizer.Nfkd;
                case "Prepend":
                    var prefix = part.GetString("prepend");
                    return text => text.Length == 0 ? text : prefix + text;
                case "Replace":
                    var (pattern, content) = ReplacePattern(part);
                    return text => text.Replace(pattern, content, StringComparison.Ordinal);
                default:
                    throw part.Wrong("type", $"is the normalizer {Say.Quote(part.GetString("type"))}; known are NFC, NFD, NFKC, NFKD, Prepend, Replace and Sequence");
            }
        }
    }

    /// <summary>What a Replace part puts in place of what.</summary>
    public static (string Pattern, string Content) ReplacePattern(JsonConfig part)
    {
        var pattern = part.GetObject("pattern").GetStringOrNull("String");
        if (string.IsNullOrEmpty(pattern)) throw part.Wrong("pattern", "is a regular expression or empty, only literal strings are known");
        return (pattern, part.GetString("content"));
    }

    /// <summary>The splitter of a stage before ByteLevel.</summary>
    public static Splitter Splitter(JsonConfig stage)
    {
        switch (stage.GetString("type"))
        {
            case "Digits":
                return new DigitSplitter(stage.GetBool("individual_digits", false));
            case "Split":
                var pattern = SplitPattern(stage, "Regex");
                if (stage.GetString("behavior") != "Isolated") throw stage.Wrong("behavior", $"is {Say.Quote(stage.GetString("behavior"))}, only Isolated is known");
                return pattern switch
                {
                    Gpt2Splitter.Pattern => new Gpt2Splitter(),
                    Cl100kSplitter.Pattern3 => new Cl100kSplitter(3),
                    Cl100kSplitter.Pattern1 => new Cl100kSplitter(1),
                    _ => throw stage.Wrong("pattern", $"is {Say.Quote(pattern)}; known are the patterns of GPT-2, Llama 3 and Qwen2"),
                };
            default:
                throw stage.Wrong("type", $"is the pre-tokenizer {Say.Quote(stage.GetString("type"))}; known are ByteLevel, Split, Digits, Metaspace and Sequence");
        }
    }

    /// <summary>The pattern of a Split stage, which must be of the given form.</summary>
    public static string SplitPattern(JsonConfig stage, string form)
    {
        if (stage.GetString("type") != "Split") throw stage.Wrong("type", $"is the pre-tokenizer {Say.Quote(stage.GetString("type"))}; known are ByteLevel, Split, Digits, Metaspace and Sequence");
        if (stage.GetBool("invert", false)) throw stage.Wrong("invert", "is set, which is not known");
        return stage.GetObject("pattern").GetStringOrNull(form) ?? throw stage.Wrong("pattern", $"is no {form}, which is all that is known here");
    }

    /// <summary>Metaspace: spaces become ▁, one is put in front, and words begin at it.</summary>
    public static (Splitter Splitter, Func<string, bool, string> Prepare) Metaspace(JsonConfig stage)
    {
        if (stage.GetStringOrNull("replacement") is not (null or "▁")) throw stage.Wrong("replacement", "is not ▁, which is all that is known");
        var scheme = stage.GetStringOrNull("prepend_scheme") ?? (stage.GetBool("add_prefix_space", true) ? "always" : "never");
        if (scheme is not ("always" or "first" or "never")) throw stage.Wrong("prepend_scheme", $"is {Say.Quote(scheme)}, known are always, first and never");
        string Prepare(string text, bool first)
        {
            var t = text.Replace(' ', '▁');
            return (scheme == "always" || (scheme == "first" && first)) && t[0] != '▁' ? '▁' + t : t;
        }

        return (stage.GetBool("split", true) ? new MetaspaceSplitter() : new NoSplitter(), Prepare);
    }

    /// <summary>The tokens that the post-processor puts before and after a single text.</summary>
    public static (string? Prefix, string? Suffix) Template(JsonConfig owner)
    {
        string? prefix = null, suffix = null;
        foreach (var part in Flatten(owner, "post_processor", "processors"))
        {
            var type = part.GetString("type");
            if (type == "ByteLevel") continue; // moves offsets, not ids
            if (type != "TemplateProcessing") throw part.Wrong("type", $"is the post-processor {Say.Quote(type)}; known are ByteLevel, TemplateProcessing and Sequence");
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
}
