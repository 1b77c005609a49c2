using System.CommandLine;
using System.Text.Json.Nodes;
using IlgpuSae.Hub;

namespace IlgpuSae.Cli.Verbs;

[Verb("hub download", "Fetch files of a repository into the cache that Python's library shares.", 80)]
internal sealed class HubDownloadVerb : Verb
{
    private readonly Option<string?> _repo = Options.Text("--repo", "ID", "The repository: org/name, or org/name@revision.");
    private readonly Option<string?> _files = Options.Text("--files", "NAMES", "Names with commas between them, * for anything; every file if not given.");
    private readonly Option<string> _type = HubOption.Type();
    private readonly Option<bool> _refresh = Options.Switch("--refresh", "Ask the hub for the newest commit first.");

    public override IEnumerable<OptionGroup> Groups => [new("Download", _repo, _files, _type, _refresh)];

    public override IReadOnlyList<string> Examples => ["ilgpusae hub download --repo openai-community/gpt2 --files \"*.json,model.safetensors\""];

    public override void Run(ParseResult arguments, Session session)
    {
        var repo = HubRepo.Parse(session.Required(_repo), HubOption.Kind(arguments.GetValue(_type)!));
        if (arguments.GetValue(_refresh)) session.Hub().Refresh(repo, session.Interrupt);
        string[] patterns = arguments.GetValue(_files)?.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries) ?? [];
        string folder;
        IReadOnlyList<string> files;
        // Plain names need no list of the repository: what the cache has is not asked for.
        if (patterns.Length > 0 && !patterns.Any(p => p.Contains('*', StringComparison.Ordinal) || p.Contains('?', StringComparison.Ordinal)))
        {
            var first = "";
            foreach (var name in patterns)
            {
                var found = session.Hub().GetFile(repo, name, session.Interrupt);
                if (first.Length == 0) first = found[..^(name.Length + 1)];
            }

            (folder, files) = (first, patterns);
        }
        else
        {
            (folder, files) = session.Hub().GetFiles(repo, patterns, session.Interrupt);
        }

        session.EndProgress();
        foreach (var file in files) session.Output.WriteLine(Path.Combine(folder, file.Replace('/', Path.DirectorySeparatorChar)));
        session.Result(new JsonObject { ["repository"] = repo.ToString(), ["path"] = folder, ["files"] = new JsonArray([.. files.Select(f => (JsonNode)f)]) });
    }
}
