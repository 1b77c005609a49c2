using System.Text.Json;
using IlgpuSae.Activations;
using IlgpuSae.Datasets;
using IlgpuSae.Files;
using IlgpuSae.Tests.Tokenizers;
using IlgpuSae.Tokenizers;
using Xunit;

namespace IlgpuSae.Tests.Activations;

/// <summary>Contexts from data sets: packing, mixing, holding out, and going on from any place to the token.</summary>
public sealed class DatasetTokenSourceTests : IDisposable
{
    private readonly TempFolder _temp = new();
    private readonly Tokenizer _tokenizer;

    public DatasetTokenSourceTests()
    {
        Directory.CreateDirectory(_temp["tokenizer"]);
        var v = TinyBpe.Vocabulary();
        v["<|endoftext|>"] = TinyBpe.EndOfText;
        _temp.Write("tokenizer/vocab.json", v.ToJsonString());
        _temp.Write("tokenizer/merges.txt", "");
        _temp.Write("tokenizer/chat_template.jinja", "{% for m in messages %}{{ m.role[0] }}{{ m.content }}{% endfor %}");
        _tokenizer = Tokenizer.Load(_temp["tokenizer"]);
    }

    public void Dispose() => _temp.Dispose();

    [Fact]
    public void Documents_are_packed_with_bos_and_separators()
    {
        using var source = Source(5, Lines("d.jsonl", "abc", "defg"));
        Assert.Equal([[264, 'a', 'b', 'c', 264], [264, 'd', 'e', 'f', 'g']], source.Contexts());
    }

    [Fact]
    public void Rows_of_ids_are_contexts_cut_to_size()
    {
        var data = Dataset.Open(_temp.Write("t.jsonl", "{\"tokens\": [1, 2, 3]}\n{\"tokens\": [4, 5, 6]}"));
        using var source = new DatasetTokenSource([new(data)], null, new() { ContextSize = 2, BeginBatchToken = 9 });
        Assert.Equal([[1, 2], [4, 5]], source.Contexts());
        Assert.Equal([$"{_temp["t.jsonl"]}: rows of 3 tokens are cut to context_size = 2"], source.Notes);
        using var larger = new DatasetTokenSource([new(data)], null, new() { ContextSize = 4 });
        Assert.Equal($"{_temp["t.jsonl"]}: a row has 3 tokens, fewer than context_size = 4; use a smaller context_size", Assert.Throws<InvalidFileException>(() => larger.Next()).Message);
    }

    [Fact]
    public void Conversations_go_through_the_chat_template()
    {
        var data = Dataset.Open(_temp.Write("c.jsonl", """{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}"""));
        using var source = new DatasetTokenSource([new(data)], _tokenizer, new() { ContextSize = 6 });
        Assert.Equal(["uhiayo".Select(c => (int)c)], source.Contexts());
    }

