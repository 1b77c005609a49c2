using System.Collections;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace IlgpuSae.Saes;

/// <summary>
/// Widths in order, equal by content. JSON holds an array; a text such as <c>256,1024</c> is read as well, which is how a
/// command line gives them.
/// </summary>
[JsonConverter(typeof(WidthListConverter))]
public sealed class WidthList : IReadOnlyList<int>, IEquatable<WidthList>
{
    private readonly int[] _widths;

    /// <summary>A list of the given widths.</summary>
    /// <param name="widths">Copied.</param>
    public WidthList(params ReadOnlySpan<int> widths) => _widths = widths.ToArray();

    /// <inheritdoc/>
    public int Count => _widths.Length;

    /// <inheritdoc/>
    public int this[int index] => _widths[index];

    /// <inheritdoc/>
    public IEnumerator<int> GetEnumerator() => ((IEnumerable<int>)_widths).GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    /// <inheritdoc/>
    public bool Equals(WidthList? other) => other is not null && _widths.AsSpan().SequenceEqual(other._widths);

    /// <inheritdoc/>
    public override bool Equals(object? obj) => Equals(obj as WidthList);

    /// <inheritdoc/>
    public override int GetHashCode()
    {
        var hash = default(HashCode);
        foreach (var w in _widths) hash.Add(w);
        return hash.ToHashCode();
    }

    /// <inheritdoc/>
    public override string ToString() => string.Join(',', _widths.Select(w => w.ToString(CultureInfo.InvariantCulture)));
}

internal sealed class WidthListConverter : JsonConverter<WidthList>
{
    public override WidthList Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        if (reader.TokenType == JsonTokenType.String)
        {
            var widths = new List<int>();
            foreach (var part in reader.GetString()!.Split(',', StringSplitOptions.TrimEntries))
            {
                if (!int.TryParse(part, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var width))
                    throw new JsonException($"\"{part}\" is no width");
                widths.Add(width);
            }

            return new WidthList([.. widths]);
        }

        return new WidthList(JsonSerializer.Deserialize<int[]>(ref reader, options) ?? []);
    }

    public override void Write(Utf8JsonWriter writer, WidthList value, JsonSerializerOptions options) =>
        JsonSerializer.Serialize(writer, value.ToArray(), options);
}
