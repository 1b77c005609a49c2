using System.Collections;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;

namespace IlgpuSae.Saes;

/// <summary>
/// Free notes that travel with an SAE (<c>model_name</c>, <c>hook_name</c>, <c>context_size</c>, <c>prepend_bos</c>, ...):
/// SAELens' <c>metadata</c> object. An absent key reads as null. Order is kept; equality is by content. Immutable.
/// </summary>
[JsonConverter(typeof(SaeMetadataConverter))]
public sealed class SaeMetadata : IEnumerable<KeyValuePair<string, JsonNode?>>, IEquatable<SaeMetadata>
{
    /// <summary>Version of SAELens' file format that is written: without it SAELens takes a folder for an old one.</summary>
    public const string FormatVersion = "6.18.0";

    private readonly JsonObject _values;

    /// <summary>The versions alone.</summary>
    public SaeMetadata()
        : this(new JsonObject { ["sae_lens_version"] = FormatVersion, ["sae_lens_training_version"] = FormatVersion })
    {
    }

    /// <summary>Takes a JSON object over as it is.</summary>
    /// <param name="values">Copied.</param>
    public SaeMetadata(JsonObject values) => _values = (JsonObject)values.DeepClone();

    /// <summary>A value; null if it is absent or null.</summary>
    /// <param name="key">Its name.</param>
    public JsonNode? this[string key] => _values[key]?.DeepClone();

    /// <summary>Whether the key was set, to null included.</summary>
    /// <param name="key">Its name.</param>
    public bool Contains(string key) => _values.ContainsKey(key);

    /// <summary>A value of a known type.</summary>
    /// <typeparam name="T">A type JSON values convert to: string, int, bool, double.</typeparam>
    /// <param name="key">Its name.</param>
    /// <param name="fallback">What an absent or null value, or one of another type, reads as.</param>
    public T? Get<T>(string key, T? fallback = default) =>
        _values[key] is JsonValue v && v.TryGetValue<T>(out var value) ? value : fallback;

    /// <summary>The same notes with one more, or with another value.</summary>
    /// <param name="key">Its name.</param>
    /// <param name="value">Its value; null is kept as null.</param>
    public SaeMetadata With(string key, JsonNode? value)
    {
        var copy = new SaeMetadata(_values);
        copy._values[key] = value?.DeepClone();
        return copy;
    }

    /// <summary>A copy as a JSON object.</summary>
    public JsonObject ToJson() => (JsonObject)_values.DeepClone();

    /// <inheritdoc/>
    public IEnumerator<KeyValuePair<string, JsonNode?>> GetEnumerator() => ToJson().GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    /// <inheritdoc/>
    public bool Equals(SaeMetadata? other) => other is not null && JsonNode.DeepEquals(_values, other._values);

    /// <inheritdoc/>
    public override bool Equals(object? obj) => Equals(obj as SaeMetadata);

    /// <inheritdoc/>
    public override int GetHashCode() => _values.Count;
}

internal sealed class SaeMetadataConverter : JsonConverter<SaeMetadata>
{
    public override SaeMetadata Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
        JsonNode.Parse(ref reader) is JsonObject o ? new SaeMetadata(o) : throw new JsonException("metadata is not an object");

    public override void Write(Utf8JsonWriter writer, SaeMetadata value, JsonSerializerOptions options) =>
        value.ToJson().WriteTo(writer, options);
}
