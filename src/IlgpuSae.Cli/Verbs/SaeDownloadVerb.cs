using System.CommandLine;
using System.Text.Json.Nodes;
using IlgpuSae.Saes.Pretrained;

namespace IlgpuSae.Cli.Verbs;

[Verb("sae download", "Fetch a published SAE into the cache.", 62)]
internal sealed class SaeDownloadVerb : Verb
{
    private readonly Option<string?> _sae = Options.Text("--sae", "NAME", "RELEASE/ID, or a repository of the hub: org/name[@revision]/folder.");
    private readonly Option<bool> _refresh = Options.Switch("--refresh", "Ask the hub for the newest commit first.");

    public override IEnumerable<OptionGroup> Groups => [new("Download", _sae, _refresh)];

    public override IReadOnlyList<string> Examples => ["ilgpusae sae download --sae gpt2-small-res-jb/blocks.8.hook_resid_pre"];

    public override void Run(ParseResult arguments, Session session)
    {
        var reference = SaeReference.Parse(session.Required(_sae));
        if (reference.Published is { } published && arguments.GetValue(_refresh)) session.Hub().Refresh(published.Repository, session.Interrupt);
        var path = reference.Fetch(session.Hub, session.Interrupt);
        session.EndProgress();
        session.Output.WriteLine(path);
        session.Result(new JsonObject { ["sae"] = reference.Text, ["path"] = path });
    }
}
