using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace IlgpuSae.Activations;

/// <summary>
/// Which tokens' activations are left out: none, all special tokens of the tokenizer, or given ids. SAELens'
/// <c>exclude_special_tokens</c>: false, true, or a list of ids.
/// </summary>
[JsonConverter(typeof(TokenExclusionConverter))]
public sealed class TokenExclusion : IEquatable<TokenExclusion>
{
    private TokenExclusion(bool special, IReadOnlyList<int> ids)
    {
        AllSpecial = special;
        Ids = ids;
    }

    /// <summary>Nothing is left out.</summary>
    public static TokenExclusion None { get; } = new(false, []);

    /// <summary>The tokenizer's special tokens are left out.</summary>
    public static TokenExclusion Special { get; } = new(true, []);

    /// <summary>Whether the tokenizer's special tokens are meant.</summary>
    public bool AllSpecial { get; }

    /// <summary>The ids, ascending; empty with <see cref="AllSpecial"/>.</summary>
    public IReadOnlyList<int> Ids { get; }

    /// <summary>Given ids are left out.</summary>
    /// <param name="ids">Token ids.</param>
    public static TokenExclusion Of(IEnumerable<int> ids) => new(false, [.. ids.Distinct().Order()]);

    /// <summary>Reads <c>false</c>, <c>true</c> or ids with commas between them.</summary>
    /// <param name="text">The text.</param>
    /// <exception cref="InvalidInputException">Neither.</exception>
    public static TokenExclusion Parse(string text)
    {
        var word = text.Trim();
        if (word is "false" or "none" or "") return None;
        if (word == "true") return Special;
        var ids = new List<int>();
        foreach (var part in word.Trim('[', ']').Split(',', StringSplitOptions.TrimEntries))
        {
            if (!int.TryParse(part, NumberStyles.None, CultureInfo.InvariantCulture, out var id))
                throw new InvalidInputException($"exclude_special_tokens: \"{text}\" is neither true, false nor token ids with commas between them (0,1,2)");
            ids.Add(id);
        }

        return Of(ids);
    }

    /// <inheritdoc/>
    public bool Equals(TokenExclusion? other) => other is not null && AllSpecial == other.AllSpecial && Ids.SequenceEqual(other.Ids);

    /// <inheritdoc/>
    public override bool Equals(object? obj) => Equals(obj as TokenExclusion);

    /// <inheritdoc/>
    public override int GetHashCode() => HashCode.Combine(AllSpecial, Ids.Count);

    /// <summary>As <see cref="Parse"/> reads it.</summary>
    public override string ToString() => AllSpecial ? "true" : Ids.Count == 0 ? "false" : string.Join(',', Ids);
}

internal sealed class TokenExclusionConverter : JsonConverter<TokenExclusion>
{
    public override bool HandleNull => true;

    public override TokenExclusion Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) => reader.TokenType switch
    {
        JsonTokenType.Null or JsonTokenType.False => TokenExclusion.None,
        JsonTokenType.True => TokenExclusion.Special,
        JsonTokenType.String => TokenExclusion.Parse(reader.GetString()!),
        _ => TokenExclusion.Of(JsonSerializer.Deserialize<int[]>(ref reader, options)!),
    };

    public override void Write(Utf8JsonWriter writer, TokenExclusion value, JsonSerializerOptions options)
    {
        if (value.Ids.Count == 0) writer.WriteBooleanValue(value.AllSpecial);
        else JsonSerializer.Serialize(writer, value.Ids, options);
    }
}
