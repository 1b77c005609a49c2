using System.CommandLine;
using System.Globalization;
using System.Text.Json.Nodes;
using IlgpuSae.Models;
using IlgpuSae.Runs;

namespace IlgpuSae.Cli.Verbs;

[Verb("generate", "Let a model continue a text.", 50)]
internal sealed class GenerateVerb : Verb
{
    private readonly Option<string?> _model = Options.Text("--model", "DIR", "Folder of the model, a name such as gpt2-small, or a repository of the hub.");
    private readonly Option<string> _prompt = Options.Text("--prompt", "TEXT", "The text to continue; empty: from BOS alone.", "");
    private readonly Option<string?> _prompts = Options.Text("--prompts", "FILE", "Prompts to continue together, one a line, instead of --prompt.");
    private readonly Option<bool> _noBos = Options.Switch("--no-bos", "Do not begin with BOS.");
    private readonly Option<int?> _max = Options.OptionalInteger("--max-new-tokens", "Tokens to add at most; until the context is full if not given.", least: 1);
    private readonly Option<string> _overflow = Options.Text("--overflow", "WHAT", "What to do when the context would not suffice: refuse, stop, or slide (forget the older half).", "refuse");
    private readonly Option<string[]> _stop = new("--stop") { HelpName = "TEXT", Description = "End before this text comes; may be given several times." };
    private readonly Option<bool> _goOn = Options.Switch("--ignore-eos", "Go on after the end-of-sequence token.");
    private readonly Option<double> _temperature = Options.Number("--temperature", "0: always the likeliest token; 1: as the model says.", 0);
    private readonly Option<int> _topK = Options.Integer("--top-k", "Sample among this many likeliest tokens, 0: all.", 0);
    private readonly Option<double> _topP = Options.Number("--top-p", "Sample among the likeliest tokens that reach this probability together.", 1);
    private readonly Option<double> _repetition = Options.Number("--repetition-penalty", "Divides the logits of tokens that are there already (1: none).", 1);
    private readonly Option<double> _frequency = Options.Number("--frequency-penalty", "Subtracted from a token's logit for each time it is there (0: none).", 0);
    private readonly Option<int> _seed = Options.Integer("--seed", "Seed of the sampling.", 42);
    private readonly ModelOptions _load = new();

    public override IEnumerable<OptionGroup> Groups =>
    [
        new("Generate", _model, _prompt, _prompts, _noBos, _max, _overflow, _stop, _goOn),
        new("Sampling", _temperature, _topK, _topP, _repetition, _frequency, _seed),
        _load.Group,
    ];

    public override IReadOnlyList<string> Examples =>
    [
        "ilgpusae generate --model gpt2 --prompt \"Once upon a time\" --max-new-tokens 50",
        "ilgpusae generate --model gpt2 --prompts questions.txt --max-new-tokens 20 --stop \"\\n\" --json answers.json",
    ];

    public override void Run(ParseResult arguments, Session session)
    {
        using var device = session.OpenDevice();
        using var language = LanguageModel.Load(session.Required(_model), device, _load.Read(arguments, session), session.Hub, session.Interrupt);
        var texts = arguments.GetValue(_prompts) is { } file ? PromptFile.Read(file) : [arguments.GetValue(_prompt)!];
        var withBos = !arguments.GetValue(_noBos) && language.Tokenizer.BosToken is not null;
        var prompts = texts.Select(t => language.Tokenizer.Encode(t, addBos: withBos)).ToArray();
        var options = new GenerationOptions
        {
            MaxNewTokens = arguments.GetValue(_max),
            Overflow = ContextOverflows.Parse(arguments.GetValue(_overflow)!),
            Temperature = arguments.GetValue(_temperature),
            TopK = arguments.GetValue(_topK),
            TopP = arguments.GetValue(_topP),
            RepetitionPenalty = arguments.GetValue(_repetition),
            FrequencyPenalty = arguments.GetValue(_frequency),
            Seed = (ulong)arguments.GetValue(_seed),
            StopTokens = !arguments.GetValue(_goOn) && language.Tokenizer.EosToken is { } eos ? [eos] : [],
        };
        var rows = prompts.Select((p, r) => new Row(texts[r], [.. p])).ToArray();
        var alone = rows.Length == 1;
        if (alone) session.Output.Write(texts[0]);
        foreach (var piece in language.Model.StreamText(language.Tokenizer, prompts, options, arguments.GetValue(_stop), session.Interrupt))
        {
            rows[piece.Row].Take(piece);
            if (!alone) continue;
            session.Output.Write(piece.Text);
            session.Output.Flush();
        }

        if (alone) session.Output.WriteLine();
        else foreach (var row in rows) session.Output.WriteLine(row.Text);
        if (rows.Any(r => r.Finished == FinishReason.ContextFull)) session.Note(string.Create(CultureInfo.InvariantCulture, $"ended at the model's context of {language.Model.Spec.NCtx} tokens"));
        var results = rows.Select((row, r) => row.ToJson(prompts[r].Length)).ToArray();
        session.Result(alone ? results[0] : new JsonObject { ["results"] = new JsonArray([.. results]) });
    }

    /// <summary>What has become of one prompt.</summary>
    private sealed class Row(string text, List<int> tokens)
    {
        public string Text { get; private set; } = text;

        public FinishReason Finished { get; private set; }

        public void Take(TextPiece piece)
        {
            Text += piece.Text;
            if (piece.Token is { } token) tokens.Add(token);
            Finished = piece.Finished;
        }

        public JsonObject ToJson(int promptTokens) => new()
        {
            ["prompt_tokens"] = promptTokens,
            ["tokens"] = new JsonArray([.. tokens.Select(i => (JsonNode)i)]),
            ["text"] = Text,
            ["finished"] = Finished.ToString(),
        };
    }
}