    [Fact]
    public void Data_sets_are_mixed_by_the_weights_of_their_tokens()
    {
        var a = Lines("a.jsonl", [.. Enumerable.Repeat("aaaaaaaaaa", 400)]);
        var b = Lines("b.jsonl", [.. Enumerable.Repeat("bbb", 50)]);
        using var source = new DatasetTokenSource([new(a, 3), new(b, 1)], _tokenizer, new() { ContextSize = 20 });
        var tokens = source.Contexts().SelectMany(c => c).ToList();
        Assert.InRange(tokens.Count(t => t == 'b') / (double)tokens.Count, 0.245, 0.255); // b began again many times
        Assert.InRange(tokens.Take(400).Count(t => t == 'b') / 400.0, 0.2, 0.3); // from the start
        using var again = new DatasetTokenSource([new(a, 3), new(b, 1)], _tokenizer, new() { ContextSize = 20 });
        Assert.Equal(tokens, again.Contexts().SelectMany(c => c));
        Assert.Contains("weight 0", Assert.Throws<InvalidInputException>(() => new DatasetTokenSource([new(a, 0)], _tokenizer, new())).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Held_out_rows_and_the_others_are_all_and_never_meet()
    {
        var data = Lines("d.jsonl", [.. Enumerable.Range(0, 2000).Select(i => $"{i:D5}")]);
        string[] Rows(DatasetSplit? split)
        {
            using var source = new DatasetTokenSource([new(data)], _tokenizer, new() { ContextSize = 5 }, split);
            return [.. source.Contexts().Select(c => string.Concat(c.Select(t => (char)t)))];
        }

        var (train, held) = (Rows(new(0.1, false)), Rows(new(0.1, true)));
        Assert.InRange(held.Length, 160, 240);
        Assert.Empty(train.Intersect(held));
        Assert.Equal(Rows(null), train.Concat(held).Order(StringComparer.Ordinal));
        Assert.Equal(held, Rows(new(0.1, true)));
        Assert.Equal(2000, Rows(new(0, false)).Length);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Any_place_can_be_gone_on_from_to_the_token(bool mixed)
    {
        // Documents shorter and longer than contexts and than what is read ahead; malformed rows between them.
        var texts = Enumerable.Range(0, 150).Select(i => new string((char)('a' + (i % 26)), 1 + (i * 37 % 61))).ToArray();
        var a = Lines("a.jsonl", texts);
        File.AppendAllText(_temp["a.jsonl"], "\nbad\n{\"text\": \"end\"}\n");
        var b = Lines("b.jsonl", "BBBBBBBBBBB", "CC", "DDDDDDDDDDDDDDDDDDDDDDDD");
        DatasetTokenSource New() => mixed
            ? new([new(Dataset.Open(_temp["a.jsonl"]), 2), new(Dataset.Open(_temp["b.jsonl"]), 1)], _tokenizer, new() { ContextSize = 7, BeginBatchToken = 264, SequenceSeparatorToken = 264 }, new(0.05, false))
            : new([new(Dataset.Open(_temp["a.jsonl"]))], _tokenizer, new() { ContextSize = 7, BeginBatchToken = 264, SequenceSeparatorToken = 264 });
        using var whole = New();
        var contexts = new List<int[]>();
        var places = new List<string>();
        for (var i = 0; i < 2500; i++) // several rounds
        {
            contexts.Add(whole.Next()!);
            places.Add(JsonSerializer.Serialize(whole.Position));
        }

        Assert.True(whole.Wraps >= 2);
        for (var i = 0; i < places.Count; i += i < 900 ? 13 : 211)
        {
            using var resumed = New();
            resumed.Resume(JsonSerializer.Deserialize<TokenPosition>(places[i])!);
            for (var k = i + 1; k < Math.Min(i + 60, contexts.Count); k++)
            {
                Assert.Equal(contexts[k], resumed.Next());
                Assert.Equal(places[k], JsonSerializer.Serialize(resumed.Position));
            }
        }

        Assert.Empty(a.Files.Except([_temp["a.jsonl"]]).Concat(b.Files.Except([_temp["b.jsonl"]])));
    }

    [Fact]
    public void Token_files_can_be_gone_on_from_as_well()
    {
        var path = _temp["t.safetensors"];
        new SafetensorsWriter().Add("tokens", [6, 2], Enumerable.Range(0, 12).ToArray()).Save(path);
        using var whole = new TokenFileSource(path);
        for (var i = 0; i < 8; i++) whole.Next();
        var place = whole.Position;
        Assert.Equal((1, 8, 2), (place.Wraps, place.Served, place.InPass));
        using var resumed = new TokenFileSource(path);
        resumed.Resume(place);
        Assert.Equal(whole.Next(), resumed.Next());
        Assert.Equal(whole.Position, resumed.Position with { Parts = whole.Position.Parts, Begun = whole.Position.Begun });
        using var shorter = new TokenFileSource(path, contexts: PositionSlice.Parse("0:1"));
        shorter.Resume(place);
        Assert.Contains("the data have changed", Assert.Throws<InvalidInputException>(() => shorter.Next()).Message, StringComparison.Ordinal);
    }

    private Dataset Lines(string name, params string[] texts) => Dataset.Open(_temp.Write(name, string.Join('\n', texts.Select(t => JsonSerializer.Serialize(new { text = t })))));

    private DatasetTokenSource Source(int size, Dataset data) => new([new(data)], _tokenizer, new() { ContextSize = size, BeginBatchToken = 264, SequenceSeparatorToken = 264 });
}
