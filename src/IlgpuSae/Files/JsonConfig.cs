using System.Globalization;
using System.Text.Json;
using System.Text.Unicode;

namespace IlgpuSae.Files;

/// <summary>
/// A JSON object from a file (config.json, cfg.json, ...) whose values are asked for by key and type. A missing key or
/// a wrong type is an error that names file, line, key, the expected type and what was found. A value of null counts
/// as missing, as in the Python programs that write these files.
/// </summary>
public sealed class JsonConfig
{
    private const long MaxBytes = 1L << 30;
    private readonly byte[] _json;
    private readonly JsonElement _object;
    private readonly string[] _keys;

    private JsonConfig(string path, byte[] json, JsonElement element, string[] keys)
    {
        Path = path;
        _json = json;
        _object = element;
        _keys = keys;
    }

    /// <summary>The file, as the user named it.</summary>
    public string Path { get; }

    /// <summary>The object itself, for values of unusual form.</summary>
    public JsonElement Element => _object;

    /// <summary>All keys, in the file's order.</summary>
    public IEnumerable<string> Keys => _object.EnumerateObject().Select(p => p.Name);

    /// <summary>Reads a file that holds one JSON object.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="InvalidFileException">Missing, unreadable, not JSON, not an object, or a key occurs twice.</exception>
    public static JsonConfig Read(string path) => Parse(path, ReadFailure.ReadAll(path, MaxBytes));

    /// <summary>Takes JSON that is already in memory.</summary>
    /// <param name="path">Where it came from, for messages.</param>
    /// <param name="json">UTF-8, a byte-order mark is skipped.</param>
    /// <exception cref="InvalidFileException">Not JSON, not an object, or a key occurs twice.</exception>
    public static JsonConfig Parse(string path, byte[] json)
    {
        ArgumentNullException.ThrowIfNull(json);
        if (json is [0xEF, 0xBB, 0xBF, ..]) json = json[3..];
        if (!Utf8.IsValid(json)) throw new InvalidFileException(path, "is not valid UTF-8");
        try
        {
            CheckEscapes(json);
            using var document = JsonDocument.Parse(json, new JsonDocumentOptions { AllowDuplicateProperties = false });
            var root = document.RootElement;
            return root.ValueKind == JsonValueKind.Object
                ? new JsonConfig(path, json, root.Clone(), [])
                : throw new InvalidFileException(path, $"holds {Kind(root)}, expected a JSON object");
        }
        catch (JsonException e)
        {
            var line = e.LineNumber is { } n ? string.Create(CultureInfo.InvariantCulture, $" at line {n + 1}") : "";
            throw new InvalidFileException(path, $"is not valid JSON{line}: {Reason(e)}", e);
        }
        catch (InvalidOperationException e)
        {
            throw new InvalidFileException(path, "holds an escaped lone surrogate, which is no valid Unicode text", e);
        }
    }

    /// <summary>Whether a key exists and is not null.</summary>
    /// <param name="key">The key.</param>
    public bool Has(string key) => TryGet(key, out _);

    /// <summary>The value of a key, of any type.</summary>
    /// <param name="key">The key.</param>
    /// <param name="value">The value.</param>
    /// <returns>False when the key is missing or null.</returns>
    public bool TryGet(string key, out JsonElement value) =>
        _object.TryGetProperty(key, out value) && value.ValueKind != JsonValueKind.Null;

    /// <summary>An integer of 32 bits.</summary>
    /// <param name="key">The key.</param>
    /// <exception cref="InvalidFileException">Missing or of another type.</exception>
    public int GetInt(string key) => Get(key, "an integer", AsInt);

    /// <summary>An integer of 32 bits, or a default.</summary>
    /// <param name="key">The key.</param>
    /// <param name="missing">What a missing key means.</param>
    /// <exception cref="InvalidFileException">Of another type.</exception>
    public int GetInt(string key, int missing) => Has(key) ? GetInt(key) : missing;

