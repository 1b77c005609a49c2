using System.CommandLine;
using System.Globalization;
using System.Text.Json.Nodes;
using IlgpuSae.Runs;
using IlgpuSae.Saes;

namespace IlgpuSae.Cli.Verbs;

[Verb("pretokenize", "Tokenise a data set once, for many runs.", 70)]
internal sealed class PretokenizeVerb : Verb
{
    private readonly OptionTable _table = new();

    public PretokenizeVerb() => _table.Add("Pretokenize", typeof(PretokenizeConfig));

    public override IEnumerable<OptionGroup> Groups => _table.Groups;

    public override IReadOnlyList<string> Examples =>
        ["ilgpusae pretokenize --tokenizer-name gpt2 --dataset-path corpus.jsonl.zst --context-size 128 --save-path tokens"];

    public override void Run(ParseResult arguments, Session session)
    {
        var config = (PretokenizeConfig)ConfigJson.FromJson(_table.Given(arguments), typeof(PretokenizeConfig), "options");
        var run = new PretokenizeRun
        {
            Note = session.Note,
            Progress = done => session.Progress(string.Create(CultureInfo.InvariantCulture, $"context {done}")),
        };
        var result = run.Execute(config, session.Interrupt);
        session.EndProgress();
        session.Output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"saved {config.SavePath}: {result.Contexts} contexts of {config.ContextSize} tokens, {result.Tokens} tokens in all"));
        session.Result(new JsonObject { ["contexts"] = result.Contexts, ["tokens"] = result.Tokens, ["malformed_rows"] = result.Malformed, ["output"] = config.SavePath });
    }
}
