using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace IlgpuSae.Activations;

/// <summary>
/// Which positions of a context are used, as a Python slice <c>[start:stop:step]</c>: ends may be left out and may be
/// negative (counted from the end). SAELens' <c>seqpos_slice</c>; a step of 1 is accepted.
/// </summary>
/// <param name="Start">First position; null: the first.</param>
/// <param name="Stop">Position after the last; null: the end.</param>
/// <param name="Step">Distance, at least 1.</param>
[JsonConverter(typeof(PositionSliceConverter))]
public sealed record PositionSlice(int? Start = null, int? Stop = null, int Step = 1)
{
    /// <summary>Every position.</summary>
    public static PositionSlice All { get; } = new();

    /// <summary>Reads <c>START:STOP</c>, <c>START:STOP:STEP</c> or <c>STOP</c>; any part may be empty.</summary>
    /// <param name="text">For example <c>1:</c> (all but the first), <c>0:128:2</c>, <c>-8:</c>.</param>
    /// <exception cref="InvalidInputException">Not a slice.</exception>
    public static PositionSlice Parse(string text)
    {
        var parts = text.Split(':');
        if (parts.Length > 3) throw Bad(text);
        var numbers = new int?[parts.Length];
        for (var i = 0; i < parts.Length; i++)
        {
            if (parts[i].Trim() is "" or "null" or "None") continue;
            if (!int.TryParse(parts[i], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var n)) throw Bad(text);
            numbers[i] = n;
        }

        var slice = FromArguments(numbers);
        return slice ?? throw Bad(text);
    }

    /// <summary>Python's <c>slice(*arguments)</c>: one number is the stop, two are start and stop.</summary>
    /// <param name="arguments">One to three numbers, null for absent ones.</param>
    /// <returns>The slice; null if there are not one to three or the step is below 1.</returns>
    public static PositionSlice? FromArguments(IReadOnlyList<int?> arguments)
    {
        var slice = arguments.Count switch
        {
            1 => new PositionSlice(null, arguments[0]),
            2 => new PositionSlice(arguments[0], arguments[1]),
            3 => new PositionSlice(arguments[0], arguments[1], arguments[2] ?? 1),
            _ => null,
        };
        return slice is { Step: >= 1 } ? slice : null;
    }

    /// <summary>As Python's arguments: what configuration files hold.</summary>
    public int?[] ToArguments() => Step == 1 ? Start is null ? [Stop] : [Start, Stop] : [Start, Stop, Step];

    /// <summary>The chosen positions of a context, ascending.</summary>
    /// <param name="contextSize">Tokens in the context.</param>
    /// <exception cref="InvalidInputException">None is chosen.</exception>
    public int[] Positions(int contextSize)
    {
        var start = Clip(Start ?? 0, contextSize);
        var stop = Clip(Stop ?? contextSize, contextSize);
        var positions = new List<int>();
        for (var i = start; i < stop; i += Step) positions.Add(i);
        if (positions.Count == 0)
            throw new InvalidInputException($"seqpos_slice: {this} leaves no position of a context of {contextSize} tokens");
        return [.. positions];
    }

    /// <summary>As <c>1:</c> or <c>0:128:2</c>.</summary>
    public override string ToString()
    {
        static string Part(int? n) => n?.ToString(CultureInfo.InvariantCulture) ?? "";
        return $"{Part(Start)}:{Part(Stop)}" + (Step == 1 ? "" : ":" + Part(Step));
    }

    private static int Clip(int index, int size) => Math.Clamp(index < 0 ? index + size : index, 0, size);

    private static InvalidInputException Bad(string text) =>
        new($"seqpos_slice: \"{text}\" is not START:STOP or START:STOP:STEP with a step of at least 1 (for example 1: or 0:128:2)");
}

/// <summary>As SAELens' configuration holds it: the slice's arguments as a list; a text is read as well.</summary>
internal sealed class PositionSliceConverter : JsonConverter<PositionSlice>
{
    public override PositionSlice Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        if (reader.TokenType == JsonTokenType.String) return PositionSlice.Parse(reader.GetString()!);
        return PositionSlice.FromArguments(JsonSerializer.Deserialize<int?[]>(ref reader, options)!)
            ?? throw new JsonException("not a slice");
    }

    public override void Write(Utf8JsonWriter writer, PositionSlice value, JsonSerializerOptions options) =>
        JsonSerializer.Serialize(writer, value.ToArguments(), options);
}
