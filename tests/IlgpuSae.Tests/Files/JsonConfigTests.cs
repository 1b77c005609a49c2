using System.Text;
using IlgpuSae.Files;
using Xunit;

namespace IlgpuSae.Tests.Files;

public sealed class JsonConfigTests
{
    private static readonly JsonConfig Config = Parse("""
        {
          "n_embd": 768,
          "eps": 1e-5,
          "tied": true,
          "name": "gpt2",
          "nothing": null,
          "sizes": [1, 2],
          "kinds": ["a", 3],
          "rope": {
            "factor": "eight",
            "n_embd": 1
          },
          "big": 12345678901
        }
        """);

    [Fact]
    public void Values_come_by_type()
    {
        Assert.Equal(768, Config.GetInt("n_embd"));
        Assert.Equal(1e-5, Config.GetDouble("eps"));
        Assert.True(Config.GetBool("tied"));
        Assert.Equal("gpt2", Config.GetString("name"));
        Assert.Equal([1, 2], Config.GetInts("sizes"));
        Assert.Equal(12345678901, Config.GetLong("big"));
        Assert.Equal(1, Config.GetObject("rope").GetInt("n_embd"));
        Assert.Equal(7, Config.GetInt("nothing", 7));
        Assert.Null(Config.GetStringOrNull("nothing"));
        Assert.Null(Config.GetObjectOrNull("absent"));
        Assert.False(Config.Has("nothing"));
    }

    [Fact]
    public void Errors_name_file_line_key_expectation_and_find()
    {
        Assert.Equal("config.json: \"name\" in line 5 is the string \"gpt2\", expected an integer", Message(() => Config.GetInt("name")));
        Assert.Equal("config.json: \"rope.factor\" in line 10 is the string \"eight\", expected a number", Message(() => Config.GetObject("rope").GetDouble("factor")));
        Assert.Equal("config.json: \"big\" in line 13 is the number 12345678901, expected an integer", Message(() => Config.GetInt("big")));
        Assert.Equal("config.json: \"eps\" in line 3 is the number 1e-5, expected an integer", Message(() => Config.GetInt("eps", 3)));
        Assert.Equal("config.json: \"kinds\" in line 8 is the number 3, expected a list of strings", Message(() => Config.GetStrings("kinds")));
        Assert.Equal("config.json: \"n_embd\" in line 2 is the number 768, expected an object", Message(() => Config.GetObject("n_embd")));
        Assert.Equal("config.json: \"n_embed\" is missing; the file has \"n_embd\", \"name\", \"tied\", \"big\", \"eps\" and 4 more", Message(() => Config.GetInt("n_embed")));
    }

    [Theory]
    [InlineData("[1]", "holds a list, expected a JSON object")]
    [InlineData("{\n\"a\": 1,\n}", "is not valid JSON at line 3: The JSON object contains a trailing comma at the end which is not supported in this mode. Change the reader options.")]
    [InlineData("", "is not valid JSON at line 1: The input does not contain any JSON tokens. Expected the input to start with a valid JSON token, when isFinalBlock is true.")]
    [InlineData("""{"a": "\ud800"}""", "holds an escaped lone surrogate, which is no valid Unicode text")]
    [InlineData("""{"a": 1, "a": 2}""", "is not valid JSON: Duplicate property 'a' encountered during deserialization.")]
    public void What_is_no_object_is_refused(string json, string problem) => Assert.Equal($"config.json: {problem}", Message(() => Parse(json)));

    [Fact]
    public void A_byte_order_mark_is_skipped_and_wrong_bytes_are_refused()
    {
        Assert.Equal(1, JsonConfig.Parse("config.json", [0xEF, 0xBB, 0xBF, .. "{\"a\":1}"u8]).GetInt("a"));
        Assert.Equal("config.json: is not valid UTF-8", Message(() => JsonConfig.Parse("config.json", [(byte)'{', 0xFF, (byte)'}'])));
    }

    private static JsonConfig Parse(string json) => JsonConfig.Parse("config.json", Encoding.UTF8.GetBytes(json));

    private static string Message(Action act) => Assert.Throws<InvalidFileException>(act).Message;
}
