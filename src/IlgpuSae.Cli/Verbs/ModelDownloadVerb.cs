using System.CommandLine;
using System.Text.Json.Nodes;
using IlgpuSae.Runs;

namespace IlgpuSae.Cli.Verbs;

[Verb("model download", "Fetch a model into the cache: settings, weights, tokenizer.", 72)]
internal sealed class ModelDownloadVerb : Verb
{
    private readonly Option<string?> _model = Options.Text("--model", "NAME", "A name such as gpt2-small, or a repository of the hub.");

    public override IEnumerable<OptionGroup> Groups => [new("Download", _model)];

    public override IReadOnlyList<string> Examples => ["ilgpusae model download --model pythia-70m-deduped"];

    public override void Run(ParseResult arguments, Session session)
    {
        var model = session.Required(_model);
        var folder = ModelReference.Fetch(model, session.Hub, session.Interrupt);
        session.EndProgress();
        session.Output.WriteLine(folder);
        session.Result(new JsonObject { ["model"] = model, ["path"] = folder });
    }
}
