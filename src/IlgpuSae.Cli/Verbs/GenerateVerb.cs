using System.CommandLine;
using System.Text.Json.Nodes;
using IlgpuSae.Models;
using IlgpuSae.Runs;

namespace IlgpuSae.Cli.Verbs;

[Verb("generate", "Let a model continue a text.", 50)]
internal sealed class GenerateVerb : Verb
{
    private readonly Option<string?> _model = Options.Text("--model", "DIR", "Folder of the model, with its tokenizer.");
    private readonly Option<string> _prompt = Options.Text("--prompt", "TEXT", "The text to continue; empty: from BOS alone.", "");
    private readonly Option<bool> _noBos = Options.Switch("--no-bos", "Do not begin with BOS.");
    private readonly Option<int?> _max = Options.OptionalInteger("--max-new-tokens", "Tokens to add at most; until the context is full if not given.", least: 1);
    private readonly Option<double> _temperature = Options.Number("--temperature", "0: always the likeliest token; 1: as the model says.", 0);
    private readonly Option<int> _topK = Options.Integer("--top-k", "Sample among this many likeliest tokens, 0: all.", 0);
    private readonly Option<double> _topP = Options.Number("--top-p", "Sample among the likeliest tokens that reach this probability together.", 1);
    private readonly Option<int> _seed = Options.Integer("--seed", "Seed of the sampling.", 42);
    private readonly Option<bool> _goOn = Options.Switch("--ignore-eos", "Go on after the end-of-sequence token.");

    public override IEnumerable<OptionGroup> Groups => [new("Generate", _model, _prompt, _noBos, _max, _temperature, _topK, _topP, _seed, _goOn)];

    public override IReadOnlyList<string> Examples => ["ilgpusae generate --model gpt2 --prompt \"Once upon a time\" --max-new-tokens 50"];

    public override void Run(ParseResult arguments, Session session)
    {
        using var device = session.OpenDevice();
        using var language = LanguageModel.Load(session.Required(_model), device);
        var prompt = language.Tokenizer.Encode(arguments.GetValue(_prompt)!, addBos: !arguments.GetValue(_noBos) && language.Tokenizer.BosToken is not null);
        var shown = new TextStream(language.Tokenizer, session.Output);
        var ids = new List<int>(prompt);
        shown.Show(ids);
        foreach (var step in language.Model.Stream([prompt], new GenerationOptions
        {
            MaxNewTokens = arguments.GetValue(_max),
            Temperature = arguments.GetValue(_temperature),
            TopK = arguments.GetValue(_topK),
            TopP = arguments.GetValue(_topP),
            Seed = (ulong)arguments.GetValue(_seed),
            StopTokens = !arguments.GetValue(_goOn) && language.Tokenizer.EosToken is { } eos ? [eos] : [],
        }, session.Interrupt))
        {
            if (step.Tokens[0] is { } id) ids.Add(id);
            shown.Show(ids);
        }

        session.Output.WriteLine();
        session.Result(new JsonObject
        {
            ["prompt_tokens"] = prompt.Length,
            ["tokens"] = new JsonArray([.. ids.Select(i => (JsonNode)i)]),
            ["text"] = language.Tokenizer.Decode([.. ids], skipSpecial: true),
        });
    }
}
