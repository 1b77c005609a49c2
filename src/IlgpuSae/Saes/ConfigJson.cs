using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;

namespace IlgpuSae.Saes;

/// <summary>
/// Configuration records as JSON in SAELens' spelling: snake_case names, enumerations as their snake_case names, base
/// fields first, <c>architecture</c> last, two spaces.
/// </summary>
public static class ConfigJson
{
    /// <summary>The spelling, for other records that follow it.</summary>
    public static JsonSerializerOptions Options { get; } = Make(JsonUnmappedMemberHandling.Skip);

    private static JsonSerializerOptions Strict { get; } = Make(JsonUnmappedMemberHandling.Disallow);

    /// <summary>A value of an enumeration as files spell it.</summary>
    /// <typeparam name="T">The enumeration.</typeparam>
    /// <param name="value">The value.</param>
    public static string Name<T>(T value) where T : struct, Enum => JsonNamingPolicy.SnakeCaseLower.ConvertName(value.ToString());

    /// <summary>A record's fields in stable order; an SAE's settings end with <c>architecture</c>.</summary>
    /// <param name="config">A configuration record.</param>
    public static JsonObject ToJson(object config)
    {
        var json = JsonSerializer.SerializeToNode(config, config.GetType(), Options)!.AsObject();
        if (config is SaeConfig sae) json["architecture"] = sae.Architecture;
        return json;
    }

    /// <summary>The names of a record's fields in files, those that are left out while they have their defaults included.</summary>
    /// <param name="type">The record's type.</param>
    public static IEnumerable<string> Fields(Type type) => Options.GetTypeInfo(type).Properties.Where(p => p.Set is not null).Select(p => p.Name);

    /// <summary>A record from JSON.</summary>
    /// <param name="json">Its fields; absent ones keep their defaults.</param>
    /// <param name="type">The record's type.</param>
    /// <param name="where">File or option for messages.</param>
    /// <param name="unknownFields">Whether fields the record does not have are passed over; else they are an error.</param>
    /// <exception cref="InvalidInputException">A field is unknown or of a wrong kind; the message names it.</exception>
    public static object FromJson(JsonObject json, Type type, string where, bool unknownFields = false)
    {
        var copy = (JsonObject)json.DeepClone();
        if (type.IsSubclassOf(typeof(SaeConfig))) copy.Remove("architecture");
        try
        {
            return copy.Deserialize(type, unknownFields ? Options : Strict)!;
        }
        catch (JsonException e)
        {
            var unknown = copy.Select(p => p.Key).FirstOrDefault(k => e.Message.Contains($"'{k}'", StringComparison.Ordinal));
            if (unknown is not null && e.Message.Contains("could not be mapped", StringComparison.Ordinal))
            {
                throw new InvalidInputException($"{where}: field \"{unknown}\" is not known; known: {string.Join(", ", Fields(type))}", e);
            }

            var field = e.Path is { Length: > 2 } path ? path[2..] : "?";
            var found = copy.TryGetPropertyValue(field, out var value) ? value?.ToJsonString() ?? "null" : "?";
            throw new InvalidInputException($"{where}: field \"{field}\" cannot be {found}", e);
        }
    }

    private static JsonSerializerOptions Make(JsonUnmappedMemberHandling unknown)
    {
        var options = new JsonSerializerOptions
        {
            PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
            Converters = { new JsonStringEnumConverter(JsonNamingPolicy.SnakeCaseLower, allowIntegerValues: false) },
            UnmappedMemberHandling = unknown,
            WriteIndented = true,
            TypeInfoResolver = new DefaultJsonTypeInfoResolver { Modifiers = { WithoutDerived, WithoutDefaults } },
        };
        options.MakeReadOnly();
        return options;
    }

    /// <summary>Leaves fields that SAELens does not have out of files while they have their defaults.</summary>
    private static void WithoutDefaults(JsonTypeInfo info)
    {
        object? defaults = null;
        foreach (var p in info.Properties)
        {
            if (p.AttributeProvider?.IsDefined(typeof(LeftOutByDefaultAttribute), inherit: true) != true || p.Get is null) continue;
            defaults ??= Activator.CreateInstance(info.Type)!;
            var usual = p.Get(defaults);
            p.ShouldSerialize = (_, value) => !Equals(value, usual);
        }
    }

    /// <summary>
    /// Leaves out what an SAE's settings compute. Attributes would not do: an override does not inherit them here.
    /// </summary>
    private static void WithoutDerived(JsonTypeInfo info)
    {
        if (!info.Type.IsSubclassOf(typeof(SaeConfig))) return;
        for (var i = info.Properties.Count - 1; i >= 0; i--)
            if (info.Properties[i].Set is null) info.Properties.RemoveAt(i);
    }
}
