using System.CommandLine;
using System.Text.Json.Nodes;
using IlgpuSae.Hub;
using IlgpuSae.Saes.Pretrained;

namespace IlgpuSae.Cli.Verbs;

[Verb("hub upload", "Publish an SAE on the hub, with SAELens' card.", 81)]
internal sealed class HubUploadVerb : Verb
{
    private readonly Option<string?> _repo = Options.Text("--repo", "ID", "The repository: org/name, or org/name@branch; made if it does not exist.");
    private readonly Option<string?> _sae = Options.Text("--sae", "DIR", "Folder of the SAE.");
    private readonly Option<string?> _id = Options.Text("--id", "NAME", "Its folder in the repository; the hook, else the folder's name, if not given.");
    private readonly Option<bool> _private = Options.Switch("--private", "Make a new repository private.");
    private readonly Option<bool> _noReadme = Options.Switch("--no-readme", "Add no card to a repository without one.");

    public override IEnumerable<OptionGroup> Groups => [new("Upload", _repo, _sae, _id, _private, _noReadme)];

    public override IReadOnlyList<string> Examples => ["ilgpusae hub upload --repo me/my-saes --sae output/topk-gpt2-blocks.8.hook_resid_pre"];

    public override void Run(ParseResult arguments, Session session)
    {
        string repo = session.Required(_repo), sae = session.Required(_sae);
        var id = arguments.GetValue(_id) ?? SaeUpload.DefaultId(sae);
        var commit = SaeUpload.Run(session.Hub(), HubRepo.Parse(repo), [KeyValuePair.Create(id, sae)], arguments.GetValue(_private), !arguments.GetValue(_noReadme), session.Interrupt);
        session.EndProgress();
        session.Output.WriteLine($"uploaded {string.Join(", ", commit.Files)}");
        session.Output.WriteLine(commit.Address);
        session.Result(new JsonObject { ["repository"] = repo, ["id"] = id, ["commit"] = commit.Hash, ["url"] = commit.Address });
    }
}
