using System.Text.Json.Nodes;
using IlgpuSae.Testing;
using IlgpuSae.Tokenizers;
using Xunit;

namespace IlgpuSae.Tests.Tokenizers;

/// <summary>
/// Chat templates of the constructs of the published ones (Llama 2 and 3, Qwen 2.5 and 3, Gemma 1 and 3, Mistral,
/// Phi 3, ChatML, Zephyr): texts by Hugging Face's JavaScript engine (Golden/chat/make.mjs), the rest by Jinja's rules.
/// </summary>
public sealed class ChatTemplateTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Published_constructs_render_as_hugging_faces_engine_does()
    {
        var cases = JsonNode.Parse(File.ReadAllText(Path.Combine(Golden.FolderOf("chat"), "cases.json")))!.AsArray();
        Assert.True(cases.Count > 45);
        foreach (var c in cases)
        {
            var template = ChatTemplate.Parse((string)c!["template"]!, new Dictionary<string, string> { ["bos_token"] = "<s>", ["eos_token"] = "</s>" });
            string Render() => template.Render(c["messages"]!.AsArray(), (bool)c["add_generation_prompt"]!, c["variables"]!.AsObject().ToDictionary(v => v.Key, v => v.Value));
            var name = (string)c["name"]!;
            if (c["error"] is { } error) Assert.EndsWith((string)error!, Assert.Throws<InvalidInputException>(Render).Message, StringComparison.Ordinal);
            else Assert.Equal($"{name}: {(string)c["expected"]!}", $"{name}: {Render()}");
        }
    }

    [Theory]
    // White space: trim_blocks, lstrip_blocks, - and +.
    [InlineData("a\n  {% if true %}\nb\n  {% endif %}\nc\n", "a\nb\nc")]
    [InlineData("a\n  {{ 1 }}\nb", "a\n  1\nb")]
    [InlineData("a {%- if true -%} b {%- endif %} c", "ab c")]
    [InlineData("a\n  {%+ if true %}b{% endif +%}\nc", "a\n  b\nc")]
    [InlineData("x {# c #}\ny {#- d -#} z", "x yz")]
    [InlineData("{% raw %}{{ a }}{% endraw %}", "{{ a }}")]
    // Scopes: a loop's names end with each turn, a namespace's entries stay; if has no scope of its own.
    [InlineData("{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}", "231")]
    [InlineData("{% set n = namespace(x=1) %}{% for i in [1, 2] %}{% set n.x = n.x + i %}{% endfor %}{{ n.x }}", "4")]
    [InlineData("{% if true %}{% set y = 5 %}{% endif %}{{ y }}{{ z }}", "5")]
    // Python's values.
    [InlineData("{{ none }} {{ true }} {{ 1.0 }} {{ 1e }} {{ [1, 'a', none] }} {{ {'k': \"it's\"} }}", null)]
    [InlineData("{{ none }} {{ true }} {{ 2.0 }} {{ [1, 'a', none] }} {{ {'k': \"it's\"} }}", "None True 2.0 [1, 'a', None] {'k': \"it's\"}")]
    [InlineData("{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 1 == 1.0 }}", "-4 2 3.5 1024 True False True")]
    [InlineData("{{ 'abcde'[1:4] }}{{ 'abcde'[-2:] }}{{ 'abcde'[::-2] }}{{ [1, 2, 3][-1] }}{{ '😀b'[1] }}", "bcddeeca3b")]
    [InlineData("{{ 'a' if false }}|{{ 'x' 'y' }}|{{ '\\u00e9\\n' | length }}|{{ not 'a' in 'b' }}", "|xy|2|True")]
    [InlineData("{% for a, b in {'x': 1, 'y': 2}.items() %}{{ a }}{{ b }}{{ loop.cycle('-', '.') }}{% endfor %}", "x1-y2.")]
    [InlineData("{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "02")]
    [InlineData("{% for i in [] %}{% else %}none{% endfor %}{% for i in [1, 2, 3] if i != 2 %}{{ loop.index }}{{ loop.last }}{% endfor %}", "none1False2True")]
    [InlineData("{{ {'é': '<\"\\n'} | tojson }}{{ [1, []] | tojson(indent=2) }}", "{\"é\": \"<\\\"\\n\"}[\n  1,\n  []\n]")]
    [InlineData("{{ [{'a': 1}, {'a': 2}, {}] | selectattr('a', 'defined') | map(attribute='a') | join(',') }} {{ [3, 1, 2] | sort | first }} {{ [1, 1, 2] | unique | list | length }}", "1,2 1 2")]
    [InlineData("{{ '  a b ' | trim }}|{{ ' x '.strip() }}|{{ 'a,b,c'.split(',', 1) | last }}|{{ 'xxaxx'.strip('x') }}|{{ 'a b\tc'.split() | length }}", "a b|x|b,c|a|3")]
    [InlineData("{{ x is defined }} {{ none is none }} {{ 3 is odd }} {{ 'a' is string }} {{ [] is iterable }} {{ {} is mapping }} {{ 4 is divisibleby 2 }} {{ x is not defined }}", "False True True True True True True True")]
    [InlineData("{% macro m(a, b='d') %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, b=2) }}{{ m(b='x', a='y') | upper }}", "1d12YX")]
    [InlineData("{% set t %}a{{ 1 }}{% endset %}{{ t }}{% set u | upper %}b{% endset %}{{ u }}", "a1B")]
    [InlineData("{% generation %}g{% endgeneration %}{{ strftime_now('%d %b %Y') }}", "g03 Feb 2025")]
    [InlineData("{{ none | default('x') }}{{ y | default('x') }}{{ '' | default('z', true) }}", "Nonexz")]
    public void Jinjas_rules_hold(string template, string? expected)
    {
        if (expected is null) Assert.Throws<InvalidInputException>(() => ChatTemplate.Parse(template));
        else Assert.Equal(expected, ChatTemplate.Parse(template).Render([], now: new DateTime(2025, 2, 3)));
    }

    [Theory]
    [InlineData("a\n{% include 'x' %}", "line 2: {% include %} is not known; known are if, for, set, macro, generation, break, continue and raw")]
    [InlineData("{{ x | nope }}", "line 1: the filter \"nope\" is not known; known are abs, ")]
    [InlineData("{{ x is nope }}", "line 1: the test \"nope\" is not known; known are defined, ")]
    [InlineData("{% if x %}", "line 1: the block has no endif")]
    [InlineData("\n{{ x", "line 2: {{ has no end }}")]
    [InlineData("{{ x y }}", "line 1: \"y\" where the end of the block or expression was expected")]
    [InlineData("{{ 'x }}", "line 1: a quoted text has no end")]
    [InlineData("{# x", "line 1: a comment {# has no end #}")]
    [InlineData("{{ ; }}", "line 1: \";\" belongs to no expression")]
    public void What_is_no_template_is_refused_by_line(string template, string problem) =>
        Assert.StartsWith("the chat template: " + problem, Assert.Throws<InvalidInputException>(() => ChatTemplate.Parse(template)).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData("\n{{ x.y.z }}", "line 2: \"x\" is undefined, so it has no y")]
    [InlineData("{{ 'a' + 1 }}", "line 1: + does not go between a text and a number")]
    [InlineData("{{ messages.append(1) }}", "line 1: lists cannot be changed (append); Hugging Face renders templates in a sandbox that forbids it")]
    [InlineData("{{ f(1) }}", "line 1: \"f\", which is undefined, cannot be called")]
    [InlineData("{{ 1 % 0 }}", "line 1: division by zero")]
    [InlineData("{{ range(10000000) }}", "line 1: range of more than 100000 numbers")]
    [InlineData("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "line 1: the macro m calls itself too often")]
    [InlineData("{% set x = 1 %}{% set x.y = 2 %}", "line 1: x.y cannot be set: x is no namespace()")]
    [InlineData("{{ raise_exception('no\nway') }}", "line 1: no way")]
    public void What_fails_says_where(string template, string problem) =>
        Assert.Equal("the chat template: " + problem, Assert.Throws<InvalidInputException>(() => ChatTemplate.Parse(template).Render([])).Message);

    [Fact]
    public void A_tokenizer_finds_its_template_and_encodes_conversations()
    {
        TinyBpe.WriteFolder(_folder);
        _folder.Write("tokenizer_config.json", """{"bos_token": "<|endoftext|>", "chat_template": "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"}""");
        JsonArray talk = [new JsonObject { ["role"] = "user", ["content"] = "the" }, new JsonObject { ["role"] = "assistant", ["content"] = " a" }];
        Assert.Equal([TinyBpe.EndOfText, TinyBpe.The, TinyBpe.SpaceA], Tokenizer.Load(_folder.Path).EncodeChat(talk));
        _folder.Write("tokenizer_config.json", """{"chat_template": [{"name": "rag", "template": "no"}, {"name": "default", "template": "the"}]}""");
        Assert.Equal([TinyBpe.The], Tokenizer.Load(_folder.Path).EncodeChat(talk));
        _folder.Write("chat_template.jinja", "{{ messages | length }}\n");
        Assert.Equal(['2'], Tokenizer.Load(_folder.Path).EncodeChat(talk));
        _folder.Write("chat_template.jinja", "{{ nope(");
        Assert.Equal($"{_folder["chat_template.jinja"]}: chat template: line 1: {{{{ has no end }}}}", Assert.Throws<InvalidFileException>(() => Tokenizer.Load(_folder.Path).EncodeChat(talk)).Message);
        Assert.Equal([TinyBpe.The], Tokenizer.Load(_folder.Path).Encode("the")); // a faulty template spoils nothing else
        File.Delete(_folder["chat_template.jinja"]);
        File.Delete(_folder["tokenizer_config.json"]);
        Assert.Equal("the tokenizer has no chat template: neither chat_template.jinja nor \"chat_template\" in tokenizer_config.json; give plain text", Assert.Throws<InvalidInputException>(() => Tokenizer.Load(_folder.Path).EncodeChat(talk)).Message);
    }
}
