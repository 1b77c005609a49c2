using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using YamlDotNet.Core;
using YamlDotNet.Core.Events;

namespace IlgpuSae.Files;

/// <summary>
/// A YAML file that holds one mapping, read as if it were JSON. Plain words are numbers, true, false and null where JSON
/// would have them so, else strings. Aliases, which can blow a small file up to any size, tags and keys that are no text
/// are refused.
/// </summary>
public static partial class YamlConfig
{
    private const long MaxBytes = 1L << 24;
    private const int MaxDepth = 64;

    /// <summary>Reads a file.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="InvalidFileException">Missing, no YAML, more than one document, or no mapping.</exception>
    public static JsonConfig Read(string path) => Parse(path, ReadFailure.ReadAll(path, MaxBytes));

    /// <summary>Takes YAML that is already in memory.</summary>
    /// <param name="path">Where it came from, for messages.</param>
    /// <param name="yaml">UTF-8.</param>
    /// <exception cref="InvalidFileException">No YAML, more than one document, or no mapping.</exception>
    public static JsonConfig Parse(string path, byte[] yaml)
    {
        ArgumentNullException.ThrowIfNull(yaml);
        try
        {
            var parser = new Parser(new StringReader(new UTF8Encoding(false, true).GetString(yaml)));
            var json = new StringBuilder();
            var line = 1L;
            parser.Consume<StreamStart>();
            parser.Consume<DocumentStart>();
            if (parser.Current is not MappingStart) throw new InvalidFileException(path, "holds no mapping from names to values");
            Value(path, parser, json, ref line, 0);
            parser.Consume<DocumentEnd>();
            if (!parser.TryConsume<StreamEnd>(out _)) throw new InvalidFileException(path, "holds more than one document");
            return JsonConfig.Parse(path, Encoding.UTF8.GetBytes(json.ToString()));
        }
        catch (YamlException e)
        {
            throw new InvalidFileException(path, string.Create(CultureInfo.InvariantCulture, $"is not valid YAML at line {e.Start.Line}: {AtomicFile.OneLine(e.Message)}"), e);
        }
        catch (InvalidOperationException e)
        {
            // What the parser throws at some damaged files in place of its own exception.
            throw new InvalidFileException(path, "is not valid YAML", e);
        }
        catch (DecoderFallbackException e)
        {
            throw new InvalidFileException(path, "is not valid UTF-8", e);
        }
    }

    private static void Value(string path, Parser parser, StringBuilder json, ref long line, int depth)
    {
        if (depth > MaxDepth) throw new InvalidFileException(path, $"is nested deeper than {MaxDepth}");
        if (parser.Current is AnchorAlias alias) throw new InvalidFileException(path, Text(alias, "refers to a value by an alias, which is not read"));
        if (parser.Current is NodeEvent node)
        {
            if (!node.Tag.IsEmpty && !node.Tag.IsNonSpecific)
                throw new InvalidFileException(path, Text(node, $"has a value with the tag {Say.Quote(node.Tag.Value)}, which is not read"));
        }

        if (parser.TryConsume<Scalar>(out var scalar))
        {
            json.Append(scalar.Style == ScalarStyle.Plain ? Plain(scalar.Value) : JsonSerializer.Serialize(scalar.Value));
        }
        else if (parser.TryConsume<SequenceStart>(out _))
        {
            json.Append('[');
            for (var first = true; !parser.TryConsume<SequenceEnd>(out _); first = false)
            {
                if (!first) json.Append(',');
                Value(path, parser, json, ref line, depth + 1);
            }

            json.Append(']');
        }
        else
        {
            parser.Consume<MappingStart>();
            json.Append('{');
            for (var first = true; !parser.TryConsume<MappingEnd>(out _); first = false)
            {
                if (!first) json.Append(',');
                if (parser.Current is not Scalar) throw new InvalidFileException(path, "has a key that is no text");
                var key = parser.Consume<Scalar>();
                // Keys stand in the lines they have in the file, so that later errors name the right ones.
                for (; line < key.Start.Line; line++) json.Append('\n');
                json.Append(JsonSerializer.Serialize(key.Value)).Append(':');
                Value(path, parser, json, ref line, depth + 1);
            }

            json.Append('}');
        }
    }

    private static string Text(ParsingEvent node, string problem) => string.Create(CultureInfo.InvariantCulture, $"line {node.Start.Line} {problem}");

    private static string Plain(string word) => word switch
    {
        "" or "~" or "null" or "Null" or "NULL" => "null",
        "true" or "True" or "TRUE" => "true",
        "false" or "False" or "FALSE" => "false",
        _ when Number().IsMatch(word) => word.TrimStart('+'),
        _ => JsonSerializer.Serialize(word),
    };

    /// <summary>What is a number in YAML and in JSON alike, but for a plus sign.</summary>
    [GeneratedRegex(@"^[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$", RegexOptions.CultureInvariant)]
    private static partial Regex Number();
}