    /// <summary>An integer of 64 bits.</summary>
    /// <param name="key">The key.</param>
    /// <exception cref="InvalidFileException">Missing or of another type.</exception>
    public long GetLong(string key) => Get(key, "an integer", static v => v.ValueKind == JsonValueKind.Number && v.TryGetInt64(out var n) ? n : (long?)null);

    /// <summary>An integer of 64 bits, or a default.</summary>
    /// <param name="key">The key.</param>
    /// <param name="missing">What a missing key means.</param>
    /// <exception cref="InvalidFileException">Of another type.</exception>
    public long GetLong(string key, long missing) => Has(key) ? GetLong(key) : missing;

    /// <summary>A number.</summary>
    /// <param name="key">The key.</param>
    /// <exception cref="InvalidFileException">Missing or of another type.</exception>
    public double GetDouble(string key) => Get(key, "a number", static v =>
        v.ValueKind == JsonValueKind.Number && v.TryGetDouble(out var n) && double.IsFinite(n) ? n : (double?)null);

    /// <summary>A number, or a default.</summary>
    /// <param name="key">The key.</param>
    /// <param name="missing">What a missing key means.</param>
    /// <exception cref="InvalidFileException">Of another type.</exception>
    public double GetDouble(string key, double missing) => Has(key) ? GetDouble(key) : missing;

    /// <summary>True or false.</summary>
    /// <param name="key">The key.</param>
    /// <exception cref="InvalidFileException">Missing or of another type.</exception>
    public bool GetBool(string key) => Get(key, "true or false", static v => v.ValueKind is JsonValueKind.True or JsonValueKind.False ? v.GetBoolean() : (bool?)null);

    /// <summary>True or false, or a default.</summary>
    /// <param name="key">The key.</param>
    /// <param name="missing">What a missing key means.</param>
    /// <exception cref="InvalidFileException">Of another type.</exception>
    public bool GetBool(string key, bool missing) => Has(key) ? GetBool(key) : missing;

    /// <summary>A string.</summary>
    /// <param name="key">The key.</param>
    /// <exception cref="InvalidFileException">Missing or of another type.</exception>
    public string GetString(string key) => Text(key, Required(key));

    /// <summary>A string, or null when the key is missing.</summary>
    /// <param name="key">The key.</param>
    /// <exception cref="InvalidFileException">Of another type.</exception>
    public string? GetStringOrNull(string key) => TryGet(key, out var v) ? Text(key, v) : null;

    /// <summary>A list of integers.</summary>
    /// <param name="key">The key.</param>
    /// <exception cref="InvalidFileException">Missing or of another type.</exception>
    public int[] GetInts(string key)
    {
        var value = Required(key);
        return List(key, value, "a list of integers").Select(v => AsInt(v) ?? throw Mismatch(key, "a list of integers", v)).ToArray();
    }

    /// <summary>A list of strings.</summary>
    /// <param name="key">The key.</param>
    /// <exception cref="InvalidFileException">Missing or of another type.</exception>
    public string[] GetStrings(string key)
    {
        var value = Required(key);
        return List(key, value, "a list of strings").Select(v => v.ValueKind == JsonValueKind.String ? Text(key, v) : throw Mismatch(key, "a list of strings", v)).ToArray();
    }

    /// <summary>An object within this one.</summary>
    /// <param name="key">The key.</param>
    /// <exception cref="InvalidFileException">Missing or of another type.</exception>
    public JsonConfig GetObject(string key)
    {
        var value = Required(key);
        return value.ValueKind == JsonValueKind.Object ? new JsonConfig(Path, _json, value, [.. _keys, key]) : throw Mismatch(key, "an object", value);
    }

    /// <summary>An object within this one, or null when the key is missing.</summary>
    /// <param name="key">The key.</param>
    /// <exception cref="InvalidFileException">Of another type.</exception>
    public JsonConfig? GetObjectOrNull(string key) => Has(key) ? GetObject(key) : null;

    /// <summary>An object that is an element of a list, for reading with the same errors.</summary>
    /// <param name="key">The list's key.</param>
    /// <param name="element">The element, an object.</param>
    internal JsonConfig Entry(string key, JsonElement element) => new(Path, _json, element, [.. _keys, key, "[]"]);

    /// <summary>An error about a key whose value has the right type but cannot be used.</summary>
    /// <param name="key">The key.</param>
    /// <param name="problem">What is wrong, and what to do.</param>
    public InvalidFileException Wrong(string key, string problem) => new(Path, $"{Name(key)}{At(key)} {problem}");

    /// <summary>Escaped lone surrogates would throw wherever the string is first looked at; better here, once.</summary>
    private static void CheckEscapes(ReadOnlySpan<byte> json)
    {
        if (json.IndexOf("\\ud"u8) < 0 && json.IndexOf("\\uD"u8) < 0) return;
        var reader = new Utf8JsonReader(json);
        while (reader.Read())
            if (reader.TokenType is JsonTokenType.String or JsonTokenType.PropertyName && reader.ValueIsEscaped) reader.GetString();
    }

    private static int? AsInt(JsonElement v) => v.ValueKind == JsonValueKind.Number && v.TryGetInt32(out var n) ? n : null;

    private T Get<T>(string key, string expected, Func<JsonElement, T?> read) where T : struct
    {
        var value = Required(key);
        return read(value) ?? throw Mismatch(key, expected, value);
    }

    private JsonElement Required(string key) => TryGet(key, out var value)
        ? value
        : throw new InvalidFileException(Path, $"{Name(key)} is missing; the file has {Say.Some([.. Keys], key)}");

    private string Text(string key, JsonElement value)
    {
        return value.ValueKind == JsonValueKind.String ? value.GetString()! : throw Mismatch(key, "a string", value);
    }

    private JsonElement.ArrayEnumerator List(string key, JsonElement value, string expected) =>
        value.ValueKind == JsonValueKind.Array ? value.EnumerateArray() : throw Mismatch(key, expected, value);

    private InvalidFileException Mismatch(string key, string expected, JsonElement found) =>
        new(Path, $"{Name(key)}{At(key)} is {Kind(found)}, expected {expected}");

    private string Name(string key) => Say.Quote(string.Join('.', [.. _keys, key]));

    /// <summary>", line N": found by walking the text again, which only errors pay for.</summary>
    private string At(string key)
    {
        string[] wanted = [.. _keys, key];
        var matched = 0;
        var reader = new Utf8JsonReader(_json);
        while (reader.Read())
        {
            if (reader.TokenType != JsonTokenType.PropertyName || reader.CurrentDepth != matched + 1) continue;
            if (!reader.ValueTextEquals(wanted[matched])) { reader.Skip(); continue; }
            if (++matched < wanted.Length) continue;
            var line = 1 + _json.AsSpan(0, (int)reader.TokenStartIndex).Count((byte)'\n');
            return string.Create(CultureInfo.InvariantCulture, $" in line {line}");
        }

        return "";
    }

    private static string Kind(JsonElement v) => v.ValueKind switch
    {
        JsonValueKind.Object => "an object",
        JsonValueKind.Array => "a list",
        JsonValueKind.String => "the string " + Say.Quote(v.GetRawText().Trim('"')),
        JsonValueKind.Number => "the number " + (v.GetRawText() is { Length: <= 40 } short_ ? short_ : v.GetRawText()[..40] + "…"),
        JsonValueKind.True => "true",
        JsonValueKind.False => "false",
        _ => "null",
    };

    /// <summary>The reader's reason without its own report of the place.</summary>
    private static string Reason(JsonException e)
    {
        var text = AtomicFile.OneLine(e.Message);
        var cut = text.IndexOf(" LineNumber:", StringComparison.Ordinal);
        return cut > 0 ? text[..cut] : text;
    }
}
